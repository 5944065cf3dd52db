"""The command line: ``headstart run``, ``status``, ``config``, ``ui`` and the rest.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted, 143 terminated.
"""

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from rich.table import Table

from artifacts.garbage import describe_size
from artifacts.inbox import InboxError
from artifacts.store import Store, StoreError
from flows import champion_commands, dataset_commands, nightly_commands, records, server
from flows.grid import study as run_cells
from flows.options import (
    BAD_INPUT,
    DONE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    ConfigFile,
    Json,
    Preset,
    Seed,
    Settings,
    StorePath,
    Tiny,
)
from flows.options import open_store as _store
from flows.options import print_json as _print_json
from flows.options import read_config as _config
from flows.recipes import reproduce as run_recipes
from flows.running import Output, Program, show_plan
from flows.running import run as run_pipeline
from flows.selection import Rerun
from flows.stopping import Terminated, heed, leave, meant
from flows.terminal import NARROW, Screen, mute
from flows.trials import search as run_trials
from models.config import Config, ConfigError, to_toml
from models.images import DatasetError
from models.recipe import load_recipes

GO_ON = "the same command goes on where this one stopped"

app = App(
    name="headstart",
    help="""Transfer learning as a pipeline one can trust.

Pretrain a network on some classes, keep its hidden layers frozen, train new
heads for other classes from a few images of each, and compare with what needs
no transfer. Every stage is cached; a second run computes only what has changed.
""",
    help_epilogue="""Start with

    headstart run            the whole pipeline on MNIST, under a minute
    headstart run            again: nothing to do
    headstart status         which stages would run, and why
    headstart ui             the runs in Prefect's pages
""",
    help_format="plaintext",
    version=lambda: importlib.metadata.version("headstart"),
    default_parameter=Parameter(negative=(), show_default=False),
    # Interruptions and mistakes are told by run_command, in one way for all.
    suppress_keyboard_interrupt=False,
    print_error=False,
)

Stages = Annotated[
    list[str] | None,
    Parameter("--refresh", help="Compute this stage even if it is cached. May be repeated."),
]
RunName = Annotated[str, Parameter(help="A run as headstart runs lists it, or latest.")]
EntryName = Annotated[
    str, Parameter(help="A stage, for its latest result; a key or its beginning; or stage/key.")
]
AnyName = Annotated[str, Parameter(help="A run, latest, a stage, a key or its beginning.")]


@app.command
def run(
    *,
    config: ConfigFile = None,
    set_: Settings = None,
    seed: Seed = None,
    tiny: Tiny = False,
    preset: Preset = "",
    only: Annotated[
        str, Parameter(help="Compute this stage alone, its inputs from the store.")
    ] = "",
    with_upstream: Annotated[
        bool, Parameter(help="With --only: compute missing inputs too.")
    ] = False,
    start: Annotated[str, Parameter("--from", help="Compute this stage and all after it.")] = "",
    refresh: Stages = None,
    no_cache: Annotated[bool, Parameter(help="Compute every stage.")] = False,
    record: Annotated[
        bool, Parameter(help="Make a flow run in Prefect even if nothing has to run.")
    ] = False,
    dry_run: Annotated[bool, Parameter(help="Say what would run and why; run nothing.")] = False,
    store: StorePath = None,
    quiet: Annotated[bool, Parameter(help="Results and errors only.")] = False,
    as_json: Json = False,
) -> int:
    """Run the pipeline; only what has changed is computed.

    Ends with a table of the stages and the test accuracies with their
    intervals, beside the range that was published.
    """
    rerun = Rerun(
        only=only,
        start=start,
        refresh=tuple(refresh or ()),
        cache=not no_cache,
        with_upstream=with_upstream,
    )
    settings = _config(config, set_, seed, tiny, preset, rerun)
    output = Output(as_json=as_json, quiet=quiet)
    if dry_run:
        show_plan(settings, rerun, _store(store), output)
    else:
        run_pipeline(settings, rerun, _store(store), output, record)
    return DONE


@app.command
def study(
    *,
    config: ConfigFile = None,
    set_: Settings = None,
    tiny: Tiny = False,
    preset: Preset = "",
    dry_run: Annotated[bool, Parameter(help="Say what would run and why; run nothing.")] = False,
    store: StorePath = None,
    quiet: Annotated[bool, Parameter(help="Results and errors only.")] = False,
    as_json: Json = False,
) -> int:
    """Compare strategies over numbers of images and seeds, with intervals.

    Section study of the settings says which cells there are. Each is cached: a
    further seed computes only its own.
    """
    settings = _config(config, set_, None, tiny, preset)
    output = Output(as_json=as_json, quiet=quiet)
    program = Program(run_cells, "flows.study:run_study", settings.study.labels)
    return _run_or_plan(settings, _store(store), output, program, dry_run)


@app.command
def search(
    *,
    config: ConfigFile = None,
    set_: Settings = None,
    seed: Seed = None,
    tiny: Tiny = False,
    preset: Preset = "",
    dry_run: Annotated[bool, Parameter(help="Say what would run and why; run nothing.")] = False,
    store: StorePath = None,
    quiet: Annotated[bool, Parameter(help="Results and errors only.")] = False,
    as_json: Json = False,
) -> int:
    """Search the trunk's settings at random, by cross-validation; train with the best.

    Section search of the settings says what is tried. Each candidate is cached:
    further trials compute only their own. The best settings are written as a
    file that --config reads.
    """
    settings = _config(config, set_, seed, tiny, preset)
    output = Output(as_json=as_json, quiet=quiet)
    program = Program(run_trials, "flows.search:run_search")
    return _run_or_plan(settings, _store(store), output, program, dry_run)


@app.command
def reproduce(
    *ids: Annotated[str, Parameter(help="Recipes, or the beginnings of their ids; all if none.")],
    seeds: Annotated[
        int, Parameter(help="Seeds of each recipe, instead of as many as it says.")
    ] = 0,
    config: ConfigFile = None,
    set_: Settings = None,
    dry_run: Annotated[bool, Parameter(help="Say what would run and why; run nothing.")] = False,
    store: StorePath = None,
    quiet: Annotated[bool, Parameter(help="Results and errors only.")] = False,
    as_json: Json = False,
) -> int:
    """Run the documents' experiments and compare them with what was printed.

    Each is a recipe, a file of settings, and is cached: a further seed computes
    only its own trainings.
    """
    asked = [f"reproduce.recipes={','.join(ids)}"] if ids else []
    asked += [f"reproduce.seeds={seeds}"] if seeds else []
    settings = _config(config, [*(set_ or ()), *asked], None, False, "")
    load_recipes(settings.reproduce.recipes)
    output = Output(as_json=as_json, quiet=quiet)
    program = Program(run_recipes, "flows.reproduce:run_reproduction")
    return _run_or_plan(settings, _store(store), output, program, dry_run)


@app.command
def status(
    *,
    config: ConfigFile = None,
    set_: Settings = None,
    seed: Seed = None,
    tiny: Tiny = False,
    preset: Preset = "",
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Say for every stage whether it would run or is cached, and why."""
    settings = _config(config, set_, seed, tiny, preset)
    show_plan(settings, Rerun(), _store(store), Output(as_json=as_json))
    return DONE


@app.command(name="config")
def show_config(
    *,
    config: ConfigFile = None,
    set_: Settings = None,
    seed: Seed = None,
    tiny: Tiny = False,
    preset: Preset = "",
) -> int:
    """Print the settings a run would use, as TOML that --config reads."""
    sys.stdout.write(to_toml(_config(config, set_, seed, tiny, preset)))
    return DONE


@app.command
def ui(
    *,
    stop: Annotated[bool, Parameter(help="Let the server leave instead.")] = False,
    store: StorePath = None,
) -> int:
    """Start Prefect's server on loopback if none runs; print where to see the latest run."""
    from flows.pages import open_pages

    if stop:
        server.release()
        return DONE
    server.settle_environment()
    for line in open_pages(_store(store)):
        sys.stdout.write(line + "\n")
    return DONE


@app.command
def runs(*, store: StorePath = None, as_json: Json = False) -> int:
    """List the runs in the store, youngest first."""
    found = records.list_runs(_store(store))
    if as_json:
        return _print_json({"runs": found})
    screen = Screen()
    if not found:
        screen.print(f"no runs in {_store(store).root}", markup=False, soft_wrap=True)
        return DONE
    # A run's name says when it started.
    titles = ("run", "", "seconds", "computed")[: 2 if screen.width < NARROW else 4]
    table = _table(*titles)
    for row in found:
        cells = (
            row["run"],
            row["status"],
            f"{row['seconds']:.1f}",
            ", ".join(row["ran"]) or "nothing",
        )
        table.add_row(*cells[: len(titles)])
    screen.print(table)
    return DONE


@app.command
def show(
    name: AnyName,
    /,
    *,
    open_: Annotated[
        bool, Parameter("--open", help="Make a run's report and open it in the browser.")
    ] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Show a run or an entry: what made it, from what, with which settings and code."""
    if open_:
        return _open_report(records.save_report(_store(store), name), as_json)
    found = records.show(_store(store), name)
    if as_json:
        return _print_json(found)
    for line in records.outline(found):
        Screen(highlight=False).print(line, markup=False, soft_wrap=True)
    return DONE


@app.command
def diff(
    first: RunName, second: RunName, /, *, store: StorePath = None, as_json: Json = False
) -> int:
    """Compare two runs: settings, code, versions, metrics, side by side."""
    rows = records.diff(_store(store), first, second)
    if as_json:
        return _print_json({"differences": rows})
    table = _table("stage", "what", first, second)
    for row in rows:
        table.add_row(row["stage"], row["what"], *(_cell(row[n]) for n in ("first", "second")))
    Screen().print(table if rows else "No difference.")
    return DONE


@app.command
def lineage(name: EntryName, /, *, store: StorePath = None, as_json: Json = False) -> int:
    """Show what an entry was made from, and what was made from it."""
    found = records.lineage(_store(store), name)
    if as_json:
        return _print_json(found)
    for tree in records.lineage_trees(found):
        Screen(highlight=False).print(tree)
    return DONE


@app.command
def verify(*, store: StorePath = None, as_json: Json = False) -> int:
    """Read every byte in the store; name every damaged entry and exit 1 if there is any."""
    place = _store(store)
    damaged = records.verify(place)
    entries = len(list(place.entries()))
    if as_json:
        _print_json({"entries": entries, "damaged": damaged})
    else:
        for name, problems in damaged.items():
            sys.stdout.write(f"{name}: {', '.join(problems)}\n")
        sys.stdout.write(f"{entries} entries in {place.root}, {len(damaged)} damaged\n")
    return FAILED if damaged else DONE


@app.command
def doctor(*, store: StorePath = None, as_json: Json = False) -> int:
    """Look at versions, store, disk, clock, server and dead runs; say what to do. Exit 1 if any."""
    from flows.doctor import examine

    findings = list(examine(_store(store)))
    if as_json:
        _print_json({"findings": [asdict(finding) for finding in findings]})
    for finding in [] if as_json else findings:
        mark = "ok" if finding.good else "LOOK"
        sys.stdout.write(f"{mark:5}{finding.about}: {finding.text}\n")
    return DONE if all(finding.good for finding in findings) else FAILED


@app.command
def gc(
    *,
    keep_runs: Annotated[
        int,
        Parameter(
            help="Keep so many of the latest runs.", validator=Number(gte=0), show_default=True
        ),
    ] = 10,
    older_than: Annotated[
        str,
        Parameter(help="Remove only what is older, such as 30d or 12h.", show_default=True),
    ] = "30d",
    dry_run: Annotated[bool, Parameter(help="Say what would go; remove nothing.")] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Remove what no kept run reaches; safe while runs are going on."""
    removed = list(records.collect_garbage(_store(store), keep_runs, older_than, dry_run))
    total = sum(size for _, size in removed)
    if as_json:
        return _print_json({"removed": [name for name, _ in removed], "bytes": total})
    for name, size in removed:
        sys.stdout.write(f"{name}: {describe_size(size)}\n")
    verb = "would free" if dry_run else "freed"
    sys.stdout.write(f"{verb} {describe_size(total)}\n")
    return DONE


def _run_or_plan(
    settings: Config, store: Store, output: Output, program: Program, dry_run: bool
) -> int:
    if dry_run:
        show_plan(settings, Rerun(), store, output, program)
    else:
        run_pipeline(settings, Rerun(), store, output, record=False, program=program)
    return DONE


def _open_report(path: Path, as_json: bool) -> int:
    import webbrowser

    if as_json:
        _print_json({"report": str(path)})
    else:
        sys.stdout.write(f"Report: {path}\n")
    # Said first: on a server without a browser the path is all there is.
    webbrowser.open(path.as_uri())
    return DONE


champion_commands.register(app)
dataset_commands.register(app)
nightly_commands.register(app)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        # The first column names what other commands take.
        table.add_column(title, no_wrap=title == titles[0], overflow="fold")
    return table


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and ends the process with its code."""
    leave(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """Runs a command and gives its code."""
    # Started without standard streams, as some schedulers do, Python has None in their place.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - open to the end
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - open to the end
    heed()
    try:
        code = app(arguments, exit_on_error=False, result_action="return_value")
        # Here, where it is told if there is no room for it.
        sys.stdout.flush()
        return int(code or DONE)
    except BrokenPipeError:
        mute(sys.stdout)  # Whoever read our output has seen enough.
        return DONE
    except BaseException as error:  # noqa: BLE001 - the last stop before the user
        return _end(meant(error))


def _end(error: BaseException) -> int:
    """Says why a command ended early; gives the exit code."""
    match error:
        case CycloptsError() | ConfigError() | DatasetError() | StoreError() | InboxError():
            return _complain(error, BAD_INPUT)
        case KeyboardInterrupt():
            _say(f"interrupted; {GO_ON}")
            return INTERRUPTED
        case Exception():
            return _complain(error, FAILED)
    # While a flow runs, Prefect turns SIGTERM into an exception of its own.
    if type(error).__name__ not in (Terminated.__name__, "TerminationSignal"):
        raise error
    _say(f"terminated; {GO_ON}")
    return TERMINATED


def _complain(error: Exception, code: int) -> int:
    lines = str(error).splitlines() or [type(error).__name__]
    for line in lines:
        _say(line)
    return code


def _say(line: str) -> None:
    Screen(stderr=True, highlight=False).print(f"headstart: {line}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

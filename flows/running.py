"""One run from the command line: settled, run through Prefect only if need be, shown."""

import importlib
import importlib.util
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts.runs import RunRecord, StageRecord, beginning, load_runs, report_path
from artifacts.store import Store
from artifacts.summary import summarise
from flows import server
from flows.ghosts import bury_ghosts
from flows.importing import import_libraries, importing
from flows.pipeline import Job, pipeline
from flows.preflight import Prepared, prepare
from flows.selection import Rerun
from flows.terminal import (
    NARROW,
    Display,
    Log,
    Screen,
    plan_table,
    result_of,
    run_tables,
    summary_table,
)
from models.config import Config
from tasks import progress
from tasks.publish import LOGS
from tasks.rank import BEST


@dataclass(frozen=True)
class Output:
    """Where and how a command speaks.

    Attributes:
        as_json: One JSON document on standard output, all else on standard error.
        quiet: Nothing but the results and errors.
    """

    as_json: bool = False
    quiet: bool = False

    @property
    def results(self) -> Screen:
        """For tables."""
        return Screen(stderr=self.as_json)

    @property
    def remarks(self) -> Screen:
        """For progress and hints."""
        return Screen(stderr=True, quiet=self.quiet)


@dataclass(frozen=True)
class Program:
    """One of the flows that the command line runs.

    Attributes:
        job: What it does with stages.
        flow: Its Prefect flow, as ``module:name``; imported only if something has to run.
        few_shot: Numbers of images it needs besides the settings' own.
    """

    job: Job = pipeline
    flow: str = "flows.transfer_learning:transfer_learning"
    few_shot: tuple[int, ...] = ()

    def load(self) -> Any:
        """Imports Prefect and the flow."""
        module, _, name = self.flow.partition(":")
        with importing():
            return getattr(importlib.import_module(module), name)


def run(
    config: Config,
    rerun: Rerun,
    store: Store,
    output: Output,
    record: bool,
    program: Program = Program(),  # noqa: B008 - frozen
) -> RunRecord:
    """Runs the pipeline, or tells at once that there is nothing to do.

    Args:
        config: All settings.
        rerun: What to compute although it may be in the store.
        store: Where results lie and go.
        output: Where and how to speak.
        record: Make a flow run in Prefect's database even if nothing has to run.
        program: What to run, if not the pipeline.
    """
    began = time.monotonic()
    prepared = prepare(config, rerun, store, program.job, program.few_shot)
    if prepared.is_idle and not record and not _prefect_is_told_to_compute():
        done = _idle_record(config, prepared, store, began)
        output.remarks.print("Nothing to run: every result is in the store.")
    else:
        store.check_writable()
        done = _run_flow(config, rerun, store, prepared, output, program)
    if output.as_json:
        sys.stdout.write(done.model_dump_json(indent=1) + "\n")
    else:
        _show(done, store, output)
    return done


def _prefect_is_told_to_compute() -> bool:
    """Whether one of Prefect's own settings asks to compute what is cached."""
    names = ("PREFECT_TASKS_REFRESH_CACHE", "PREFECT_TASKS_DISABLE_CACHING")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def show_plan(
    config: Config,
    rerun: Rerun,
    store: Store,
    output: Output,
    program: Program = Program(),  # noqa: B008 - frozen
) -> None:
    """Tells what a run would do, and why."""
    steps = prepare(config, rerun, store, program.job, program.few_shot).steps
    if output.as_json:
        plan = [
            {"name": s.name, "state": s.state, "since": s.created, "reasons": list(s.reasons)}
            for s in steps
        ]
        sys.stdout.write(json.dumps({"stages": plan}, indent=1) + "\n")
    else:
        output.results.print(plan_table(steps))


def _idle_record(config: Config, prepared: Prepared, store: Store, began: float) -> RunRecord:
    refs = [step.ref for step in prepared.steps if step.ref]
    results = [ref.metrics["results"] for ref in refs if "results" in ref.metrics][-1:]
    behind = _run_behind({(ref.stage, ref.digest) for ref in refs}, store)
    return RunRecord(
        run=behind.run if behind else "",
        flow_run_id=behind.flow_run_id if behind else None,
        recorded=False,
        status="completed",
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=round(time.monotonic() - began, 3),
        settings=config.model_dump(mode="json"),
        stages=tuple(
            StageRecord(name=r.stage, state="cached", key=r.key, digest=r.digest, seconds=0.0)
            for r in refs
        ),
        results=tuple(*results),
    )


def _run_behind(results: set[tuple[str, str]], store: Store) -> RunRecord | None:
    """The latest recorded run that ended with just these results."""
    for record in load_runs(store.root):
        if record.status == "completed":
            if {(stage.name, stage.digest) for stage in record.stages} == results:
                return record
    return None


def _run_flow(
    config: Config,
    rerun: Rerun,
    store: Store,
    prepared: Prepared,
    output: Output,
    program: Program,
) -> RunRecord:
    server.settle_environment()
    last_times = {step.name: step.seconds for step in prepared.steps}
    screen = output.remarks
    watcher: Display | Log = Log(screen, last_times)
    if screen.is_terminal and not (screen.is_dumb_terminal or output.quiet):
        watcher = Display(screen, [step.name for step in prepared.steps], last_times)
    with server.connection() as prefect_server:
        flow = program.load()
        if not prepared.is_idle:
            import_libraries()
        prefect_server.wait()
        with server.used_by_prefect(prefect_server.url), watcher, progress.listening(watcher):
            for name in bury_ghosts(store):
                output.remarks.print(f"Run {name} had died: marked as crashed in Prefect.")
            with beginning(store.root):
                done: RunRecord = flow(config=config, rerun=rerun, store=str(store.root))
                return done


def _show(done: RunRecord, store: Store, output: Output) -> None:
    manifests = [store.manifest(stage.name, stage.key) for stage in done.stages]
    metrics = {m.ref.stage: m.ref.metrics for m in manifests if m}
    found = {name: result_of(name, measured) for name, measured in metrics.items()}
    tables = [summary_table(summary, output.results.width) for summary in summarise(metrics)]
    for table in tables or run_tables(done, found if output.results.width >= NARROW else {}):
        output.remarks.print()
        output.results.print(table)
    output.remarks.print()
    output.remarks.print(
        f"{done.seconds:.1f} s. Results are in {store.root}", markup=False, soft_wrap=True
    )
    for line in _point_to_files(done, metrics, store):
        output.remarks.print(line, markup=False, soft_wrap=True)
    if done.flow_run_id:
        output.remarks.print("See the run in Prefect's UI: headstart ui", soft_wrap=True)
    if done.run:
        report = report_path(store.root, done.run)
        where = str(report) if report.exists() else f"headstart show {done.run} --open"
        output.remarks.print(f"Report: {where}", markup=False, soft_wrap=True)


def _point_to_files(
    done: RunRecord, metrics: Mapping[str, Mapping[str, Any]], store: Store
) -> Iterator[str]:
    for stage in done.stages:
        place = store.entry_path(stage.name, stage.key)
        if "figures" in metrics.get(stage.name, {}):
            yield f"Figures and tables: {place}"
        if stage.name == "choose":
            yield f"Best settings: {place / BEST}"
        if (place / LOGS).is_dir():
            yield _point_to_logs(place / LOGS)


def _point_to_logs(logs: Path) -> str:
    command = f"TensorBoard: tensorboard --logdir {shlex.quote(str(logs))}"
    if importlib.util.find_spec("tensorboard"):
        return command
    return f"{command} (not installed: pip install 'headstart[tensorboard]')"

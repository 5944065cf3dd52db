"""One run from the command line: settled, run through Prefect only if need be, shown."""

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from artifacts.runs import RunRecord, StageRecord, beginning, load_runs
from artifacts.store import Store
from flows import server
from flows.ghosts import bury_ghosts
from flows.preflight import Prepared, prepare
from flows.selection import Rerun
from flows.terminal import NARROW, Display, Log, Screen, plan_table, result_of, run_tables
from models.config import Config
from tasks import progress

# TensorFlow's own remarks about this machine are for its developers.
QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3"}


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


def run(config: Config, rerun: Rerun, store: Store, output: Output, record: bool) -> RunRecord:
    """Runs the pipeline, or tells at once that there is nothing to do.

    Args:
        config: All settings.
        rerun: What to compute although it may be in the store.
        store: Where results lie and go.
        output: Where and how to speak.
        record: Make a flow run in Prefect's database even if nothing has to run.
    """
    began = time.monotonic()
    prepared = prepare(config, rerun, store)
    if prepared.is_idle and not record and not _prefect_is_told_to_compute():
        done = _idle_record(config, prepared, store, began)
        output.remarks.print("Nothing to run: every result is in the store.")
    else:
        store.check_writable()
        done = _run_flow(config, rerun, store, prepared, output)
    if output.as_json:
        sys.stdout.write(done.model_dump_json(indent=1) + "\n")
    else:
        _show(done, store, output)
    return done


def _prefect_is_told_to_compute() -> bool:
    """Whether one of Prefect's own settings asks to compute what is cached."""
    names = ("PREFECT_TASKS_REFRESH_CACHE", "PREFECT_TASKS_DISABLE_CACHING")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def show_plan(config: Config, rerun: Rerun, store: Store, output: Output) -> None:
    """Tells what a run would do, and why."""
    steps = prepare(config, rerun, store).steps
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
    results: list[dict[str, Any]] = next(
        (r.metrics["results"] for r in refs if r.stage == "evaluate"), []
    )
    digests = {ref.stage: ref.digest for ref in refs}
    return RunRecord(
        run="",
        flow_run_id=_flow_run_behind(digests, store),
        recorded=False,
        status="completed",
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=round(time.monotonic() - began, 3),
        settings=config.model_dump(mode="json"),
        stages=tuple(
            StageRecord(name=r.stage, state="cached", key=r.key, digest=r.digest, seconds=0.0)
            for r in refs
        ),
        results=tuple(results),
    )


def _flow_run_behind(digests: dict[str, str], store: Store) -> str | None:
    """The latest flow run that ended with just these results."""
    for record in load_runs(store.root):
        if record.status == "completed":
            if {stage.name: stage.digest for stage in record.stages} == digests:
                return record.flow_run_id
    return None


def _run_flow(
    config: Config, rerun: Rerun, store: Store, prepared: Prepared, output: Output
) -> RunRecord:
    server.settle_environment()
    last_times = {step.name: step.seconds for step in prepared.steps}
    screen = output.remarks
    watcher: Display | Log = Log(screen, last_times)
    if screen.is_terminal and not (screen.is_dumb_terminal or output.quiet):
        watcher = Display(screen, [step.name for step in prepared.steps], last_times)
    with server.connection() as prefect_server:
        import prefect

        from flows.transfer_learning import transfer_learning

        if not prepared.is_idle:
            import_tensorflow()
        prefect_server.wait()
        with server.used_by_prefect(prefect_server.url), watcher, progress.listening(watcher):
            for name in bury_ghosts(store):
                output.remarks.print(f"Run {name} had died: marked as crashed in Prefect.")
            # The tasks' own tag: a further one would cost each task a question to the server.
            with beginning(store.root), prefect.tags("headstart"):
                return transfer_learning(config=config, rerun=rerun, store=str(store.root))


def import_tensorflow() -> None:
    """Imports TensorFlow, which takes about as long as the server's start: at the same time."""
    for name, value in QUIET_TENSORFLOW.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryFile() as said:
        # It remarks on this machine before its own settings can keep it from that.
        terminal = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except Exception:
            said.seek(0)
            os.write(terminal, said.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _show(done: RunRecord, store: Store, output: Output) -> None:
    manifests = [store.manifest(stage.name, stage.key) for stage in done.stages]
    found = {m.ref.stage: result_of(m.ref.stage, m.ref.metrics) for m in manifests if m}
    for table in run_tables(done, found if output.results.width >= NARROW else {}):
        output.remarks.print()
        output.results.print(table)
    output.remarks.print()
    output.remarks.print(
        f"{done.seconds:.1f} s. Results are in {store.root}", markup=False, soft_wrap=True
    )
    for stage in done.stages:
        if stage.name == "publish":
            place = store.entry_path(stage.name, stage.key)
            output.remarks.print(f"Figures and tables: {place}", markup=False, soft_wrap=True)
    if done.flow_run_id:
        output.remarks.print("See the run in Prefect's UI: headstart ui", soft_wrap=True)

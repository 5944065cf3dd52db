"""A flow run under way: each stage as a Prefect task, and the account of what became of it."""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import get_run_logger, runtime
from prefect.client.schemas.objects import State

from artifacts.reference import Ref
from artifacts.report import save_report
from artifacts.runs import RunRecord, StageRecord, save_run, staying_alive
from artifacts.store import DamagedEntry, Manifest, Store
from flows.lanes import Lanes
from flows.live import LiveProgress
from flows.pipeline import Job, Stages
from flows.preflight import Prepared, default_store, prepare
from flows.selection import Rerun
from flows.stopping import meant
from models.config import Config
from tasks import progress
from tasks.caching import as_task
from tasks.stage import Arguments, Stage

Show = Callable[[Store, Mapping[str, Ref], RunRecord], None]

# Seconds that who interrupts a run waits for stages beside the one under way.
PATIENCE = 2.0


def run_job(
    job: Job,
    config: Config,
    rerun: Rerun,
    store: str,
    tags: set[str],
    show: Show,
    few_shot: tuple[int, ...] = (),
) -> RunRecord:
    """Finds out what there is to do, and does it: the body of every flow.

    Args:
        job: What to run.
        config: All settings.
        rerun: What to compute although it may be in the store.
        store: Folder of the results; empty is HEADSTART_STORE or artifacts/store in the checkout.
        tags: What the run can be searched by.
        show: Posts to Prefect's UI what the run has made.
        few_shot: Numbers of images it needs besides the settings' own.

    Returns:
        The record of the run, also kept in the store.

    Raises:
        ConfigError: If the settings do not fit the data.
        DatasetError: If the data is damaged.
        StoreError: If the store cannot be written, or lacks what ``rerun.only`` needs.
    """
    place = Store(Path(store).expanduser() if store else default_store())
    prepared = prepare(config, rerun, place, job, few_shot)
    place.check_writable()
    return FlowRun(config, prepared, place, job, tags, show).go()


class FlowRun:
    """One run under way: calls each stage as a Prefect task, keeps account."""

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        store: Store,
        job: Job,
        tags: set[str],
        show: Show,
    ) -> None:
        """Begins a run.

        Args:
            config: All settings.
            prepared: What was found out before.
            store: Where results lie and go.
            job: What to run.
            tags: What the run can be searched by.
            show: Shows the results in Prefect, once they are there.
        """
        self.config, self.store, self.job = config, store, job
        self.tags, self.show = tags, show
        self.source, self.selection = prepared.source, prepared.selection
        self.steps = len(prepared.steps)
        # Of a stage that waited for others it is known only once they have run.
        self.reasons = {step.name: step.reasons for step in prepared.steps if step.state == "run"}
        # By stage and key: a study runs a stage many times.
        self.stages: dict[tuple[str, str], StageRecord] = {}
        # What was asked for in this run, and what it gave: each is asked for once.
        self.done: dict[tuple[str, str], Ref] = {}
        # Named in the record from the start, so that nobody tidies away what is still to be used.
        self.planned = {
            (step.name, ref.key): StageRecord(
                name=step.name, state="cached", key=ref.key, digest=ref.digest, seconds=0.0
            )
            for step in prepared.steps
            if (ref := step.ref)
        }
        self.refs: dict[str, Ref] = {}
        # The stage that ended the run.
        self.failed = ""
        self.lanes = Lanes()
        # Stages that run side by side end whenever they end.
        self.accounting = threading.Lock()
        self.began = time.monotonic()
        now = datetime.now(UTC)
        flow_run_id = runtime.flow_run.id
        self.record = RunRecord(
            run=f"{now:%Y%m%d-%H%M%S}-{flow_run_id[:4]}",
            flow_run_id=flow_run_id,
            started=now.isoformat(timespec="milliseconds"),
            settings=config.model_dump(mode="json"),
        )

    def go(self) -> RunRecord:
        """Runs the pipeline to its end."""
        tags = {"headstart", *self.tags, *runtime.flow_run.tags}
        live = LiveProgress(runtime.flow_run.id, tags)
        alive = staying_alive(self.store.root, self.record.run)
        with alive, progress.listening(lambda event: self.lanes(event)):
            try:
                self._save("running")
                with live, progress.listening(live):
                    self._heal_and_call()
            except BaseException as raised:
                error = meant(raised)
                status = "failed" if isinstance(error, Exception) else "interrupted"
                self.lanes.abandon(None if status == "failed" else PATIENCE)
                with self.accounting:
                    self._save(status, error)
                if error is raised:
                    raise
                raise error from raised
            done = self._save("completed")
        self._report(done)
        return done

    def _report(self, done: RunRecord) -> None:
        try:
            save_report(self.store, done)
        except Exception as error:  # noqa: BLE001 - the results are there and right without it
            get_run_logger().warning("the report could not be made: %s", error)

    def _heal_and_call(self) -> None:
        # Each time round heals a damaged entry that was found only when it was read.
        for further in reversed(range(self.steps + 1)):
            self.lanes = Lanes()
            try:
                self.job(self.config, self.source, self)
                self.show(self.store, self.refs, self._save("running"))
            except DamagedEntry as damage:
                if not further:
                    raise
                self.lanes.abandon(None)
                get_run_logger().warning("%s; computing it again", damage)
                self.done.clear()
                self.failed = ""
                self.reasons[damage.stage] = (damage.what,)
            else:
                return

    def beside(self, stages: Stages, /) -> Stages:
        """Begins stages beside those called next; what it gives waits for their results."""
        wait = self.lanes.begin(stages)

        def wait_in_turn() -> tuple[Ref, ...]:
            refs = wait()
            with self.accounting:
                # In the account they stand where they were waited for, whenever they ended.
                for place in ((ref.stage, ref.key) for ref in refs):
                    if place in self.stages:
                        self.stages[place] = self.stages.pop(place)
            return refs

        return wait_in_turn

    def __call__(self, stage: Stage, /, **arguments: Any) -> Ref:
        """Runs one stage as a Prefect task."""
        if stage.name not in self.selection.wanted:
            return Ref.pending(stage.name)
        asked = stage.name, stage.fingerprint(arguments)
        if asked not in self.done:
            self.done[asked] = self._run(stage, arguments)
        return self.done[asked]

    def _run(self, stage: Stage, arguments: Arguments) -> Ref:
        options: dict[str, Any] = {**arguments, "return_state": True}
        started = time.monotonic()
        progress.emit(progress.Event(stage.name, "start", stage.describe(arguments)))
        fresh = stage.name in self.selection.fresh and not any(
            key == stage.key(arguments) for name, key in [*self.stages] if name == stage.name
        )
        task = as_task(stage, self.store, self.config.limits, refresh=True if fresh else None)
        try:
            state: State[Ref] = task(**options)
            ref: Ref = state.result()
        except BaseException:
            # What fails beside ends the run only once it is waited for.
            self.failed = (self.lanes.inside and self.failed) or stage.name
            raise
        with self.accounting:
            if not self.lanes.abandoned:
                self._account(ref, state.name == "Cached", time.monotonic() - started)
        return ref

    def _account(self, ref: Ref, cached: bool, seconds: float) -> None:
        manifest = self.store.manifest(ref.stage, ref.key)
        resumed = manifest is not None and manifest.resumed
        place = ref.stage, ref.key
        record = StageRecord(
            name=ref.stage,
            state="cached" if cached else "resumed" if resumed else "ran",
            key=ref.key,
            digest=ref.digest,
            seconds=round(seconds, 3),
            why=() if cached else self._why(ref.stage, manifest),
        )
        # A stage gone through again for the sake of a damaged one before it counts once.
        if not (cached and place in self.stages):
            self.stages[place] = record
        self.refs[ref.stage] = ref
        self._save("running")
        progress.emit(progress.Event(ref.stage, "end", record.state, values={"seconds": seconds}))

    def _why(self, name: str, manifest: Manifest | None) -> tuple[str, ...]:
        inputs = dict.fromkeys(ref.stage for ref in manifest.inputs.values()) if manifest else {}
        computed = {one.name for one in self.stages.values() if one.state != "cached"}
        ran = [name for name in inputs if name in computed]
        found = (f"input{'s' if len(ran) > 1 else ''} {', '.join(ran)} ran",) if ran else ()
        return self.reasons.get(name) or found or ("Prefect was told to compute it",)

    def _describe(self, error: BaseException) -> str:
        return ": ".join(filter(None, [self.failed, str(error) or type(error).__name__]))

    def _save(self, status: str, error: BaseException | None = None) -> RunRecord:
        measured = [ref for ref in self.refs.values() if "results" in ref.metrics]
        stages = {**(self.planned if status == "running" else {}), **self.stages}
        self.record = self.record.model_copy(
            update={
                "status": status,
                "error": self._describe(error) if error else "",
                "seconds": round(time.monotonic() - self.began, 3),
                "stages": tuple(stages.values()),
                "results": tuple(measured[-1].metrics["results"]) if measured else (),
            }
        )
        save_run(self.store.root, self.record)
        return self.record

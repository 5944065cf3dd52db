"""The flow: the pipeline's stages as Prefect tasks."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime

from artifacts.reference import Ref
from artifacts.report import save_report
from artifacts.runs import RunRecord, StageRecord, save_run, staying_alive
from artifacts.store import DamagedEntry, Manifest, Store
from flows.live import LiveProgress
from flows.pipeline import pipeline
from flows.preflight import Prepared, default_store, prepare
from flows.selection import Rerun
from models.config import Config
from tasks import progress
from tasks.caching import as_task
from tasks.show import post_artifacts
from tasks.stage import Stage


@flow(
    name="transfer-learning",
    description="Pretrains on some classes, transfers to others, compares with the baselines.",
    flow_run_name=lambda: name_run(runtime.flow_run.parameters["config"]),
)
def transfer_learning(
    config: Config = Config(),  # noqa: B008 - frozen; Prefect shows it as the form's default
    rerun: Rerun = Rerun(),  # noqa: B008 - likewise
    store: str = "",
) -> RunRecord:
    """Runs the pipeline, each stage from the store where nothing it depends on has changed.

    Args:
        config: All settings.
        rerun: What to compute although it may be in the store.
        store: Folder of the results; empty is HEADSTART_STORE or artifacts/store in the checkout.

    Returns:
        The record of the run, also kept in the store.

    Raises:
        ConfigError: If the settings do not fit the data.
        DatasetError: If the data is damaged.
        StoreError: If the store cannot be written, or lacks what `rerun.only` needs.
    """
    place = Store(Path(store).expanduser() if store else default_store())
    prepared = prepare(config, rerun, place)
    place.check_writable()
    return _Run(config, prepared, place).go()


def name_run(config: Config) -> str:
    """What a flow run is called: ``0 1 2 3 4 to 5 6 7 8 9, seed 42, 21 Nov 22:15:03``."""
    data = config.data
    groups = (data.source_classes, data.target_classes)
    classes = " to ".join(" ".join(map(str, group)) for group in groups)
    part = f", first {data.limit} rows" if data.limit else ""
    return f"{classes}{part}, seed {config.run.seed}, {datetime.now():%d %b %H:%M:%S}"


def tags_of(config: Config) -> set[str]:
    """What a flow run can be searched by: ``seed-42``, ``data-mnist``, ``from-0-1``, ``to-5-6``."""
    data = config.data
    return {
        f"seed-{config.run.seed}",
        f"data-{Path(data.dataset).stem}",
        "from-" + "-".join(map(str, data.source_classes)),
        "to-" + "-".join(map(str, data.target_classes)),
    }


class _Run:
    """One run under way: calls stages, keeps account."""

    def __init__(self, config: Config, prepared: Prepared, store: Store) -> None:
        self.config, self.store = config, store
        self.source, self.selection = prepared.source, prepared.selection
        self.steps = len(prepared.steps)
        # Of a stage that waited for others it is known only once they have run.
        self.reasons = {step.name: step.reasons for step in prepared.steps if step.state == "run"}
        self.stages: dict[str, StageRecord] = {}
        # Named in the record from the start, so that nobody tidies away what is still to be used.
        self.planned = {
            step.name: StageRecord(
                name=step.name, state="cached", key=ref.key, digest=ref.digest, seconds=0.0
            )
            for step in prepared.steps
            if (ref := step.ref)
        }
        self.refs: dict[str, Ref] = {}
        self.under_way = ""
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
        live = LiveProgress(runtime.flow_run.id, tags_of(self.config) | set(runtime.flow_run.tags))
        with staying_alive(self.store.root, self.record.run):
            try:
                self._save("running")
                with live, progress.listening(live):
                    self._heal_and_call()
            except BaseException as error:
                self._save("failed" if isinstance(error, Exception) else "interrupted", error)
                raise
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
            try:
                pipeline(self.config, self.source, self)
                post_artifacts(self.store, self.refs, self._save("running"))
            except DamagedEntry as damage:
                if not further:
                    raise
                get_run_logger().warning("%s; computing it again", damage)
                self.reasons[damage.stage] = (damage.what,)
            else:
                return

    def __call__(self, stage: Stage, /, **arguments: Any) -> Ref:
        """Runs one stage as a Prefect task."""
        if stage.name not in self.selection.wanted:
            return Ref.pending(stage.name)
        self.under_way = stage.name
        started = time.monotonic()
        progress.emit(progress.Event(stage.name, "start", stage.describe(arguments)))
        fresh = stage.name in self.selection.fresh and stage.name not in self.stages
        task = as_task(stage, self.store, self.config.limits, refresh=True if fresh else None)
        state = task(**arguments, return_state=True)
        ref: Ref = state.result()
        self._account(ref, state.name == "Cached", time.monotonic() - started)
        return ref

    def _account(self, ref: Ref, cached: bool, seconds: float) -> None:
        manifest = self.store.manifest(ref.stage, ref.key)
        resumed = manifest is not None and manifest.resumed
        before = self.stages.get(ref.stage)
        record = StageRecord(
            name=ref.stage,
            state="cached" if cached else "resumed" if resumed else "ran",
            key=ref.key,
            digest=ref.digest,
            seconds=round(seconds, 3),
            why=() if cached else self._why(ref.stage, manifest),
        )
        # A stage gone through again for the sake of a damaged one before it counts once.
        if not (cached and before):
            self.stages[ref.stage] = record
        self.refs[ref.stage] = ref
        self.under_way = ""
        self._save("running")
        progress.emit(progress.Event(ref.stage, "end", record.state, values={"seconds": seconds}))

    def _why(self, name: str, manifest: Manifest | None) -> tuple[str, ...]:
        inputs = dict.fromkeys(ref.stage for ref in manifest.inputs.values()) if manifest else {}
        ran = [one for one in inputs if one in self.stages and self.stages[one].state != "cached"]
        found = (f"input{'s' if len(ran) > 1 else ''} {', '.join(ran)} ran",) if ran else ()
        return self.reasons.get(name) or found or ("Prefect was told to compute it",)

    def _describe(self, error: BaseException) -> str:
        return ": ".join(filter(None, [self.under_way, str(error) or type(error).__name__]))

    def _save(self, status: str, error: BaseException | None = None) -> RunRecord:
        evaluation = self.refs.get("evaluate")
        stages = {**(self.planned if status == "running" else {}), **self.stages}
        self.record = self.record.model_copy(
            update={
                "status": status,
                "error": self._describe(error) if error else "",
                "seconds": round(time.monotonic() - self.began, 3),
                "stages": tuple(stages.values()),
                "results": tuple(evaluation.metrics["results"]) if evaluation else (),
            }
        )
        save_run(self.store.root, self.record)
        return self.record

"""The nightly retrain as a flow: what a night is, with Prefect's clock, pages and hooks around it.

Missed nights: when a server or worker comes back, Prefect starts every run that is overdue, or
cancels those that overlap. The first of them does all the work; each other one finds that a night
has been completed since it was due, and ends as Skipped. So one, three or seven missed nights are
caught up with once.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import Flow, State, flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed

from artifacts.nights import NightRecord, is_done
from artifacts.store import Manifest, Store, StoreError
from flows.ghosts import bury, bury_ghosts
from flows.night import Around, run_night, summarise
from flows.notices import Notice, addresses, check_addresses, send
from flows.preflight import default_store
from flows.transfer_learning import transfer_learning
from models.config import Config

ARTIFACT = "night"


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Sends a notice that a night failed or that its process died."""
    config = Config.model_validate(flow_run.parameters.get("config") or {})
    title = f"headstart: {flow.name} {(state.name or 'failed').lower()}"
    text = state.message or "see the flow run's logs"
    send(Notice("failure", title, f"{flow_run.name}: {text}"), addresses(config))


@flow(
    name="nightly-retrain",
    description="Takes in new images, retrains what they touch, promotes what is better.",
    flow_run_name=lambda: f"night of {datetime.now():%d %b %H:%M:%S}",
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def nightly_retrain(
    config: Config = Config(),  # noqa: B008 - frozen; Prefect shows it as the form's default
    store: str = "",
) -> NightRecord | State[Any]:
    """Runs one night, unless one that began since this one was due has been completed.

    Args:
        config: All settings; those of the night are in `nightly`.
        store: Folder of the results; empty is HEADSTART_STORE or artifacts/store in the checkout.

    Returns:
        The record of the night, also kept in the store; or that there was nothing to do.

    Raises:
        ConfigError: If a setting is wrong.
        InboxError: If the inbox cannot be read.
        StoreError: If the store cannot be written, or what came in before is damaged.
    """
    urls = addresses(config)
    check_addresses(urls)
    place = Store(Path(store).expanduser().absolute() if store else default_store())
    due = runtime.flow_run.scheduled_start_time
    if due is not None and is_done(place.root, due):
        message = f"a night that began after {due:%Y-%m-%d %H:%M} UTC has done the work"
        get_run_logger().info(message)
        return Completed(name="Skipped", message=message)
    place.check_writable()
    around = Around(
        retrain=lambda grown: _retrain(grown, place),
        tell=lambda notice: send(notice, urls),
        now=lambda: datetime.now(UTC),
        step=_run_as_task,
        bury=lambda record: bury(record.flow_run_id) if record.flow_run_id else None,
        flow_run_id=runtime.flow_run.id,
    )
    for name in bury_ghosts(place):
        get_run_logger().info("run %s had died: marked as crashed", name)
    record = run_night(config, place, around)
    get_run_logger().info("%s: %s", "promoted" if record.promoted else "kept", record.why)
    rows = [f"| {name} | {text} |" for name, text in summarise(record).items()]
    table = "\n".join(["| | |", "| --- | --- |", *rows])
    create_markdown_artifact(table, key=ARTIFACT, description="What the night did")
    return record


def _retrain(config: Config, store: Store) -> Manifest:
    """Runs the pipeline as a flow of its own; its evaluation."""
    record = transfer_learning(config=config, store=str(store.root))
    for stage in record.stages:
        found = store.manifest(stage.name, stage.key)
        if found and stage.name == "evaluate":
            return found
    msg = f"run {record.run} has left no evaluation in {store.root}"
    raise StoreError(msg)


def _run_as_task(name: str, part: Callable[[], Any]) -> Any:
    # Never from Prefect's cache: what a part does, it does to the disk.
    return task(name=name, cache_policy=NO_CACHE, persist_result=False)(part)()

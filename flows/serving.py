"""The deployments of prefect.yaml from one process, for a machine that wants no work pool."""

from typing import Any, cast

from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from artifacts.store import Store
from flows.nightly import nightly_retrain
from flows.selection import read_graph
from flows.transfer_learning import transfer_learning
from models.config import Config

Parameters = dict[str, Any]


def serve_deployments(config: Config, store: Store, cron: str, timezone: str) -> None:
    """Registers the deployments and runs what is due, until interrupted.

    Args:
        config: Settings of every run.
        store: Where results go.
        cron: When the nightly retrain runs.
        timezone: Of the schedule.
    """
    # Two at once would fight for the processors; one more waits its turn.
    serve(*make_deployments(config, store, cron, timezone), limit=1)


def make_deployments(
    config: Config, store: Store, cron: str, timezone: str
) -> list[RunnerDeployment]:
    """The whole pipeline, each stage alone, and the night; see ``serve_deployments``."""
    parameters = {"config": config.model_dump(mode="json"), "store": str(store.root)}
    wait, drop = ConcurrencyLimitStrategy.ENQUEUE, ConcurrencyLimitStrategy.CANCEL_NEW
    night = _deploy(
        nightly_retrain,
        "nightly-retrain",
        parameters,
        drop,
        schedules=[Cron(cron, timezone=timezone)],
    )
    whole = _deploy(transfer_learning, "transfer-learning", parameters, wait)
    stages = [
        _deploy(
            transfer_learning,
            stage,
            {**parameters, "rerun": {"only": stage, "with_upstream": True}},
            wait,
        )
        for stage in read_graph(config)
    ]
    return [whole, *stages, night]


def _deploy(
    flow: Flow[..., Any],
    name: str,
    parameters: Parameters,
    collision: ConcurrencyLimitStrategy,
    **more: Any,
) -> RunnerDeployment:
    deployment = flow.to_deployment(
        name,
        parameters=parameters,
        tags=["headstart"],
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=collision),
        # A path would hold only where this process stands.
        entrypoint_type=EntrypointType.MODULE_PATH,
        **more,
    )
    # Prefect gives a coroutine only to callers that are themselves asynchronous.
    return cast(RunnerDeployment, deployment)

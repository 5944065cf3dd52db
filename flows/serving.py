"""The deployments of prefect.yaml from one process, for a machine that wants no work pool.

Registering deployments anew, as every start does, makes Prefect forget the runs that were due while
this process was away. So a start looks for itself whether a night was missed.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.server.schemas import schedules as server_schedules
from prefect.types.entrypoint import EntrypointType

from artifacts.nights import is_done, load_nights
from artifacts.store import Store
from flows.nightly import nightly_retrain
from flows.selection import read_graph
from flows.transfer_learning import transfer_learning
from models.config import Config

Parameters = dict[str, Any]
NIGHT = "nightly-retrain"
# Prefect gives the first thousand dates of a period, and the last one is asked for.
LOOK_BACK = (timedelta(hours=2), timedelta(days=8), timedelta(days=62))


def serve_deployments(config: Config, store: Store, cron: str, timezone: str) -> None:
    """Registers the deployments and runs what is due, until interrupted.

    Args:
        config: Settings of every run.
        store: Where results go.
        cron: When the nightly retrain runs.
        timezone: Of the schedule.
    """
    deployments = make_deployments(config, store, cron, timezone)
    if is_missed(store.root, cron, timezone, datetime.now(UTC)):
        for deployment in deployments:
            if deployment.name == NIGHT:
                deployment.apply()
                run_deployment(f"{NIGHT}/{NIGHT}", timeout=0)
    # Two at once would fight for the processors; one more waits its turn. What was due while
    # nobody served stays due.
    serve(*deployments, limit=1, pause_on_shutdown=False)


def is_missed(root: Path, cron: str, timezone: str, now: datetime) -> bool:
    """Whether a night was due since the last completed one; however many were, it is one night.

    Nothing was missed where no night has ever been.
    """
    due = _last_due(cron, timezone, now)
    been = next(load_nights(root), None) is not None
    return been and due is not None and not is_done(root, due)


def _last_due(cron: str, timezone: str, now: datetime) -> datetime | None:
    schedule = server_schedules.CronSchedule(cron=cron, timezone=timezone)
    for period in LOOK_BACK:
        dates = asyncio.run(schedule.get_dates(start=now - period, end=now))
        if dates:
            return max(dates)
    return None


def make_deployments(
    config: Config, store: Store, cron: str, timezone: str
) -> list[RunnerDeployment]:
    """The whole pipeline, each stage alone, and the night; see ``serve_deployments``."""
    parameters = {"config": config.model_dump(mode="json"), "store": str(store.root)}
    wait, drop = ConcurrencyLimitStrategy.ENQUEUE, ConcurrencyLimitStrategy.CANCEL_NEW
    night = _deploy(
        nightly_retrain,
        NIGHT,
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

"""The flow: the pipeline's stages as Prefect tasks."""

from datetime import datetime
from pathlib import Path

from prefect import flow, runtime

from artifacts.runs import RunRecord
from flows.account import run_job
from flows.pipeline import pipeline
from flows.selection import Rerun
from models.config import Config
from tasks.show import post_artifacts


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
    return run_job(pipeline, config, rerun, store, tags_of(config), post_artifacts)


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

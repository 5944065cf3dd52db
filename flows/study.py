"""The study: strategies x cuts x labels x seeds, each cell cached, and the curves over them."""

from datetime import datetime

from prefect import flow, runtime

from artifacts.runs import RunRecord
from flows.account import run_job
from flows.grid import study
from flows.selection import Rerun
from flows.transfer_learning import tags_of
from models.config import Config
from tasks.show import post_summaries


@flow(
    name="study",
    description="Compares strategies over numbers of labels and seeds, with intervals.",
    flow_run_name=lambda: name_study(runtime.flow_run.parameters["config"]),
)
def run_study(
    config: Config = Config(),  # noqa: B008 - frozen; Prefect shows it as the form's default
    rerun: Rerun = Rerun(),  # noqa: B008 - likewise
    store: str = "",
) -> RunRecord:
    """Runs every cell that is not in the store, then tabulates all of them.

    Args:
        config: All settings; section study says which cells there are.
        rerun: What to compute although it may be in the store.
        store: Folder of the results; empty is HEADSTART_STORE or artifacts/store in the checkout.

    Returns:
        The record of the run, also kept in the store.
    """
    return run_job(
        study, config, rerun, store, tags_of(config), post_summaries, config.study.labels
    )


def name_study(config: Config) -> str:
    """What a flow run is called: ``study of 6 x 5 cells, 22 Nov 03:10:00``."""
    cells = f"{len(config.study.labels)} x {len(config.study.seeds)}"
    return f"study of {cells} cells, {datetime.now():%d %b %H:%M:%S}"

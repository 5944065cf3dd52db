"""The search: random candidates for the trunk's settings, cross-validated, the best trained."""

from datetime import datetime

from prefect import flow, runtime

from artifacts.runs import RunRecord
from flows.account import run_job
from flows.selection import Rerun
from flows.transfer_learning import tags_of
from flows.trials import search
from models.config import Config
from tasks.show import post_summaries


@flow(
    name="search",
    description="Searches settings for the trunk at random, with cross-validation.",
    flow_run_name=lambda: name_search(runtime.flow_run.parameters["config"]),
)
def run_search(
    config: Config = Config(),  # noqa: B008 - frozen; Prefect shows it as the form's default
    rerun: Rerun = Rerun(),  # noqa: B008 - likewise
    store: str = "",
) -> RunRecord:
    """Measures every candidate that is not in the store, ranks all, trains with the best one.

    Args:
        config: All settings; section search says which candidates there are.
        rerun: What to compute although it may be in the store.
        store: Folder of the results; empty is HEADSTART_STORE or artifacts/store in the checkout.

    Returns:
        The record of the run, also kept in the store.
    """
    return run_job(search, config, rerun, store, tags_of(config), post_summaries)


def name_search(config: Config) -> str:
    """What a flow run is called: ``search of 10 x 3 fits, seed 42, 22 Nov 03:10:00``."""
    fits = f"{config.search.trials} x {config.search.folds}"
    return f"search of {fits} fits, seed {config.run.seed}, {datetime.now():%d %b %H:%M:%S}"

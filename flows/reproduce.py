"""The reproduction: every experiment of the source documents beside its printed figure."""

from datetime import datetime

from prefect import flow, runtime

from artifacts.runs import RunRecord
from flows.account import run_job
from flows.recipes import reproduce
from flows.selection import Rerun
from models.config import Config
from models.recipe import load_recipes
from tasks.show import post_summaries


@flow(
    name="reproduce",
    description="Runs the documents' experiments and compares them with what was printed.",
    flow_run_name=lambda: name_reproduction(runtime.flow_run.parameters["config"]),
)
def run_reproduction(
    config: Config = Config(),  # noqa: B008 - frozen; Prefect shows it as the form's default
    rerun: Rerun = Rerun(),  # noqa: B008 - likewise
    store: str = "",
) -> RunRecord:
    """Trains every recipe that is not in the store, then compares all of them.

    Args:
        config: All settings; section reproduce says which recipes and how many seeds.
        rerun: What to compute although it may be in the store.
        store: Folder of the results; empty is HEADSTART_STORE or artifacts/store in the checkout.

    Returns:
        The record of the run, also kept in the store.
    """
    tags = {f"recipe-{recipe}" for recipe in config.reproduce.recipes}
    return run_job(reproduce, config, rerun, store, tags, post_summaries)


def name_reproduction(config: Config) -> str:
    """What a flow run is called: ``reproduction of 59 recipes, 22 Nov 03:10:00``."""
    recipes = load_recipes(config.reproduce.recipes)
    return f"reproduction of {len(recipes)} recipes, {datetime.now():%d %b %H:%M:%S}"

"""What is settled before anything is computed or written: the data, the stages, the plan."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from artifacts.store import Store, StoreError
from flows.pipeline import Job, pipeline
from flows.plan import Step, make_plan
from flows.selection import Rerun, Selection, read_graph, select
from models.config import Config
from models.datasets import find_dataset, load_dataset
from models.slices import check_classes
from models.sources import Source

CHECKOUT = Path(__file__).resolve().parent.parent

# Once these hold results for the settings, the settings have been found to fit the data.
CHECKED_BY = {"load-dataset", "split-source", "split-target", "pretrain-pairs"}


def default_store() -> Path:
    """Where results go unless said otherwise: HEADSTART_STORE, else artifacts/store."""
    named = os.environ.get("HEADSTART_STORE")
    return Path(named).expanduser() if named else CHECKOUT / "artifacts" / "store"


@dataclass(frozen=True)
class Prepared:
    """A run that may begin.

    Attributes:
        source: What the dataset's bytes are.
        selection: Which stages the run is about.
        steps: What would become of each.
    """

    source: Source
    selection: Selection
    steps: list[Step]

    @property
    def is_idle(self) -> bool:
        """Whether every stage's result is in the store and none is asked for afresh."""
        return all(step.state == "cached" for step in self.steps)


def prepare(
    config: Config,
    rerun: Rerun,
    store: Store,
    job: Job = pipeline,
    few_shot: Iterable[int] = (),
) -> Prepared:
    """Checks everything that a user can get wrong, and writes nothing.

    Args:
        config: All settings.
        rerun: What to compute although it may be in the store.
        store: Where results lie and go.
        job: What is to be run.
        few_shot: Numbers of images for each target class that it needs besides the settings' own.

    Raises:
        DatasetError: If the dataset is missing, damaged or of the wrong form.
        ConfigError: If a class, a count or a stage's name asks for more than there is.
        StoreError: If the store lacks what one stage alone needs.
    """
    source = find_dataset(config.data.dataset)
    selection = select(rerun, read_graph(config, job))
    steps = make_plan(config, source, store, selection, job)
    if any(step.state != "cached" for step in steps if step.name in CHECKED_BY):
        dataset = load_dataset(config.data.dataset, config.data.limit, source)
        for count in (config.data.few_shot, *few_shot):
            data = config.data.model_copy(update={"few_shot": count})
            pairs = config.pretrain.task == "pairs"
            check_classes(dataset.y_train, dataset.y_test, data, pairs)
    missing = [s.name for s in steps if s.name in selection.stored and s.state != "cached"]
    if missing:
        msg = (
            f"the store {store.root} lacks {', '.join(missing)} for these settings; "
            "add --with-upstream to compute what is missing"
        )
        raise StoreError(msg)
    return Prepared(source, selection, steps)

"""What is settled before anything is computed or written: the data, the stages, the plan."""

import os
from dataclasses import dataclass
from pathlib import Path

from artifacts.store import Store, StoreError
from flows.plan import Step, make_plan
from flows.selection import Rerun, Selection, read_graph, select
from models.config import Config
from models.datasets import Source, check_classes, find_dataset, load_dataset

CHECKOUT = Path(__file__).resolve().parent.parent

# Once these hold results for the settings, the settings have been found to fit the data.
CHECKED_BY = {"load-dataset", "split-source", "split-target"}


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


def prepare(config: Config, rerun: Rerun, store: Store) -> Prepared:
    """Checks everything that a user can get wrong, and writes nothing.

    Raises:
        DatasetError: If the dataset is missing, damaged or of the wrong form.
        ConfigError: If a class, a count or a stage's name asks for more than there is.
        StoreError: If the store lacks what one stage alone needs.
    """
    source = find_dataset(config.data.dataset)
    selection = select(rerun, read_graph(config))
    steps = make_plan(config, source, store, selection)
    if any(step.state != "cached" for step in steps if step.name in CHECKED_BY):
        dataset = load_dataset(config.data.dataset, config.data.limit, source)
        check_classes(dataset.y_train, dataset.y_test, config.data)
    missing = [s.name for s in steps if s.name in selection.stored and s.state != "cached"]
    if missing:
        msg = (
            f"the store {store.root} lacks {', '.join(missing)} for these settings; "
            "add --with-upstream to compute what is missing"
        )
        raise StoreError(msg)
    return Prepared(source, selection, steps)

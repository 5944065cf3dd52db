"""What stages assess-... have found of recipes, as the stages after them read it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from artifacts.reference import Ref
from models.recipe import Quantity
from tasks.stage import Work

if TYPE_CHECKING:
    from models.questions import History


class Found:
    """What was measured of one recipe."""

    def __init__(self, work: Work, ref: Ref) -> None:
        self.networks: list[dict[str, float]] = ref.metrics["networks"]
        self.rows: dict[str, int] = ref.metrics["rows"]
        self.note: str = ref.metrics["note"]
        told = work.json(ref, "histories.json")
        self.histories: list[History] = list(told.values())
        self.seconds = list(_seconds(work, ref))

    def of(self, quantity: str) -> list[float]:
        """One value a seed."""
        return [network[quantity] for network in self.networks]

    def rows_of(self, quantity: Quantity) -> int:
        """How many images a quantity is measured on."""
        known = {"test": self.rows["test"], "train": self.rows["train"], "first 100": 100}
        return known.get(quantity, self.rows["validation"])


def _seconds(work: Work, ref: Ref) -> Iterator[float]:
    """How long each network took to train when it was."""
    manifest = work.store.manifest(ref.stage, ref.key)
    for name, given in (manifest.inputs if manifest else {}).items():
        if name.startswith("trained"):
            made = work.store.manifest(given.stage, given.key)
            yield made.seconds if made else float("nan")


def read_found(work: Work, assessed: tuple[Ref, ...]) -> dict[str, Found]:
    """What was found, by the id of the recipe."""
    return {ref.metrics["recipe"]: Found(work, ref) for ref in assessed}

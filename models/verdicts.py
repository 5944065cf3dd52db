"""Whether a figure that was printed is the one that comes out here."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, median

from models.recipe import Recipe

NOT_COMPARABLE = "not comparable: a stand-in for the images"
NOT_RUN = "not run"
DRAWN = "drawn in the report"


@dataclass(frozen=True)
class Comparison:
    """What was printed beside what came out; accuracies in 0 to 1.

    Attributes:
        printed: The median of what was printed; None if nothing was.
        ours: The mean over the seeds.
        low: The lowest.
        high: The highest.
        reproduced: Whether the printed figure lies in our range, widened by its sampling error.
    """

    printed: float | None
    ours: float
    low: float
    high: float
    reproduced: bool

    @property
    def difference(self) -> float | None:
        """Ours less what was printed."""
        return None if self.printed is None else self.ours - self.printed


def compare_figures(printed: Sequence[float], ours: Sequence[float], rows: int) -> Comparison:
    """Compares what was printed with our figures.

    Args:
        printed: Accuracies in 0 to 1, one for each time the document's program was run; may be
            empty.
        ours: Accuracies in 0 to 1, one a seed.
        rows: Images that the printed accuracy was measured on, which leave it a sampling error.
    """
    low, high = min(ours), max(ours)
    if not printed:
        return Comparison(None, mean(ours), low, high, reproduced=False)
    told = median(printed)
    # What 95% of all samples of so many images would have given.
    error = 1.96 * sqrt(told * (1 - told) / rows)
    within = low - error <= told <= high + error
    return Comparison(told, mean(ours), low, high, within)


def give_verdict(recipe: Recipe, compared: Comparison, note: str) -> str:
    """What becomes of one printed figure, in words.

    Args:
        recipe: Says why our figure differs, where that is known.
        compared: The figures.
        note: What the dataset says of itself; one that says something is no dataset of the
            document's.
    """
    if note:
        return NOT_COMPARABLE
    if compared.printed is None:
        return "asked, not printed"
    if compared.reproduced:
        return "reproduced"
    return f"differs: {recipe.why}" if recipe.why else "differs"

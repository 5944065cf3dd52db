"""Whether one classifier beats another on the same rows, and by how much."""

from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Gain:
    """What one classifier gains over another on the same rows.

    Attributes:
        removed: Share of the other's errors that it does not make; negative if it makes more.
        low: Lower end of the interval of that share.
        high: Upper end.
        p_value: Of both being equally often right.
    """

    removed: float
    low: float
    high: float
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def describe(self, name: str, other: str) -> str:
        """What that says of a transfer and the baseline it has to beat, in a sentence."""
        said = f"{name} makes {_share(self.removed)} errors than {other}"
        if self.low > 0:
            return f"Transfer pays: {said} ({_share(self.low)} to {_share(self.high)})."
        if self.high < 0:
            return f"Negative transfer: {said} ({_share(self.high)} to {_share(self.low)})."
        return f"No clear gain: {said} ({_share(self.low)} to {_share(self.high)})."


def _share(removed: float) -> str:
    return f"{100 * abs(removed):.0f}% {'fewer' if removed >= 0 else 'more'}"


def measure_gain(right: Array, other: Array, confidence: float, draws: int = 10_000) -> Gain:
    """Compares two classifiers by the rows that each gets right.

    Args:
        right: Whether each row is predicted right, (rows,).
        other: The same by the classifier to beat.
        confidence: Level of the interval.
        draws: Of the bootstrap. Rows are drawn in pairs; a draw without errors of the other
            counts as no gain.

    References:
        Efron, Tibshirani (1993), An introduction to the bootstrap, 13 (percentile interval).
        Dietterich (1998), Approximate statistical tests for comparing supervised classification
        learning algorithms (McNemar's test, here exact).
    """
    won, lost = int(np.sum(right & ~other)), int(np.sum(~right & other))
    both_wrong = int(np.sum(~right & ~other))
    rows = len(right)
    shares = np.array([won, lost, both_wrong, rows - won - lost - both_wrong]) / rows
    drawn = np.random.default_rng(0).multinomial(rows, shares, draws)
    removed = (drawn[:, 0] - drawn[:, 1]) / np.maximum(drawn[:, 0] + drawn[:, 2], 1)
    low, high = np.quantile(removed, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Gain(
        removed=(won - lost) / max(won + both_wrong, 1),
        low=float(low),
        high=float(high),
        p_value=sign_test(won, lost),
    )


def sign_test(won: int, lost: int) -> float:
    """Two-sided p-value of so many wins and losses if both were equally likely."""
    trials = won + lost
    tail = sum(comb(trials, wins) for wins in range(min(won, lost) + 1))
    # Divided as integers: they have hundreds of digits.
    return min(1.0, float(2 * tail / 2**trials))

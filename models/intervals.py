"""Intervals of means: of a few values, such as accuracies over seeds, and of many."""

from collections.abc import Sequence
from math import atan, cos, pi, sqrt
from statistics import NormalDist, mean, stdev

import numpy as np
import numpy.typing as npt


def mean_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """The mean of some values and the ends of its interval, by Student's t.

    Args:
        values: At least one; of a single one the interval is that value.
        confidence: Level of the interval, such as 0.95.
    """
    centre = mean(values)
    if len(values) < 2:
        return centre, centre, centre
    half = t_quantile(confidence, len(values) - 1) * stdev(values) / sqrt(len(values))
    return centre, centre - half, centre + half


def is_clearly_positive(values: npt.NDArray[np.floating], confidence: float) -> bool:
    """Whether the normal interval of the mean of many values lies above 0.

    Args:
        values: One for each row, such as differences of two losses; few are never clear.
        confidence: Level of the interval, such as 0.95.
    """
    if len(values) < 2:
        return False
    errors = NormalDist().inv_cdf((1 + confidence) / 2)
    return bool(values.mean() > errors * values.std(ddof=1) / sqrt(len(values)))


def t_quantile(confidence: float, freedom: int) -> float:
    """How many standard errors either way hold a mean with some confidence.

    Args:
        confidence: Between 0 and 1.
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Probability that Student's t lies between -t and t.

    References:
        Abramowitz, Stegun (1972), Handbook of mathematical functions, 26.7.3 and 26.7.4.
    """
    angle = atan(t / sqrt(freedom))
    sine, cosine = t / sqrt(freedom + t**2), cos(angle)
    odd = freedom % 2
    total = term = cosine if odd else 1.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if not odd:
        return sine * total
    return 2 / pi * (angle + (sine * total if freedom > 1 else 0.0))

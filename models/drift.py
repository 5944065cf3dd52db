"""How far new images lie from those before: class shares and brightness, with what chance allows.

Every statistic comes with the limit it has to pass, so that a delivery of ten images is not
refused for what ten images do by chance.
"""

from math import log, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# How often chance alone may pass a limit.
RARE = 0.001


def stability_index(expected: Array, found: Array) -> float:
    """Population stability index of counts by class; 0 where the shares are the same.

    Rules of thumb call 0.1 a shift and 0.25 a large one. Half a count is added to each class, so
    that a class without images gives a finite figure.

    Args:
        expected: Images of each class in the reference, (classes,).
        found: Images of each class in what is new, (classes,).

    References:
        Siddiqi (2006), Credit risk scorecards.
    """
    before = (expected + 0.5) / (expected + 0.5).sum()
    now = (found + 0.5) / (found + 0.5).sum()
    return float(np.sum((now - before) * np.log(now / before)))


def stability_limit(expected: Array, found: Array) -> float:
    """What the stability index stays below by chance: times a chi-squared of classes - 1.

    References:
        Yurdakul and Naranjo (2020), Statistical properties of the population stability index,
        Journal of Risk Model Validation 14(4).
        Wilson and Hilferty (1931), The distribution of chi-square (for its quantile).
    """
    freedom = max(len(expected) - 1, 1)
    z = NormalDist().inv_cdf(1 - RARE)
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + z * sqrt(spread)) ** 3
    return float(quantile * (1 / max(expected.sum(), 1) + 1 / max(found.sum(), 1)))


def largest_gap(expected: Array, found: Array) -> float:
    """Kolmogorov and Smirnov's statistic: the largest gap between two distributions, 0 to 1.

    Args:
        expected: A value for each image of the reference, (rows,), rising.
        found: A value for each new image, (rows,).
    """
    found = np.sort(found)
    values = np.concatenate([expected, found])
    before = np.searchsorted(expected, values, side="right") / len(expected)
    now = np.searchsorted(found, values, side="right") / len(found)
    return float(np.max(np.abs(before - now)))


def gap_limit(expected: int, found: int) -> float:
    """What ``largest_gap`` stays below by chance.

    References:
        Smirnov (1948), Table for estimating the goodness of fit of empirical distributions.
    """
    return sqrt(-log(RARE / 2) / 2) * sqrt((expected + found) / (expected * found))

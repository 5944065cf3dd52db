"""Whether a challenger is better than the champion by more than chance, on the same images."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, lgamma, log
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """Whether a challenger replaces the champion.

    Attributes:
        promote: The decision.
        why: The reason, in words, with the figures.
        champion: Share of right answers of the champion, 0 to 1.
        challenger: Share of right answers of the challenger.
        p: How often chance alone would favour the challenger so much.
    """

    promote: bool
    why: str
    champion: float
    challenger: float
    p: float


def mcnemar_mid_p(lost: int, won: int) -> float:
    """One-sided mid-p of McNemar's exact test: that ``won`` beats ``lost`` by chance.

    Rows that both models get right, or both wrong, say nothing. Of the others a coin decides
    under the null hypothesis; half of the probability of the count itself is taken off, which
    keeps the test close to its level without the exact test's loss of power.

    Args:
        lost: Rows that only the champion gets right.
        won: Rows that only the challenger gets right.

    References:
        McNemar (1947), Note on the sampling error of the difference between correlated
        proportions or percentages.
        Fagerland, Lydersen and Laake (2013), The McNemar test for binary matched-pairs data:
        mid-p and asymptotic are better than exact conditional.
    """
    rows = lost + won
    tail = sum(_coin(rows, heads) for heads in range(won + 1, rows + 1))
    return min(1.0, tail + 0.5 * _coin(rows, won))


def _coin(tosses: int, heads: int) -> float:
    """Probability of so many heads of a fair coin, also for thousands of tosses."""
    choices = lgamma(tosses + 1) - lgamma(heads + 1) - lgamma(tosses - heads + 1)
    return exp(choices - tosses * log(2))


def compare(
    labels: Array,
    champion: Array,
    challenger: Array,
    significance: float,
    max_class_loss: float,
) -> Verdict:
    """Compares two models' answers on the same images.

    Args:
        labels: True classes, (rows,).
        champion: Its answers, (rows,).
        challenger: Its answers, (rows,).
        significance: Promote only below this p.
        max_class_loss: Promote only if no class loses more of its F1. Not of its recall: a model
            that says a class too often has that, and nothing better could ever replace it.
    """
    before, now = champion == labels, challenger == labels
    won, lost = int(np.sum(now & ~before)), int(np.sum(before & ~now))
    p = mcnemar_mid_p(lost, won)
    losses = _losses(labels, champion, challenger)
    worst = max(losses, key=lambda name: losses[name])
    shares = float(before.mean()), float(now.mean())
    figures = (
        f"{100 * shares[0]:.1f} -> {100 * shares[1]:.1f} %, {won} won, {lost} lost, p = {p:.2g}"
    )
    if p >= significance:
        why = f"not better by more than chance: {figures}, needed {significance:g}"
    elif losses[worst] > max_class_loss:
        why = (
            f"class {worst} would lose {100 * losses[worst]:.1f} points of F1, allowed are "
            f"{100 * max_class_loss:.1f}: {figures}"
        )
    else:
        return Verdict(True, f"better: {figures}", *shares, p)
    return Verdict(False, why, *shares, p)


def _losses(labels: Array, champion: Array, challenger: Array) -> Mapping[int, float]:
    """How much F1 each class loses; below 0 where it gains."""
    return {
        int(name): _f1(labels == name, champion == name) - _f1(labels == name, challenger == name)
        for name in np.unique(labels)
    }


def _f1(is_class: Array, is_answer: Array) -> float:
    right = np.sum(is_class & is_answer)
    return float(2 * right / (np.sum(is_class) + np.sum(is_answer)))

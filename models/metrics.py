"""How good a classifier is: accuracy with its interval, confusion, precision, recall, loss."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Below this a probability counts as this: one row never outweighs all others.
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers and the interval it leaves open, all from 0 to 1."""

    accuracy: float
    low: float
    high: float
    rows: int

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def measure_accuracy(labels: Array, predicted: Array, confidence: float) -> Accuracy:
    """Share of rows predicted right.

    Args:
        labels: True labels, (rows,).
        predicted: Predicted labels, (rows,).
        confidence: Level of the interval, such as 0.95.
    """
    right, rows = int(np.sum(labels == predicted)), len(labels)
    low, high = wilson_interval(right, rows, confidence)
    return Accuracy(right / rows, low, high, rows)


def wilson_interval(right: int, rows: int, confidence: float) -> tuple[float, float]:
    """Score interval of a proportion; stays inside 0 and 1 and holds near the ends.

    References:
        Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / rows
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def count_confusion(labels: Array, predicted: Array, classes: int) -> Array:
    """Counts of rows by true label (down) and predicted label (across), (classes, classes)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def score_classes(counts: Array, names: Sequence[int]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class from a confusion matrix.

    Args:
        counts: (classes, classes), true down, predicted across.
        names: The classes as the dataset names them.
    """
    right = np.diag(counts)
    precision = right / np.maximum(counts.sum(axis=0), 1)
    recall = right / np.maximum(counts.sum(axis=1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return [
        {
            "class": int(name),
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "rows": int(counts[i].sum()),
        }
        for i, name in enumerate(names)
    ]


def average_answers(answers: Sequence[Array]) -> Array:
    """The mean of several classifiers' probabilities, (rows, classes) each."""
    return np.asarray(np.mean(answers, axis=0, dtype=np.float64))


def measure_loss(labels: Array, probabilities: Array) -> tuple[float, float]:
    """Mean cross-entropy in nats, and the share of rows predicted right.

    Args:
        labels: True labels, (rows,).
        probabilities: (rows, classes).
    """
    loss = row_losses(labels, probabilities).mean()
    return float(loss), float((probabilities.argmax(axis=1) == labels).mean())


def row_losses(labels: Array, probabilities: Array) -> Array:
    """Cross-entropy of each row in nats, (rows,); arguments as for ``measure_loss``."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    losses: Array = -np.log(np.maximum(of_truth, LEAST_PROBABILITY))
    return losses

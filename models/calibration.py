"""How sure a classifier is of itself, against how often it is right."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from models.metrics import LEAST_PROBABILITY

Array = npt.NDArray[Any]

BINS = 15


def find_temperature(labels: Array, probabilities: Array) -> float:
    """The temperature at which a classifier is as sure of itself as it is right.

    Args:
        labels: True labels of validation rows, (rows,).
        probabilities: Of the classifier at temperature 1, (rows, classes).

    Returns:
        What the logits are to be divided by, from 0.1 to 10. Targets are smoothed by what so few
        rows leave open, or a classifier that gets them all right would be told to be certain.

    References:
        Guo et al. (2017), On calibration of modern neural networks, 4.2.
        Platt (1999), Probabilistic outputs for support vector machines, 2.2 (the smoothing).
    """
    rows, classes = probabilities.shape
    unsure = 1 / (rows / classes + 2)
    targets = np.full((rows, classes), unsure / (classes - 1))
    targets[np.arange(rows), labels] = 1 - unsure
    temperatures = np.geomspace(0.1, 10, 400)
    losses = [-np.sum(targets * _log(soften(probabilities, t))) for t in temperatures]
    return float(temperatures[int(np.argmin(losses))])


def soften(probabilities: Array, temperature: float) -> Array:
    """Probabilities with their logits divided by a temperature, (rows, classes)."""
    logits = _log(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softened: Array = powers / powers.sum(axis=1, keepdims=True)
    return softened


def _log(probabilities: Array) -> Array:
    logarithms: Array = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    return logarithms


class Calibration:
    """Confidence against accuracy, in bins of equal width, gathered a block of rows at a time.

    References:
        Guo et al. (2017), On calibration of modern neural networks, 2.
    """

    def __init__(self) -> None:
        # Down: rows, right answers, confidence.
        self._sums = np.zeros((3, BINS))

    def add(self, labels: Array, probabilities: Array) -> Self:
        """Counts a block: true labels, (rows,), and probabilities, (rows, classes)."""
        confidence = probabilities.max(axis=1)
        right = probabilities.argmax(axis=1) == labels
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        for line, values in zip(self._sums, (None, right, confidence), strict=True):
            line += np.bincount(bins, values, BINS)
        return self

    @property
    def error(self) -> float:
        """The expected calibration error, from 0 to 1."""
        rows, right, confidence = self._sums
        return float(np.abs(right - confidence).sum() / rows.sum())

    @property
    def bins(self) -> list[dict[str, float]]:
        """Mean confidence, accuracy and rows of each bin that has any."""
        return [
            {"confidence": sure / rows, "accuracy": right / rows, "rows": int(rows)}
            for rows, right, sure in self._sums.T.tolist()
            if rows
        ]


class Mistakes:
    """The rows predicted wrong with the highest confidence, gathered a block at a time."""

    def __init__(self, most: int) -> None:
        """Keeps the ``most`` worst."""
        self.most = most
        self.worst: list[dict[str, Any]] = []

    def add(self, first: int, labels: Array, probabilities: Array) -> None:
        """Looks at a block.

        Args:
            first: Number of its first row.
            labels: True labels, (rows,).
            probabilities: (rows, classes).
        """
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        wrong = np.flatnonzero(predicted != labels)
        here = wrong[np.argsort(-confidence[wrong], kind="stable")][: self.most]
        found = [
            {
                "row": int(first + row),
                "label": int(labels[row]),
                "predicted": int(predicted[row]),
                "confidence": float(confidence[row]),
            }
            for row in here
        ]
        self.worst = sorted(self.worst + found, key=lambda each: -each["confidence"])[: self.most]

"""Whether new images may join a dataset: row by row, and the delivery as a whole."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.config import Nightly
from models.deliveries import Delivery, Form
from models.drift import gap_limit, largest_gap, stability_index, stability_limit
from models.images import Dataset

Array = npt.NDArray[Any]

# Fewer images say nothing about how well labels agree with a model.
ENOUGH_TO_JUDGE = 20


@dataclass(frozen=True, eq=False)
class Brightness:
    """Mean pixel of an image, in standard deviations from the mean of its class.

    By class, because a delivery may be of one class, and ones are darker than zeros.

    Attributes:
        means: Of each class, (classes,).
        deviations: Of each class, (classes,).
        reference: Of each image of the reference, (rows,), rising.
    """

    means: Array
    deviations: Array
    reference: Array

    def of(self, images: Array, positions: Array) -> Array:
        """Of some images, (rows,), given the position of each image's class."""
        brightness = images.mean(axis=1, dtype=np.float64)
        return np.asarray((brightness - self.means[positions]) / self.deviations[positions])


@dataclass(frozen=True, eq=False)
class Reference:
    """What new images are held against.

    Attributes:
        form: What they must look like.
        classes: Classes that are trained on, rising.
        counts: Training images of each class, (classes,).
        low: Smallest pixel of the reference.
        high: Largest pixel of the reference.
        brightness: Of its training images.
        training: Label of each training image, by its fingerprint.
        holdout: Fingerprints of the test images.
    """

    form: Form
    classes: Array
    counts: Array
    low: float
    high: float
    brightness: Brightness
    training: Mapping[bytes, int]
    holdout: frozenset[bytes]


@dataclass(frozen=True)
class Drift:
    """How far a delivery lies from the reference, and what would be too far.

    Attributes:
        classes: Stability index of the class shares.
        classes_limit: The larger of the setting and what chance allows.
        pixels: Largest gap between the distributions of brightness, 0 to 1.
        pixels_limit: The larger of the setting and what chance allows.
    """

    classes: float
    classes_limit: float
    pixels: float
    pixels_limit: float

    @property
    def is_class_drift(self) -> bool:
        """Whether the classes come in other shares than before."""
        return self.classes > self.classes_limit

    @property
    def is_pixel_drift(self) -> bool:
        """Whether the images are brighter or darker than before."""
        return self.pixels > self.pixels_limit


@dataclass(frozen=True, eq=False)
class Findings:
    """What became of a delivery's rows; each is accepted, a duplicate, or has a problem.

    Attributes:
        accepted: Rows that may join, (rows,), rising.
        duplicates: How many rows are in the training data already, with the same label.
        problems: Reason for each other row, by its name.
        refusal: Why the whole delivery is refused; empty if it is not.
        drift: How far the accepted rows lie from the reference; None where there are none.
    """

    accepted: Array
    duplicates: int
    problems: Mapping[str, str] = field(default_factory=dict)
    refusal: str = ""
    drift: Drift | None = None


def fingerprints(images: Array) -> list[bytes]:
    """SHA-256 of the pixels of each image, (rows, columns)."""
    return [hashlib.sha256(row).digest() for row in np.ascontiguousarray(images)]


def make_reference(dataset: Dataset, classes: Sequence[int]) -> Reference:
    """Gathers what new images are held against.

    Args:
        dataset: The dataset as it was before anything joined it.
        classes: Classes that are trained on.
    """
    names = np.unique(np.asarray(classes, np.int64))
    rows = np.flatnonzero(np.isin(dataset.y_train, names))
    images = dataset.x_train[rows]
    positions = np.searchsorted(names, dataset.y_train[rows])
    counts = np.bincount(positions, minlength=len(names))
    labels = map(int, dataset.y_train)
    return Reference(
        form=Form(dataset.image_shape, str(dataset.x_train.dtype)),
        classes=names,
        counts=counts,
        low=float(dataset.x_train.min()),
        high=float(dataset.x_train.max()),
        brightness=_measure_brightness(images, positions, counts),
        training=dict(zip(fingerprints(dataset.x_train), labels, strict=True)),
        holdout=frozenset(fingerprints(dataset.x_test)),
    )


def _measure_brightness(images: Array, positions: Array, counts: Array) -> Brightness:
    values = images.mean(axis=1, dtype=np.float64)
    means = np.bincount(positions, values, len(counts)) / np.maximum(counts, 1)
    squares = np.bincount(positions, (values - means[positions]) ** 2, len(counts))
    # A class of equal images has no deviation to measure in.
    deviations = np.maximum(np.sqrt(squares / np.maximum(counts, 1)), 1e-6)
    return Brightness(
        means, deviations, np.sort((values - means[positions]) / deviations[positions])
    )


def inspect(
    delivery: Delivery, reference: Reference, known: Mapping[bytes, int], limits: Nightly
) -> Findings:
    """Decides which rows of a delivery may join, and whether any may.

    Args:
        delivery: What came.
        reference: What it is held against.
        known: Label of each image that has joined already, by its fingerprint.
        limits: The thresholds.
    """
    accepted, duplicates = [], 0
    problems: dict[str, str] = {}
    seen: dict[bytes, int] = {}
    for row, mark in enumerate(fingerprints(delivery.images)):
        label = int(delivery.labels[row])
        before = reference.training.get(mark, known.get(mark, seen.get(mark)))
        problem = delivery.problems[row] or _row_problem(delivery.images[row], label, reference)
        if not problem and mark in reference.holdout:
            problem = "is in the hold-out, which must stay unseen"
        if not problem and before not in (None, label):
            problem = f"is labelled {label} here and {before} before"
        if problem:
            problems[delivery.names[row]] = problem
        elif before is not None:
            duplicates += 1
        else:
            seen[mark] = label
            accepted.append(row)
    rows = np.asarray(accepted, np.int64)
    drift = _measure_drift(delivery, rows, reference, limits) if len(rows) else None
    refusal = _refusal(delivery.labels[rows], drift, limits) if drift else ""
    return Findings(rows, duplicates, problems, refusal, drift)


def _row_problem(image: Array, label: int, reference: Reference) -> str:
    if label not in reference.classes:
        classes = ", ".join(map(str, reference.classes))
        return f"has label {label}; the classes are {classes}"
    if image.min() < reference.low or image.max() > reference.high:
        return (
            f"has pixels from {image.min()} to {image.max()}; "
            f"the dataset has {reference.low} to {reference.high}"
        )
    return ""


def _measure_drift(delivery: Delivery, rows: Array, reference: Reference, limits: Nightly) -> Drift:
    positions = np.searchsorted(reference.classes, delivery.labels[rows])
    counts = np.bincount(positions, minlength=len(reference.classes))
    before = reference.brightness.reference
    brightness = reference.brightness.of(delivery.images[rows], positions)
    chance = stability_limit(reference.counts, counts)
    return Drift(
        classes=stability_index(reference.counts, counts),
        classes_limit=max(limits.class_drift, chance),
        pixels=largest_gap(before, brightness),
        pixels_limit=max(limits.pixel_drift, gap_limit(len(before), len(rows))),
    )


def _refusal(labels: Array, drift: Drift, limits: Nightly) -> str:
    if drift.is_pixel_drift:
        return (
            "its images are brighter or darker than the reference: the distributions of "
            f"brightness lie {drift.pixels:.2f} apart, allowed are {drift.pixels_limit:.2f}"
        )
    share = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    if share > limits.max_class_share:
        return f"one class is {share:.0%} of it, allowed are {limits.max_class_share:.0%}"
    return ""


def doubt_labels(labels: Array, answers: Array, expected: float, agreement: float) -> str:
    """Why labels are not believed: a model that is mostly right disagrees with most of them.

    Args:
        labels: As delivered, (rows,).
        answers: What the model says, (rows,).
        expected: Share of right answers to expect, from the hold-out.
        agreement: The least share of that share that must agree.

    Returns:
        The reason; empty if they are believed.
    """
    found = float(np.mean(labels == answers)) if len(labels) else 1.0
    if len(labels) < ENOUGH_TO_JUDGE or found >= agreement * expected:
        return ""
    return (
        f"the champion agrees with {found:.0%} of its labels and is right on {expected:.0%} "
        "of the hold-out: they look wrong"
    )

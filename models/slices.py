"""Slices: the rows of a dataset that a transfer is made of, and whether settings fit them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.config import ConfigError, Data
from models.images import Array, DatasetError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Slice:
    """Some rows of the training or the test file, relabelled.

    Attributes:
        rows: Row numbers in that file, (rows,).
        labels: Position of each row's class in the configured classes, (rows,).
    """

    rows: Rows
    labels: Rows


@dataclass(frozen=True, eq=False)
class Split:
    """The images of some classes; ``train`` and ``validation`` are rows of the training file."""

    train: Slice
    validation: Slice
    test: Slice


def split_classes(
    y_train: Array, y_test: Array, classes: Sequence[int], validation_rows: int
) -> Split:
    """All images of some classes; the first training rows are kept for validation.

    Args:
        y_train: Classes of the training file, (rows,).
        y_test: Classes of the test file, (rows,).
        classes: The classes to keep; a label is a position in them.
        validation_rows: How many of the first training rows are for validation.

    Raises:
        DatasetError: If a class has no training or no test images.
    """
    split = _split(y_train, y_test, classes, validation_rows)
    for label, wanted in enumerate(classes):
        for part, images in (("training", split.train), ("test", split.test)):
            if label not in images.labels:
                message = f"class {wanted} has no {part} images"
                raise DatasetError(message)
    return split


def first_of_each(images: Slice, count: int) -> Slice:
    """The first ``count`` images of each class, class after class; all of them if it is 0.

    Raises:
        DatasetError: If a class has fewer.
    """
    labels, there = np.unique(images.labels, return_counts=True)
    if not count:
        return images
    if len(there) == 0 or there.min() < count:
        message = f"{count} images of each class are asked for; one has {min(there, default=0)}"
        raise DatasetError(message)
    chosen = np.concatenate([np.flatnonzero(images.labels == label)[:count] for label in labels])
    return Slice(images.rows[chosen], images.labels[chosen])


def _split(y_train: Array, y_test: Array, classes: Sequence[int], validation_rows: int) -> Split:
    every = _rows_of(y_train, classes)
    cut = int(np.searchsorted(every.rows, validation_rows))
    return Split(
        train=Slice(every.rows[cut:], every.labels[cut:]),
        validation=Slice(every.rows[:cut], every.labels[:cut]),
        test=_rows_of(y_test, classes),
    )


def _rows_of(labels: Array, classes: Sequence[int]) -> Slice:
    rows = np.flatnonzero(np.isin(labels, classes)).astype(np.int64)
    order = np.argsort(classes)
    positions = np.searchsorted(np.asarray(classes)[order], labels[rows])
    return Slice(rows, order[positions].astype(np.int64))


# --- Whether settings fit a dataset ---


def check_classes(y_train: Array, y_test: Array, data: Data, pairs: bool = False) -> None:
    """Refuses classes and counts that the dataset cannot give.

    Args:
        y_train: Classes of the training file, (rows,).
        y_test: Classes of the test file, (rows,).
        data: The settings.
        pairs: Whether images of different source classes are paired.

    Raises:
        ConfigError: With one line for every problem.
    """
    present = np.union1d(y_train, y_test)
    problems = [*_absence_problems(present, data)]
    if data.validation_rows >= len(y_train):
        rows = _plural(len(y_train), "training row")
        problems.append(f"data.validation_rows = {data.validation_rows}: there are only {rows}")
    else:
        source = _split(y_train, y_test, data.source_classes, data.validation_rows)
        target = _split(y_train, y_test, data.target_classes, data.validation_rows)
        problems += _source_problems(source, data, present)
        problems += _pair_problems(source, data) if pairs else []
        problems += _few_shot_problems(target, data, present)
    problems += _test_problems(y_test, data, present)
    if problems:
        raise ConfigError(problems)


def _absence_problems(present: Array, data: Data) -> Iterator[str]:
    for field, wanted in _configured(data):
        if wanted not in present:
            yield (
                f"data.{field}: class {wanted} has no images in {_named(data)}; "
                f"it has {_ranges(present)}"
            )


def _source_problems(split: Split, data: Data, present: Array) -> Iterator[str]:
    for label, wanted in enumerate(data.source_classes):
        if wanted in present and label not in split.train.labels:
            yield f"data.source_classes: class {wanted} has no training images in {_named(data)}"
    if not len(split.validation.rows):
        yield (
            f"data.validation_rows = {data.validation_rows}: "
            "no image of the source classes is among them"
        )


def _pair_problems(split: Split, data: Data) -> Iterator[str]:
    # The training and the test images are of every class, or that is a problem of its own.
    if len(np.unique(split.validation.labels)) == 1:
        yield (
            f"data.validation_rows = {data.validation_rows}: images of only one source class are "
            "among them; pretrain.task = pairs needs two"
        )


def _few_shot_problems(split: Split, data: Data, present: Array) -> Iterator[str]:
    asked = {
        "few_shot": (data.few_shot, split.train, "training image"),
        "few_shot_validation": (data.few_shot_validation, split.validation, "validation image"),
    }
    for field, (count, images, noun) in asked.items():
        for label, wanted in enumerate(data.target_classes):
            there = int(np.count_nonzero(images.labels == label))
            if wanted in present and there < count:
                has = f"only {_plural(there, noun)}" if there else f"no {noun}s"
                yield f"data.{field} = {count}: class {wanted} has {has}"


def _test_problems(y_test: Array, data: Data, present: Array) -> Iterator[str]:
    for field, wanted in _configured(data):
        if wanted in present and wanted not in y_test:
            yield f"data.{field}: class {wanted} has no test images in {_named(data)}"


def _configured(data: Data) -> Iterator[tuple[str, int]]:
    """Each configured class with the setting that names it."""
    for field in ("source_classes", "target_classes"):
        for wanted in getattr(data, field):
            yield field, wanted


def _named(data: Data) -> str:
    return f"the first {data.limit} rows of {data.dataset}" if data.limit else data.dataset


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _ranges(numbers: Array) -> str:
    """Numbers in rising order as a text: ``0 to 4, 7``."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    parts = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return ", ".join(parts)

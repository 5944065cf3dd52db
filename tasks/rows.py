"""Reading the rows of a split, as networks take them."""

from typing import Any, Literal

import numpy.typing as npt

from artifacts.reference import Ref
from models.datasets import as_float
from tasks.stage import Work

Part = Literal["train", "validation", "test"]


def read_rows(
    work: Work, dataset: Ref, split: Ref, part: Part
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images and labels of one part of a split.

    Returns:
        Pixels, float32 (rows, columns), and labels (rows,).
    """
    images = work.array(dataset, "x_test.npy" if part == "test" else "x_train.npy")
    rows = work.array(split, f"{part}_rows.npy")
    return as_float(images[rows]), read_labels(work, split, part)


def read_labels(work: Work, split: Ref, part: Part) -> npt.NDArray[Any]:
    """Labels of one part of a split, (rows,): positions in the split's classes."""
    return work.array(split, f"{part}_labels.npy")

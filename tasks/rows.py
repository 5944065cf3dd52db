"""Reading the rows of a split, as networks take them."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from artifacts.reference import Ref
from models.images import as_float
from tasks.stage import Work

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
Array = npt.NDArray[Any]


class Rows:
    """Some rows of an array file, read a slice at a time; never more in memory than the slice."""

    def __init__(self, values: Path, rows: Path | None = None) -> None:
        self.values = values
        self.rows = rows
        self.length = len(_open(rows or values))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, where: slice) -> Array:
        """The rows of a slice: floats as networks take them, (rows, columns)."""
        # Opened for each slice: pages of a map that stays open would pile up in memory.
        chosen = _open(self.rows)[where] if self.rows else where
        return as_float(_open(self.values)[chosen])


def open_rows(work: Work, dataset: Ref, split: Ref, part: Part) -> Rows:
    """Images of one part of a split, for reading in blocks."""
    images = work.file(dataset, "x_test.npy" if part == "test" else "x_train.npy")
    return Rows(images, work.file(split, f"{part}_rows.npy"))


def open_activations(work: Work, activations: Ref, layer: str, part: Part) -> Rows:
    """Activations of one layer for one part of a split, for reading in blocks."""
    return Rows(work.file(activations, f"{layer}/{part}.npy"))


def read_rows(work: Work, dataset: Ref, split: Ref, part: Part) -> tuple[Array, Array]:
    """Images and labels of one part of a split, in memory for training.

    Returns:
        Pixels, float32 (rows, columns), and labels (rows,).
    """
    return open_rows(work, dataset, split, part)[:], read_labels(work, split, part)


def read_labels(work: Work, split: Ref, part: Part) -> Array:
    """Labels of one part of a split, (rows,): positions in the split's classes."""
    return work.array(split, f"{part}_labels.npy")


def _open(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array

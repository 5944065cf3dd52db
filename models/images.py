"""Images and labels as every reader of datasets gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.alignment import allocate

Array = npt.NDArray[Any]
Images = npt.NDArray[np.float32]


class DatasetError(ValueError):
    """A dataset is missing, damaged or not of the form its name promises; one line of text."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and their labels, checked and read-only.

    Attributes:
        x_train: Training images, (rows, columns), uint8 0 to 255 or float32 as given.
        y_train: Their classes, (rows,), uint8 or int64.
        x_test: Test images, (rows, columns), of the training images' type.
        y_test: Their classes, (rows,), of the training labels' type.
        image_shape: How the columns of one row were laid out, such as (28, 28).
        skipped: How many files or images were left out, by the reason.
        note: What whoever reads a figure measured on it must know; empty for most.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    image_shape: tuple[int, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


def as_float(images: Array) -> Images:
    """Images as networks take them: uint8 divided by 255, floats as they are.

    Args:
        images: (rows, columns) of uint8 or a float type.
    """
    if images.dtype == np.uint8:
        # What is trained on next then needs no copy.
        floats = allocate(images.shape, np.float32)
        return np.divide(images, np.float32(255), out=floats)
    if images.dtype.kind != "f":
        message = f"images are {images.dtype}; expected uint8 or floats"
        raise DatasetError(message)
    return images.astype(np.float32, copy=False)


def read_only(array: Array) -> Array:
    """The same array, which nobody can write to from now on."""
    array.flags.writeable = False
    return array

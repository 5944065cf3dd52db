"""Arrays that TensorFlow can work on where they lie."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Bytes: the widest vectors of a processor, and what TensorFlow's operations rely on.
_ALIGNMENT = 64


def allocate(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array of any values whose memory TensorFlow can take for a tensor's."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def align(array: Array) -> Array:
    """The array itself if TensorFlow can work on it where it lies, else a copy."""
    flags = array.flags
    if flags.carray and array.dtype.isnative and not array.ctypes.data % _ALIGNMENT:
        return array
    copy = allocate(array.shape, array.dtype.newbyteorder("="))
    copy[...] = array
    return copy

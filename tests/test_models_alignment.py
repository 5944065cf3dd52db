"""Arrays as TensorFlow can take them over; it ends the process if one lies elsewhere."""

import numpy as np
import pytest

from models.alignment import Array, align, allocate
from models.feeding import to_tensor
from models.images import as_float

PLACES = 64


def place(values: Array, offset: int) -> Array:
    """The same values, so many bytes after where TensorFlow wants them."""
    memory = allocate((values.nbytes + PLACES,), np.uint8)
    placed = memory[offset : offset + values.nbytes].view(values.dtype).reshape(values.shape)
    placed[...] = values
    return placed


@pytest.mark.parametrize("shape", [(3, 5), (7,), ()])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
def test_what_is_allocated_is_taken_as_it_is(shape: tuple[int, ...], dtype: type) -> None:
    array = allocate(shape, dtype)
    assert (array.shape, array.dtype) == (shape, dtype)
    assert align(array) is array


@pytest.mark.parametrize("offset", [4, 8, 16, 32])
def test_what_lies_elsewhere_is_copied(offset: int) -> None:
    values = place(np.arange(12, dtype=np.float32).reshape(3, 4), offset)
    aligned = align(values)
    assert not np.shares_memory(aligned, values)
    np.testing.assert_array_equal(aligned, values)
    np.testing.assert_array_equal(to_tensor(values).numpy(), values)


def test_what_tensorflow_cannot_read_where_it_lies_is_copied() -> None:
    whole = allocate((4, 6), np.float32)
    whole[...] = np.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(to_tensor(whole[:0]).numpy(), whole[:0])
    read_only = whole.view()
    read_only.flags.writeable = False
    for array in (read_only, whole.T, whole[:, :3], whole.astype(">f4"), whole[::-1]):
        assert not np.shares_memory(align(array), whole)
        np.testing.assert_array_equal(to_tensor(array).numpy(), array)


def test_pixels_become_floats_that_need_no_copy() -> None:
    floats = as_float(np.arange(256, dtype=np.uint8).reshape(4, 64))
    assert align(floats) is floats

"""Pixels: what networks are given is what the dataset says."""

import numpy as np
import pytest

from models.images import DatasetError, as_float


def test_bytes_are_divided_by_255():
    pixels = as_float(np.array([[0, 51, 255]], np.uint8))
    assert pixels.dtype == np.float32
    assert pixels.tolist() == [[0.0, np.float32(0.2), 1.0]]


def test_floats_are_left_as_they_are():
    given = np.array([[-1.5, 0.25]], np.float32)
    assert as_float(given) is given


def test_other_pixels_are_refused():
    with pytest.raises(DatasetError, match="images are int64"):
        as_float(np.zeros((1, 1), np.int64))

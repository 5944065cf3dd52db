"""Readers of IDX files, the form in which MNIST and its likes are published.

IDX: two zero bytes, 8 for uint8, the number of dimensions, each dimension as a big-endian 32-bit
integer, then the values.
"""

import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.images import Array, Dataset, DatasetError, read_only

# Names of the published files, with the number of dimensions of each.
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
DIMENSIONS = {TRAIN_IMAGES: 3, TRAIN_LABELS: 1, TEST_IMAGES: 3, TEST_LABELS: 1}


def locate_idx(folder: Path) -> dict[str, Path] | None:
    """Where the four files lie in a folder, gzipped or not, by name; None if one is missing."""
    found = {}
    for name in DIMENSIONS:
        # Not Path.is_file, which fails where a folder may not be looked into.
        path = next(filter(os.path.isfile, (folder / f"{name}.gz", folder / name)), None)
        if path is None:
            return None
        found[name] = path
    return found


def read_packed(files: Mapping[str, bytes], limit: int) -> Dataset:
    """Makes a dataset of gzipped files whose SHA-256 has been checked.

    Args:
        files: The four files, by names that end in ``.gz``.
        limit: Unpack only the first rows; 0 unpacks all.
    """
    return read_idx({name: _first_rows(files[f"{name}.gz"], limit) for name in DIMENSIONS}, limit)


def read_idx(files: Mapping[str, bytes], limit: int) -> Dataset:
    """Makes a dataset of files that nobody vouches for.

    Args:
        files: What the four files hold, unpacked, by name.
        limit: Keep only the first rows; 0 keeps all.

    Raises:
        DatasetError: If a file is damaged or does not fit the others.
    """
    arrays = {name: _read_array(name, files[name]) for name in DIMENSIONS}
    for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)):
        counts = len(arrays[images]), len(arrays[labels])
        if counts[0] != counts[1]:
            message = f"{images} has {counts[0]} images but {labels} {counts[1]} labels"
            raise DatasetError(message)
    shape, other = (arrays[name].shape[1:] for name in (TRAIN_IMAGES, TEST_IMAGES))
    if shape != other:
        message = f"images of {TRAIN_IMAGES} are {shape} but of {TEST_IMAGES} {other}"
        raise DatasetError(message)
    kept = {name: read_only(array[: limit or None]) for name, array in arrays.items()}
    return Dataset(
        x_train=kept[TRAIN_IMAGES].reshape(-1, math.prod(shape)),
        y_train=kept[TRAIN_LABELS],
        x_test=kept[TEST_IMAGES].reshape(-1, math.prod(shape)),
        y_test=kept[TEST_LABELS],
        image_shape=shape,
    )


def _first_rows(packed: bytes, limit: int) -> bytes:
    """The IDX file inside a gzipped one, as if it had only its first rows; unpacks no more."""
    unpacker = zlib.decompressobj(wbits=31)  # 31: gzip header and trailer.
    head = unpacker.decompress(packed, 4)
    sizes = np.frombuffer(unpacker.decompress(unpacker.unconsumed_tail, 4 * head[3]), ">i4").copy()
    sizes[0] = min(limit or sizes[0], sizes[0])
    values = unpacker.decompress(unpacker.unconsumed_tail, math.prod(map(int, sizes)))
    return head + sizes.tobytes() + values


def _read_array(name: str, content: bytes) -> Array:
    start = 4 + 4 * DIMENSIONS[name]
    if content[:4] != bytes([0, 0, 8, DIMENSIONS[name]]) or len(content) < start:
        message = f"{name} is no IDX file of bytes with {DIMENSIONS[name]} dimensions"
        raise DatasetError(message)
    shape = [int(size) for size in np.frombuffer(content[4:start], ">u4")]
    if len(content) != start + math.prod(shape):
        message = (
            f"{name} is damaged: its header promises {math.prod(shape)} values, "
            f"it has {len(content) - start}"
        )
        raise DatasetError(message)
    if 0 in shape:
        message = f"{name} has shape {tuple(shape)}: no images"
        raise DatasetError(message)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

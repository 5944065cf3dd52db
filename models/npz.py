"""Readers of ``.npz`` files: arrays from bytes that nobody vouches for, checked one by one."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from models.images import Array, Dataset, DatasetError, read_only

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_npz(content: bytes, limit: int) -> Dataset:
    """Makes a dataset of a file with x_train, y_train, x_test, y_test.

    Args:
        content: The file's bytes.
        limit: Keep only the first rows for training and for testing; 0 keeps all.

    Raises:
        DatasetError: If it is damaged or not of the right form.
    """
    arrays = _unpack_npz(content)
    x_train, x_test = _pixels("x_train", arrays["x_train"]), _pixels("x_test", arrays["x_test"])
    y_train, y_test = _labels("y_train", arrays["y_train"]), _labels("y_test", arrays["y_test"])
    _refuse_mismatch({"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test})
    kept = slice(limit or None)
    x_train, x_test = x_train[kept], x_test[kept]
    return Dataset(
        x_train=read_only(x_train.reshape(len(x_train), -1)),
        y_train=read_only(y_train[kept]),
        x_test=read_only(x_test.reshape(len(x_test), -1)),
        y_test=read_only(y_test[kept]),
        image_shape=x_train.shape[1:],
    )


def _unpack_npz(content: bytes) -> dict[str, Array]:
    if not content.startswith(b"PK"):
        message = "is not an .npz file (a zip archive of arrays)"
        raise DatasetError(message)
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except Exception as error:  # Damage shows as half a dozen unrelated types.
        message = "is not an .npz file or is cut short"
        raise DatasetError(message) from error
    with archive:
        present = {file.removesuffix(".npy") for file in archive.namelist()}
        missing = [name for name in ARRAYS if name not in present]
        if missing:
            has = ", ".join(sorted(present)) or "nothing"
            message = f"lacks {', '.join(missing)}; it has {has}"
            raise DatasetError(message)
        return {name: unpack_array(archive, name) for name in ARRAYS}


def unpack_array(archive: zipfile.ZipFile, name: str) -> Array:
    """One array of an opened .npz file.

    Raises:
        DatasetError: If it is damaged, or holds Python objects.
    """
    # Not np.load: reading a member to its end makes zipfile check its CRC in every case.
    try:
        member = io.BytesIO(archive.read(f"{name}.npy"))
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
    except Exception as error:  # Damage shows as half a dozen unrelated types.
        if "allow_pickle" in str(error):
            message = f"{name} holds Python objects, which could run code when read; store numbers"
            raise DatasetError(message) from None
        reason = (str(error) or type(error).__name__).splitlines()[0]
        message = f"{name} is damaged: {reason}"
        raise DatasetError(message) from error
    if member.read(1):
        message = f"{name} is damaged: there are bytes after its last value"
        raise DatasetError(message)
    return array


def _pixels(name: str, array: Array) -> Array:
    if array.ndim not in (2, 3):
        message = (
            f"{name} has shape {array.shape}; expected (rows, height, width) or (rows, columns)"
        )
        raise DatasetError(message)
    if 0 in array.shape:
        message = f"{name} has shape {array.shape}: no images"
        raise DatasetError(message)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            message = (
                f"{name} has whole numbers from {array.min()} to {array.max()}; "
                "store bytes 0 to 255 or floats"
            )
            raise DatasetError(message)
        return array.astype(np.uint8)
    if array.dtype.kind != "f":
        message = f"{name} is {array.dtype}; expected uint8 or floats"
        raise DatasetError(message)
    return _finite(name, array)


def _finite(name: str, array: Array) -> Array:
    with np.errstate(over="ignore"):  # A float64 beyond float32 is found just below.
        floats = np.ascontiguousarray(array, np.float32)
    wrong = ~np.isfinite(floats.reshape(len(floats), -1)).all(axis=1)
    if wrong.any():
        message = (
            f"{name} has pixels that are not finite float32 numbers in {wrong.sum()} rows, "
            f"first in row {int(wrong.argmax())}"
        )
        raise DatasetError(message)
    return floats


def _labels(name: str, array: Array) -> Array:
    if array.ndim != 1:
        message = f"{name} has shape {array.shape}; expected (rows,)"
        raise DatasetError(message)
    if array.dtype.kind not in "iu":
        message = f"{name} is {array.dtype}; labels must be integers"
        raise DatasetError(message)
    if len(array) and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        message = f"{name} has labels below 0 or beyond 64 bits"
        raise DatasetError(message)
    return array.astype(np.int64)


def _refuse_mismatch(arrays: Mapping[str, Array]) -> None:
    for part in ("train", "test"):
        images, labels = len(arrays[f"x_{part}"]), len(arrays[f"y_{part}"])
        if images != labels:
            message = f"x_{part} has {images} images but y_{part} {labels} labels"
            raise DatasetError(message)
    train, test = arrays["x_train"], arrays["x_test"]
    if train.shape[1:] != test.shape[1:]:
        message = f"images of x_train are {train.shape[1:]} but of x_test {test.shape[1:]}"
        raise DatasetError(message)
    if train.dtype != test.dtype:
        # Bytes are divided by 255 and floats are not, so the scales would differ unnoticed.
        message = f"x_train is {train.dtype} but x_test {test.dtype}"
        raise DatasetError(message)

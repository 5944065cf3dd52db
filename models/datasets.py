"""Datasets: finding, checking and loading them, and the slices a transfer is made of.

To add a bundled dataset, add an entry to ``BUNDLED`` and its files under ``data/<name>``; to
add a file format, write a reader and add an entry to ``FORMATS``. No TensorFlow here.
"""

import difflib
import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from models.config import ConfigError, Data

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Images = npt.NDArray[np.float32]


class DatasetError(ValueError):
    """A dataset is missing, damaged or not of the form its name promises; one line of text."""


class Source(BaseModel):
    """What a dataset's bytes are, wherever they lie: the same content is the same source.

    Attributes:
        kind: The bundled dataset's name, or the format of a given file.
        files: SHA-256 of each file read, by its role; a given file's role is its format.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    files: dict[str, str]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and their labels, checked and read-only.

    Attributes:
        x_train: Training images, (rows, columns), uint8 0 to 255 or float32 as given.
        y_train: Their classes, (rows,), uint8 or int64.
        x_test: Test images, (rows, columns), of the training images' type.
        y_test: Their classes, (rows,), of the training labels' type.
        image_shape: How the columns of one row were laid out, such as (28, 28).
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    image_shape: tuple[int, ...]


@dataclass(frozen=True)
class Bundled:
    """A dataset that comes with the project.

    Attributes:
        digests: SHA-256 of each file, by its name inside ``data/<dataset>``.
        read: Makes the dataset from the files' bytes and the most rows to keep (0: all).
    """

    digests: Mapping[str, str]
    read: Callable[[Mapping[str, bytes], int], Dataset]


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


# --- Finding and loading ---


def find_dataset(name: str) -> Source:
    """Identifies a dataset by its bytes, without unpacking them.

    Args:
        name: A bundled dataset's name or the path of a file.

    Raises:
        DatasetError: If it is unknown or missing, or a bundled file is damaged.
    """
    if name in BUNDLED:
        found = {file: _digest(path) for file, path in _bundled_files(name).items()}
        _refuse_damage(name, found)
        return Source(kind=name, files=found)
    path, kind = _given_file(name)
    return Source(kind=kind, files={kind: _digest(path)})


def load_dataset(name: str, limit: int = 0, source: Source | None = None) -> Dataset:
    """Reads a dataset and checks it, bundled ones against their known SHA-256.

    Args:
        name: A bundled dataset's name or the path of a file.
        limit: Keep only the first rows of the training and of the test file; 0 keeps all.
        source: What ``find_dataset`` said; if given, the bytes must still be the same.

    Raises:
        DatasetError: If it is missing, damaged, changed, or not of the right form.
    """
    if limit < 0:
        message = f"limit = {limit}: must be 0 (all rows) or more"
        raise DatasetError(message)
    if name in BUNDLED:
        contents = {file: _bytes(path) for file, path in _bundled_files(name).items()}
        digests = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
        _refuse_damage(name, digests)
        _refuse_change(name, Source(kind=name, files=digests), source)
        return BUNDLED[name].read(contents, limit)
    path, kind = _given_file(name)
    content = _bytes(path)
    digests = {kind: hashlib.sha256(content).hexdigest()}
    _refuse_change(name, Source(kind=kind, files=digests), source)
    try:
        return FORMATS[f".{kind}"](content, limit, path.parent)
    except DatasetError as error:
        message = f"dataset {name}: {error}"
        raise DatasetError(message) from error.__cause__


def as_float(images: Array) -> Images:
    """Images as networks take them: uint8 divided by 255, floats as they are.

    Args:
        images: (rows, columns) of uint8 or a float type.
    """
    if images.dtype == np.uint8:
        return np.divide(images, np.float32(255), dtype=np.float32)
    if images.dtype.kind != "f":
        message = f"images are {images.dtype}; expected uint8 or floats"
        raise DatasetError(message)
    return images.astype(np.float32, copy=False)


def _bundled_files(name: str) -> dict[str, Path]:
    folder = _bundled_folder(name)
    return {file: folder / file for file in BUNDLED[name].digests}


def _bundled_folder(name: str) -> Path:
    # A wheel carries data/ inside this package; a checkout has it beside the package.
    here = Path(__file__).resolve().parent
    installed = here / "data" / name
    return installed if installed.is_dir() else here.parent / "data" / name


def _given_file(name: str) -> tuple[Path, str]:
    # Unlike Path.expanduser, this leaves a user nobody knows as it is.
    path = Path(os.path.expanduser(name))
    if path.suffix.lower() in FORMATS:
        return path, path.suffix.lower().removeprefix(".")
    close = difflib.get_close_matches(name.lower(), BUNDLED, n=1)
    hint = f"did you mean {close[0]}?" if close else f"bundled: {', '.join(BUNDLED)};"
    message = f"unknown dataset '{name}'; {hint} a file's name must end in {', '.join(FORMATS)}"
    raise DatasetError(message)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path no system can have.
        raise _unreadable(path, error) from error


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: a path no system can have.
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> DatasetError:
    name = path.parent.name
    bundled = name in BUNDLED and path.parent == _bundled_folder(name)
    mend = f"; {_how_to_mend(name)}" if bundled else ""
    reason = getattr(error, "strerror", None) or error
    return DatasetError(f"dataset file {path}: {reason}{mend}")


def _how_to_mend(name: str) -> str:
    if (Path(__file__).resolve().parent / "data").is_dir():
        return "install headstart again"
    return f"restore it from the repository: git checkout -- data/{name}"


def _refuse_damage(name: str, digests: Mapping[str, str]) -> None:
    known = BUNDLED[name].digests
    damaged = [file for file, digest in digests.items() if digest != known[file]]
    if damaged:
        files = ", ".join(str(_bundled_folder(name) / file) for file in damaged)
        message = f"dataset {name}: damaged {files}; {_how_to_mend(name)}"
        raise DatasetError(message)


def _refuse_change(name: str, found: Source, expected: Source | None) -> None:
    if expected is not None and found != expected:
        message = f"dataset {name}: its bytes have changed since the run began; run again"
        raise DatasetError(message)


# --- Readers ---


def _read_mnist(files: Mapping[str, bytes], limit: int) -> Dataset:
    x_train = _read_idx(files["train-images-idx3-ubyte.gz"], limit)
    x_test = _read_idx(files["t10k-images-idx3-ubyte.gz"], limit)
    return Dataset(
        x_train=x_train.reshape(len(x_train), -1),
        y_train=_read_idx(files["train-labels-idx1-ubyte.gz"], limit),
        x_test=x_test.reshape(len(x_test), -1),
        y_test=_read_idx(files["t10k-labels-idx1-ubyte.gz"], limit),
        image_shape=x_train.shape[1:],
    )


def _read_idx(packed: bytes, limit: int) -> Array:
    """The first rows of a gzipped IDX file of bytes whose SHA-256 has been checked.

    IDX: two zero bytes, 8 for uint8, the number of dimensions, each dimension as a big-endian
    32-bit integer, then the values. Unpacks no more than it returns.
    """
    unpacker = zlib.decompressobj(wbits=31)  # 31: gzip header and trailer.
    dimensions = unpacker.decompress(packed, 4)[3]
    shape = np.frombuffer(unpacker.decompress(unpacker.unconsumed_tail, 4 * dimensions), ">i4")
    rows = min(limit, int(shape[0])) if limit else int(shape[0])
    columns = [int(size) for size in shape[1:]]
    values = unpacker.decompress(unpacker.unconsumed_tail, rows * int(np.prod(columns)))
    return np.frombuffer(values, np.uint8).reshape(rows, *columns)


ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def _read_npz(content: bytes, limit: int, folder: Path) -> Dataset:
    # The folder is for formats whose files name others.
    arrays = _unpack_npz(content)
    x_train, x_test = _pixels("x_train", arrays["x_train"]), _pixels("x_test", arrays["x_test"])
    y_train, y_test = _labels("y_train", arrays["y_train"]), _labels("y_test", arrays["y_test"])
    _refuse_mismatch({"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test})
    kept = slice(limit or None)
    x_train, x_test = x_train[kept], x_test[kept]
    return Dataset(
        x_train=_read_only(x_train.reshape(len(x_train), -1)),
        y_train=_read_only(y_train[kept]),
        x_test=_read_only(x_test.reshape(len(x_test), -1)),
        y_test=_read_only(y_test[kept]),
        image_shape=x_train.shape[1:],
    )


class Batch(BaseModel):
    """Images that have joined a dataset.

    Attributes:
        file: The ``.npz`` with ``x`` (rows, columns) and ``y`` (rows,), from the version's folder.
        sha256: Of that file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str


class Version(BaseModel):
    """A dataset with what has joined its training images since; its test images never change.

    Attributes:
        base: Name of the dataset at the beginning.
        source: What its bytes are.
        held: How many of its first training rows stay the first ones, for validation. What has
            joined comes next, so that the first few images of a class are the new ones.
        batches: What has joined, oldest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    source: Source
    held: int
    batches: tuple[Batch, ...]


def _read_version(content: bytes, limit: int, folder: Path) -> Dataset:
    """Reads a version; the limit is for the base, what has joined counts in full."""
    try:
        version = Version.model_validate_json(content)
    except ValidationError:
        message = "is no dataset version"
        raise DatasetError(message) from None
    base = load_dataset(version.base, limit, version.source)
    batches = [_read_batch(batch, folder) for batch in version.batches]
    held, rest = slice(version.held), slice(version.held, None)
    images = [base.x_train[held], *(x for x, _ in batches), base.x_train[rest]]
    added = [y.astype(base.y_train.dtype) for _, y in batches]
    labels = [base.y_train[held], *added, base.y_train[rest]]
    return Dataset(
        x_train=_read_only(np.concatenate(images)),
        y_train=_read_only(np.concatenate(labels)),
        x_test=base.x_test,
        y_test=base.y_test,
        image_shape=base.image_shape,
    )


def _read_batch(batch: Batch, folder: Path) -> tuple[Array, Array]:
    content = _bytes(folder / batch.file)
    if hashlib.sha256(content).hexdigest() != batch.sha256:
        message = f"{batch.file} is damaged; bring it back from a backup"
        raise DatasetError(message)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return unpack_array(archive, "x"), unpack_array(archive, "y")


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


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


# --- Registry ---

BUNDLED: Mapping[str, Bundled] = {
    "mnist": Bundled(
        digests={
            "train-images-idx3-ubyte.gz": (
                "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971"
            ),
            "train-labels-idx1-ubyte.gz": (
                "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b"
            ),
        },
        read=_read_mnist,
    ),
}
FORMATS: Mapping[str, Callable[[bytes, int, Path], Dataset]] = {
    ".npz": _read_npz,
    ".version": _read_version,
}


# --- Slices ---


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


# --- Whether a config fits a dataset ---


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

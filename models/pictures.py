"""Pictures from outside: one PNG file, and a dataset that is a folder of them.

The folder is the form in which notMNIST comes: ``notMNIST_large/A`` to ``J`` for training,
``notMNIST_small/A`` to ``J`` for testing; ``train`` and ``test`` are taken as well.
"""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.images import Array, Dataset, DatasetError, read_only
from models.sources import Source, refuse_change

PARTS = (("notMNIST_large", "notMNIST_small"), ("train", "test"))
SIZE = (28, 28)


class PictureError(ValueError):
    """A picture is damaged, no PNG, or of another form; one line of text."""


class _File(NamedTuple):
    """One file of the folder as it is listed, without its content."""

    label: int
    name: str
    size: int
    changed: int


@dataclass(frozen=True)
class PictureFolder:
    """A dataset of 28 x 28 greyscale PNG files in folders named by class.

    The classes are the folders' names in sorted order, so ``A`` is 0. Rows are in the order of the
    SHA-256 of ``class/name``: the first rows are of all classes, and a new file moves no other.
    What cannot be read is left out and counted; so is a training image whose pixels are also those
    of a test image.

    Its source is a hash of the names, sizes and modification times of all files, because reading
    half a million of them takes a minute. So a copy of the folder is another source: it is read
    once more, and as the images read are the same, nothing after that runs again. A file whose
    content was changed behind its size and its time goes unnoticed; ``--refresh load-dataset``
    reads everything. A dataset that is to grow every night is better kept as an ``.npz``, whose
    source does not depend on times.

    Attributes:
        name: What the user calls it.
        train: The folder of the training classes.
        test: The folder of the test classes.
    """

    name: str
    train: Path
    test: Path

    def identify(self) -> Source:
        """See ``Material``; looks at no file's content."""
        return self._source([self._list(self.train), self._list(self.test)])

    def read(self, limit: int, expected: Source | None) -> Dataset:
        """See ``Material``."""
        listed = [self._list(self.train), self._list(self.test)]
        refuse_change(self.name, self._source(listed), expected)
        skipped: Counter[str] = Counter(unreadable=0, duplicates=0)
        x_test, y_test = self._read_part(self.test, listed[1], limit, skipped)
        x_train, y_train = self._read_part(self.train, listed[0], limit, skipped)
        unseen = _not_among(x_train, x_test)
        skipped["duplicates"] = int(np.count_nonzero(~unseen))
        if not unseen.any():
            message = f"dataset {self.name}: every training image is a test image too"
            raise DatasetError(message)
        return Dataset(
            x_train=read_only(x_train[unseen]),
            y_train=read_only(y_train[unseen]),
            x_test=read_only(x_test),
            y_test=read_only(y_test),
            image_shape=SIZE,
            skipped=dict(skipped),
        )

    def _list(self, folder: Path) -> list[_File]:
        """Every file of a part, in the order of the rows."""
        try:
            files = [
                _File(label, f"{name}/{entry.name}", entry.stat().st_size, entry.stat().st_mtime_ns)
                for label, name in enumerate(self._classes())
                for entry in _files(folder / name)
            ]
        except OSError as error:
            message = f"dataset {self.name}: {error.filename}: {error.strerror}"
            raise DatasetError(message) from error
        return sorted(files, key=lambda file: hashlib.sha256(os.fsencode(file.name)).digest())

    def _classes(self) -> list[str]:
        train, test = (_folders(part) for part in (self.train, self.test))
        if train != test:
            odd = ", ".join(sorted(set(train) ^ set(test)))
            message = (
                f"dataset {self.name}: only one of {self.train.name} and {self.test.name} has {odd}"
            )
            raise DatasetError(message)
        if not train:
            message = f"dataset {self.name}: {self.train} has no folders named by class"
            raise DatasetError(message)
        return train

    def _source(self, parts: Sequence[Sequence[_File]]) -> Source:
        listings = {}
        for role, files in zip(("train", "test"), parts, strict=True):
            lines = (f"{file.name}\0{file.size}\0{file.changed}\n" for file in files)
            listings[role] = hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
        return Source(kind="pictures", files=listings)

    def _read_part(
        self, folder: Path, files: Sequence[_File], limit: int, skipped: Counter[str]
    ) -> tuple[Array, Array]:
        """The first readable images, (rows, columns), and their classes, (rows,)."""
        wanted = min(limit or len(files), len(files))
        images = np.empty((wanted, SIZE[0] * SIZE[1]), np.uint8)
        labels = np.empty(wanted, np.int64)
        rows, reason = 0, "it is empty"
        for file in files:
            if rows == wanted:
                break
            try:
                images[rows] = read_grey(self._content(folder / file.name), [SIZE]).reshape(-1)
            except PictureError as error:
                skipped["unreadable"] += 1
                reason = f"{file.name} {error}"
            else:
                labels[rows] = file.label
                rows += 1
        if not rows:
            message = f"dataset {self.name}: no image in {folder} can be read: {reason}"
            raise DatasetError(message)
        return images[:rows], labels[:rows]

    def _content(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            # Not one to leave out: tomorrow it may be readable, and nothing would tell.
            message = f"dataset {self.name}: {path}: {error.strerror}"
            raise DatasetError(message) from error


def locate_pictures(name: str, folder: Path) -> PictureFolder | None:
    """The dataset in a folder, if it has one of the pairs of folders for training and testing."""
    for train, test in PARTS:
        if os.path.isdir(folder / train) and os.path.isdir(folder / test):
            return PictureFolder(name, folder / train, folder / test)
    return None


def read_grey(content: bytes, sizes: Sequence[tuple[int, ...]]) -> Array:
    """The pixels of an 8-bit greyscale PNG, (height, width) of uint8.

    Args:
        content: The file's bytes.
        sizes: The heights and widths it may have; the first is what it should have.

    Raises:
        PictureError: If it is damaged, no PNG, or of another form.
    """
    # Imported here: what only checks arrays does not pay for it.
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            size, mode = (picture.height, picture.width), picture.mode
            # Before anything is unpacked: a small file can claim a picture of gigabytes.
            pixels = np.asarray(picture) if size in sizes and mode == "L" else None
    except Exception as error:  # Damage shows as half a dozen unrelated types.
        message = f"is no readable PNG: {str(error) or type(error).__name__}"
        raise PictureError(message) from None
    if pixels is None:
        wanted = " x ".join(map(str, sizes[0]))
        message = f"is {size[0]} x {size[1]}, mode {mode}; expected {wanted}, 8-bit greyscale"
        raise PictureError(message)
    return pixels


def _folders(part: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(part) if entry.is_dir())


def _files(folder: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in _entries(folder) if entry.is_file()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, but for hidden files."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _not_among(images: Array, others: Array) -> Array:
    """Which images have pixels that none of the others has, (rows,) of bool."""
    known = {hashlib.sha256(row).digest() for row in others}
    return np.array([hashlib.sha256(row).digest() not in known for row in images])

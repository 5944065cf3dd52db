"""Datasets: finding, identifying and loading them by the name in ``data.dataset``.

To add a dataset, write a function that gives a ``Material`` (most often ``Files``: where its files
lie, what their SHA-256 must be, and a function that parses them) and add an entry to ``NAMED``. To
add a form of file, do the same with ``FORMATS``; of folder, with ``FOLDERS``. No TensorFlow here.
"""

import difflib
import functools
import hashlib
import io
import os
import socket
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from models.idx import DIMENSIONS, locate_idx, read_idx, read_packed
from models.images import Array, Dataset, DatasetError, read_only
from models.letters import Letters
from models.npz import read_npz, unpack_array
from models.pictures import locate_pictures
from models.sources import Files, Material, Source

# A network that says nothing for so long is none.
NETWORK_SECONDS = 20.0


def find_dataset(name: str) -> Source:
    """Identifies a dataset, without unpacking more of it than that takes.

    Args:
        name: A dataset's name, or the path of a file or a folder.

    Raises:
        DatasetError: If it is unknown or missing, or a file of known content is damaged.
    """
    return locate(name).identify()


def load_dataset(name: str, limit: int = 0, source: Source | None = None) -> Dataset:
    """Reads a dataset and checks it, published ones against their known SHA-256.

    Args:
        name: A dataset's name, or the path of a file or a folder.
        limit: Keep only the first rows for training and for testing; 0 keeps all.
        source: What ``find_dataset`` said; if given, the dataset must still be the same.

    Raises:
        DatasetError: If it is missing, damaged, changed, or not of the right form.
    """
    if limit < 0:
        message = f"limit = {limit}: must be 0 (all rows) or more"
        raise DatasetError(message)
    return locate(name).read(limit, source)


def fetch_dataset(name: str) -> Source:
    """Gets a dataset from the network if it is not on this machine; nothing else ever does.

    Args:
        name: A dataset of ``FETCHERS``.

    Returns:
        What has been checked to be there now.

    Raises:
        DatasetError: If it cannot be had, or what there is is damaged.
    """
    try:
        locate(name)
    except DatasetError as missing:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(NETWORK_SECONDS)
        try:
            FETCHERS[name]()
        except Exception as error:  # Keras raises plain exceptions when it cannot fetch.
            message = f"cannot be fetched: {' '.join(str(error).split())}; {missing}"
            raise DatasetError(message) from error
        finally:
            socket.setdefaulttimeout(before)
    return find_dataset(name)


def locate(name: str) -> Material:
    """Finds a dataset by its name or path, and reads nothing of it.

    Raises:
        DatasetError: If there is none.
    """
    if name in NAMED:
        return NAMED[name]()
    # Unlike Path.expanduser, this leaves a user nobody knows as it is.
    path = Path(os.path.expanduser(name))
    if path.suffix.lower() in FORMATS:
        return FORMATS[path.suffix.lower()](name, path)
    # Not path.is_dir, which fails where a folder may not be looked into or a name is too long.
    if name and os.path.isdir(path):
        found = (recognise(name, path) for recognise in FOLDERS)
        material = next(filter(None, found), None)
        if material is None:
            message = f"dataset {name}: the folder holds neither {FOLDER_FORMS}"
            raise DatasetError(message)
        return material
    close = difflib.get_close_matches(name.lower(), NAMED, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(NAMED)};"
    message = (
        f"unknown dataset '{name}'; {hint} "
        f"a path must be a folder or a file whose name ends in {', '.join(FORMATS)}"
    )
    raise DatasetError(message)


# --- Published datasets ---

MNIST_DIGESTS = {
    "train-images-idx3-ubyte.gz": (
        "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971"
    ),
    "train-labels-idx1-ubyte.gz": (
        "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203"
    ),
    "t10k-images-idx3-ubyte.gz": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "t10k-labels-idx1-ubyte.gz": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
}
# Of what the gzipped files hold: Debian has packed them anew, so its files are other bytes than
# those of Zalando, which Keras hands on. Debian's differ from the published ones only in the name
# and the time in the gzip header: with those put back, their MD5 is the published one.
FASHION_MNIST_DIGESTS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class Place(NamedTuple):
    """A folder where a dataset's files may lie, and what mends them if they are damaged."""

    folder: Path
    mend: str


def bundled_mnist(folder: Path) -> Files:
    """MNIST as it comes with the project.

    Args:
        folder: Where the four gzipped files lie.
    """
    return Files(
        name="mnist",
        kind="mnist",
        paths={file: folder / file for file in MNIST_DIGESTS},
        parse=read_packed,
        known=MNIST_DIGESTS,
        mend=_how_to_mend("mnist"),
    )


def locate_published(
    name: str, known: Mapping[str, str], places: Sequence[Place], missing: str
) -> Files:
    """A dataset of four IDX files that is not bundled, in the first folder that has them all.

    Args:
        name: What the user calls it.
        known: SHA-256 of what each file holds, unpacked.
        places: Where to look, in this order.
        missing: What to do if no place has it.

    Raises:
        DatasetError: If no place has it.
    """
    for folder, mend in places:
        paths = locate_idx(folder)
        if paths:
            return Files(name, name, paths, read_idx, known, unpacked=True, mend=mend)
    looked = " and ".join(str(place.folder) for place in places)
    message = f"dataset {name}: not in {looked}; {missing}"
    raise DatasetError(message)


def _find_mnist() -> Files:
    return bundled_mnist(_bundled_folder("mnist"))


def _find_fashion_mnist() -> Files:
    home = os.environ.get("KERAS_HOME") or "~/.keras"
    cache = Path(os.path.expanduser(home)) / "datasets" / "fashion-mnist"
    return locate_published(
        "fashion-mnist",
        FASHION_MNIST_DIGESTS,
        [
            Place(DEBIAN_FASHION_MNIST, "apt install --reinstall dataset-fashion-mnist"),
            Place(cache, "remove it, then: headstart fetch fashion-mnist"),
        ],
        missing=(
            "apt install dataset-fashion-mnist (Debian, Ubuntu), or headstart fetch fashion-mnist "
            "(needs a network), or put its four .gz files into the latter"
        ),
    )


def _fetch_fashion_mnist() -> None:
    import keras

    keras.datasets.fashion_mnist.load_data()


def _bundled_folder(name: str) -> Path:
    # A wheel carries data/ inside this package; a checkout has it beside the package.
    here = Path(__file__).resolve().parent
    installed = here / "data" / name
    return installed if installed.is_dir() else here.parent / "data" / name


def _how_to_mend(name: str) -> str:
    if (Path(__file__).resolve().parent / "data").is_dir():
        return "install headstart again"
    return f"restore it from the repository: git checkout -- data/{name}"


# --- Files and folders of one's own ---


def _open_npz(name: str, path: Path) -> Files:
    return Files(name, "npz", {"npz": path}, _parse_npz)


def _parse_npz(files: Mapping[str, bytes], limit: int) -> Dataset:
    return read_npz(files["npz"], limit)


def _open_idx(name: str, folder: Path) -> Files | None:
    paths = locate_idx(folder)
    return Files(name, "idx", paths, read_idx, unpacked=True) if paths else None


# --- Datasets that grow ---


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


def _open_version(name: str, path: Path) -> Files:
    parse = functools.partial(_read_version, folder=path.parent)
    return Files(name, "version", {"version": path}, parse)


def _read_version(files: Mapping[str, bytes], limit: int, folder: Path) -> Dataset:
    """Reads a version; the limit is for the base, what has joined counts in full."""
    try:
        version = Version.model_validate_json(files["version"])
    except ValidationError:
        message = "is no dataset version"
        raise DatasetError(message) from None
    base = load_dataset(version.base, limit, version.source)
    batches = [_read_batch(batch, folder) for batch in version.batches]
    held, rest = slice(version.held), slice(version.held, None)
    images = [base.x_train[held], *(x for x, _ in batches), base.x_train[rest]]
    added = [y.astype(base.y_train.dtype) for _, y in batches]
    labels = [base.y_train[held], *added, base.y_train[rest]]
    return replace(
        base,
        x_train=read_only(np.concatenate(images)),
        y_train=read_only(np.concatenate(labels)),
    )


def _read_batch(batch: Batch, folder: Path) -> tuple[Array, Array]:
    try:
        content = (folder / batch.file).read_bytes()
    except OSError as error:
        message = f"{batch.file}: {error.strerror}; bring it back from a backup"
        raise DatasetError(message) from error
    if hashlib.sha256(content).hexdigest() != batch.sha256:
        message = f"{batch.file} is damaged; bring it back from a backup"
        raise DatasetError(message)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return unpack_array(archive, "x"), unpack_array(archive, "y")


# --- Registry ---

NAMED: Mapping[str, Callable[[], Material]] = {
    "mnist": _find_mnist,
    "fashion-mnist": _find_fashion_mnist,
    "letters": Letters,
}
# What can be had from the network when it is asked for, by name.
FETCHERS: Mapping[str, Callable[[], None]] = {"fashion-mnist": _fetch_fashion_mnist}
FORMATS: Mapping[str, Callable[[str, Path], Material]] = {
    ".npz": _open_npz,
    ".version": _open_version,
}
FOLDERS: Sequence[Callable[[str, Path], Material | None]] = (_open_idx, locate_pictures)
FOLDER_FORMS = (
    f"{', '.join(DIMENSIONS)} (gzipped or not) "
    "nor folders train and test, or notMNIST_large and notMNIST_small, of classes of PNG files"
)

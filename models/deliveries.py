"""Reading images that come from outside: bytes in, rows out, nothing trusted.

A delivery is a folder of PNG files whose folders are named by class, an ``.npz`` of ``x`` and
``y``, or a CSV or Parquet table with a column ``label`` and one column for each pixel. What is
wrong with one image costs that image; what leaves no way to read the rest refuses the delivery.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.images import DatasetError
from models.npz import unpack_array
from models.pictures import PictureError, read_grey

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

# More than this is no night's delivery; a zip archive can claim any size in a few bytes.
MOST_BYTES = 2**31
# No class: a label that could not be read.
NO_LABEL = -1
PAIRS = (("x", "y"), ("images", "labels"), ("x_train", "y_train"))
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


class DeliveryError(ValueError):
    """A delivery cannot be read at all; one line of text."""


class ReaderMissing(DeliveryError):
    """A delivery cannot be read on this machine, through no fault of its own."""


@dataclass(frozen=True)
class Form:
    """What images must look like to join a dataset.

    Attributes:
        image_shape: Height and width, or a number of columns.
        pixels: ``uint8`` or ``float32``.
    """

    image_shape: tuple[int, ...]
    pixels: str

    @property
    def columns(self) -> int:
        """Pixels of one image."""
        return int(np.prod(self.image_shape))


@dataclass(frozen=True, eq=False)
class Delivery:
    """Images as they came, in the form of the dataset.

    Attributes:
        images: (rows, columns), of the form's type; zeros where an image could not be read.
        labels: Classes as delivered, (rows,), int64.
        names: What each row is called in the delivery: a file's name or ``row 17``.
        problems: What is wrong with each row; empty where nothing is.
    """

    images: Array
    labels: Array
    names: tuple[str, ...]
    problems: tuple[str, ...]


def read_delivery(files: Mapping[str, bytes], form: Form, labelled: bool = True) -> Delivery:
    """Reads what was delivered.

    Args:
        files: Content of each file, by its path in the inbox.
        form: What the images must look like.
        labelled: Whether each image must come with its class.

    Raises:
        DeliveryError: If nothing of it can be read, or it is an archive.
        ReaderMissing: If this machine lacks what reads it.
    """
    names = sorted(files)
    if len(names) == 1 and (suffix := PurePosixPath(names[0]).suffix.lower()) != ".png":
        if suffix not in TABLES:
            raise DeliveryError(_unknown(suffix))
        return TABLES[suffix](files[names[0]], form, labelled)
    strangers = [name for name in names if not name.lower().endswith(".png")]
    if strangers or not names:
        msg = (
            f"{strangers[0]} is no PNG; a folder holds PNG files only" if strangers else "is empty"
        )
        raise DeliveryError(msg)
    return _read_folder(files, names, form, labelled)


def _unknown(suffix: str) -> str:
    if suffix in ARCHIVES:
        return f"is an archive ({suffix}); archives are not unpacked: deliver a folder or an .npz"
    takes = ", ".join([".png", *TABLES])
    return f"ends in {suffix or 'nothing'}; the inbox takes {takes}"


def _read_folder(
    files: Mapping[str, bytes], names: list[str], form: Form, labelled: bool
) -> Delivery:
    images = np.zeros((len(names), form.columns), form.pixels)
    labels = np.full(len(names), NO_LABEL, np.int64)
    problems = [""] * len(names)
    for row, name in enumerate(names):
        try:
            if labelled:
                labels[row] = _folder_class(name)
            images[row] = read_png(files[name], form)
        except DeliveryError as error:
            problems[row] = str(error)
    return Delivery(images, labels, tuple(names), tuple(problems))


def _folder_class(name: str) -> int:
    folder = PurePosixPath(name).parent.name
    if not (folder.isascii() and folder.isdigit() and len(folder) < 10):
        msg = f"lies in folder {folder!r}, which names no class; call it by a number such as 5"
        raise DeliveryError(msg)
    return int(folder)


def read_png(content: bytes, form: Form) -> Array:
    """One greyscale picture as a row, (columns,).

    Raises:
        DeliveryError: If it is damaged, no PNG, or of another form.
    """
    if form.pixels != "uint8":
        msg = f"is a picture of bytes; this dataset holds {form.pixels}: deliver an .npz"
        raise DeliveryError(msg)
    try:
        return read_grey(content, [form.image_shape, (1, form.columns)]).reshape(-1)
    except PictureError as error:
        raise DeliveryError(str(error)) from None


def _read_npz(content: bytes, form: Form, labelled: bool) -> Delivery:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            images, labels = _unpack_pair(archive, labelled)
    except zipfile.BadZipFile:
        msg = "is no .npz file or is cut short"
        raise DeliveryError(msg) from None
    except DatasetError as error:
        raise DeliveryError(str(error)) from None
    return _from_arrays(images, labels, form)


def _unpack_pair(archive: zipfile.ZipFile, labelled: bool) -> tuple[Array, Array | None]:
    members = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    climbing = [name for name in members if "/" in name or "\\" in name]
    if climbing:
        msg = f"has a member {climbing[0]!r}, whose name leads out of the file"
        raise DeliveryError(msg)
    if sum(members.values()) > MOST_BYTES:
        msg = f"unpacks to more than {MOST_BYTES} bytes"
        raise DeliveryError(msg)
    for images, labels in PAIRS:
        if images in members and (labels in members or not labelled):
            found = unpack_array(archive, labels) if labels in members else None
            return unpack_array(archive, images), found
    msg = f"has {', '.join(members) or 'nothing'}; expected x and y"
    raise DeliveryError(msg)


def _read_csv(content: bytes, form: Form, labelled: bool) -> Delivery:
    import pandas as pd

    try:
        table = pd.read_csv(io.BytesIO(content))
    except Exception as error:  # Damage shows as half a dozen unrelated types.
        msg = f"is no readable CSV: {str(error).partition(chr(10))[0]}"
        raise DeliveryError(msg) from None
    return _from_table(table, form, labelled)


def _read_parquet(content: bytes, form: Form, labelled: bool) -> Delivery:
    import pandas as pd

    try:
        table = pd.read_parquet(io.BytesIO(content))
    except ImportError:
        msg = "is Parquet, which needs pyarrow: pip install pyarrow, or deliver CSV or .npz"
        raise ReaderMissing(msg) from None
    except Exception as error:  # Damage shows as half a dozen unrelated types.
        msg = f"is no readable Parquet: {str(error).partition(chr(10))[0]}"
        raise DeliveryError(msg) from None
    return _from_table(table, form, labelled)


def _from_table(table: "pd.DataFrame", form: Form, labelled: bool) -> Delivery:
    import pandas as pd

    if labelled and "label" not in table.columns:
        msg = f"has no column label; it has {', '.join(map(str, table.columns[:5]))}, ..."
        raise DeliveryError(msg)
    # A cell that is no number becomes one that is not finite: a fault of its row alone.
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    labels = numbers.pop("label").to_numpy() if "label" in numbers else None
    return _from_arrays(numbers.to_numpy(), labels, form)


def _from_arrays(images: Array, labels: Array | None, form: Form) -> Delivery:
    rows = len(images) if images.ndim else 0
    if labels is None:
        labels = np.zeros(rows)
    if images.shape[1:] not in (form.image_shape, (form.columns,)) or not rows:
        wanted = ", ".join(map(str, form.image_shape))
        msg = f"has images of shape {images.shape}; expected (rows, {wanted})"
        raise DeliveryError(msg)
    if labels.shape != (rows,):
        msg = f"has {rows} images and labels of shape {labels.shape}"
        raise DeliveryError(msg)
    if images.dtype.kind not in "iuf" or labels.dtype.kind not in "iuf":
        msg = f"holds {images.dtype} images and {labels.dtype} labels; expected numbers"
        raise DeliveryError(msg)
    flat = images.reshape(rows, -1)
    whole = np.isfinite(labels) & (labels == np.floor(labels)) & (np.abs(labels) < 2**31)
    problems = np.where(whole, _pixel_problems(flat, form), "has no whole number for a label")
    fine = problems == ""
    pixels = np.zeros((rows, form.columns), form.pixels)
    pixels[fine] = flat[fine]
    return Delivery(
        images=pixels,
        labels=np.where(whole, labels, NO_LABEL).astype(np.int64),
        names=tuple(f"row {row}" for row in range(rows)),
        problems=tuple(map(str, problems)),
    )


def _pixel_problems(images: Array, form: Form) -> Array:
    """What keeps each row from the form's type, (rows,), empty texts where nothing does."""
    problems = np.full(len(images), "", dtype=object)
    if images.dtype == form.pixels:
        values: Array = images
    elif form.pixels == "uint8":
        values = images.astype(np.float64)
        problems[(values != np.floor(values)).any(axis=1)] = (
            "has pixels that are no whole numbers; this dataset holds bytes 0 to 255"
        )
        outside = (values < 0) | (values > 255)
        problems[outside.any(axis=1)] = "has pixels below 0 or above 255"
    else:
        with np.errstate(over="ignore"):  # Beyond float32 is not finite there.
            values = images.astype(np.float32)
    problems[~np.isfinite(values).all(axis=1)] = "has pixels that are not finite numbers"
    return problems


TABLES: Mapping[str, Callable[[bytes, Form, bool], Delivery]] = {
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}

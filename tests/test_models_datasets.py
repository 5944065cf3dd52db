"""Datasets: what is loaded is right, and what is wrong is refused in one clear line."""

import gzip
import hashlib
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from models import datasets
from models.config import ConfigError, Data
from models.datasets import (
    DatasetError,
    Slice,
    as_float,
    check_classes,
    find_dataset,
    first_of_each,
    load_dataset,
    split_classes,
)

ROOT = Path(__file__).parent.parent
MNIST = ROOT / "data" / "mnist"


@pytest.fixture(scope="module")
def mnist():
    return load_dataset("mnist")


@pytest.fixture
def mnist_copy(tmp_path, monkeypatch):
    """A copy of the bundled files that may be damaged."""
    folder = tmp_path / "mnist"
    shutil.copytree(MNIST, folder)
    monkeypatch.setattr(datasets, "_bundled_folder", lambda name: tmp_path / name)
    return folder


def arrays(**changes):
    """A small valid dataset of 3 x 2 images; None leaves an array out."""
    rng = np.random.default_rng(0)
    valid = {
        "x_train": rng.integers(0, 256, (6, 3, 2), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (3, 3, 2), dtype=np.uint8),
        "y_test": np.array([0, 1, 2]),
    }
    return {name: array for name, array in {**valid, **changes}.items() if array is not None}


@pytest.fixture
def npz(tmp_path):
    def write(**changes) -> str:
        path = tmp_path / "own.npz"
        np.savez(path, **arrays(**changes))
        return str(path)

    return write


def refusal(name: str) -> str:
    """The one line said about a dataset that cannot be loaded."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- MNIST ---


def test_mnist_has_the_published_shapes(mnist):
    assert (mnist.x_train.shape, mnist.x_train.dtype) == ((60000, 784), np.uint8)
    assert (mnist.x_test.shape, mnist.x_test.dtype) == ((10000, 784), np.uint8)
    assert (mnist.y_train.shape, mnist.y_test.shape) == ((60000,), (10000,))
    assert mnist.image_shape == (28, 28)


def test_mnist_is_the_published_one_bit_by_bit(mnist):
    """SHA-256 of the unpacked files, of which the headers are 16 and 8 bytes."""
    published = {
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db": mnist.x_train,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5": mnist.y_train,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7": mnist.x_test,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2": mnist.y_test,
    }
    for digest, array in published.items():
        sizes = [len(array), 28, 28] if array.ndim == 2 else [len(array)]
        header = bytes([0, 0, 8, len(sizes)]) + np.array(sizes, ">i4").tobytes()
        assert hashlib.sha256(header + array.tobytes()).hexdigest() == digest


def test_the_checksum_file_agrees_with_the_code():
    listed = dict(
        reversed(line.split()) for line in (MNIST / "SHA256SUMS").read_text().splitlines()
    )
    assert listed == datasets.BUNDLED["mnist"].digests
    readme = (MNIST / "README.md").read_text()
    for file, digest in listed.items():
        assert digest in readme
        assert hashlib.sha256(gzip.decompress((MNIST / file).read_bytes())).hexdigest() in readme


def test_a_limit_keeps_the_first_rows(mnist):
    few = load_dataset("mnist", limit=50)
    assert np.array_equal(few.x_train, mnist.x_train[:50])
    assert np.array_equal(few.y_train, mnist.y_train[:50])
    assert np.array_equal(few.x_test, mnist.x_test[:50])
    assert np.array_equal(few.y_test, mnist.y_test[:50])


def test_a_limit_beyond_the_end_keeps_all():
    assert len(load_dataset("mnist", limit=10**9).x_train) == 60000


def test_a_negative_limit_is_refused():
    with pytest.raises(DatasetError, match="limit = -1"):
        load_dataset("mnist", limit=-1)


def test_mnist_loads_in_well_under_a_second():
    start = time.perf_counter()
    load_dataset("mnist")
    assert time.perf_counter() - start < 1  # 0.12 s on a quiet machine.


def test_loaded_arrays_cannot_be_written_to(mnist, npz):
    for dataset in (mnist, load_dataset(npz())):
        for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
            assert not array.flags.writeable


def test_finding_mnist_states_the_digest_of_each_file():
    source = find_dataset("mnist")
    assert source.kind == "mnist"
    assert source.files == datasets.BUNDLED["mnist"].digests
    assert type(source).model_validate_json(source.model_dump_json()) == source


@pytest.mark.parametrize("act", [find_dataset, load_dataset])
@pytest.mark.parametrize("file", sorted(datasets.BUNDLED["mnist"].digests))
def test_a_flipped_bit_in_mnist_is_found(mnist_copy, file, act):
    content = bytearray((mnist_copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (mnist_copy / file).write_bytes(content)
    with pytest.raises(DatasetError, match=rf"damaged .*{file}; .*git checkout -- data/mnist"):
        act("mnist")


@pytest.mark.parametrize("act", [find_dataset, load_dataset])
@pytest.mark.parametrize("length", [0, 1, 1000])
def test_a_file_of_mnist_cut_short_is_found(mnist_copy, length, act):
    file = mnist_copy / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DatasetError, match=r"damaged .*train-images"):
        act("mnist")


@pytest.mark.parametrize("act", [find_dataset, load_dataset])
def test_a_missing_file_of_mnist_is_found(mnist_copy, act):
    (mnist_copy / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match=r"t10k-labels.*: No such file.*git checkout"):
        act("mnist")


# --- Files of one's own ---


def test_an_npz_is_loaded_as_it_is(npz):
    given, dataset = arrays(), load_dataset(npz())
    assert np.array_equal(dataset.x_train, given["x_train"].reshape(6, 6))
    assert np.array_equal(dataset.x_test, given["x_test"].reshape(3, 6))
    assert np.array_equal(dataset.y_train, given["y_train"])
    assert np.array_equal(dataset.y_test, given["y_test"])
    assert dataset.image_shape == (3, 2)


def test_flat_images_are_loaded(npz):
    given = arrays()
    flat = {name: given[name].reshape(len(given[name]), -1) for name in ("x_train", "x_test")}
    assert load_dataset(npz(**flat)).image_shape == (6,)


def test_a_compressed_npz_in_column_order_is_loaded(tmp_path):
    given = arrays()
    path = tmp_path / "own.npz"
    np.savez_compressed(path, **{name: np.asfortranarray(array) for name, array in given.items()})
    assert np.array_equal(load_dataset(str(path)).x_train, given["x_train"].reshape(6, 6))


@pytest.mark.parametrize("kind", ["<f4", ">f4", "f8", "f2"])
def test_floats_become_float32(npz, kind):
    given = {name: (arrays()[name] / 255).astype(kind) for name in ("x_train", "x_test")}
    dataset = load_dataset(npz(**given))
    assert dataset.x_train.dtype == np.float32
    assert np.array_equal(dataset.x_train, given["x_train"].astype(np.float32).reshape(6, 6))


def test_wide_integers_within_a_byte_become_bytes(npz):
    given = {name: arrays()[name].astype(np.int64) for name in ("x_train", "x_test")}
    assert load_dataset(npz(**given)).x_train.dtype == np.uint8


def test_a_limit_holds_for_a_file(npz):
    dataset = load_dataset(npz(), limit=2)
    assert (len(dataset.x_train), len(dataset.y_train), len(dataset.x_test)) == (2, 2, 2)


def test_a_source_is_the_content_not_the_place(npz, tmp_path):
    first = Path(npz())
    moved = first.rename(tmp_path / "another name.NPZ")
    source = find_dataset(str(moved))
    assert source == find_dataset(npz())
    assert str(tmp_path) not in source.model_dump_json()
    assert find_dataset(npz(y_test=np.array([0, 1, 1]))) != source


def test_bytes_that_changed_since_they_were_found_are_refused(npz):
    source = find_dataset(npz())
    with pytest.raises(DatasetError, match="its bytes have changed"):
        load_dataset(npz(y_test=np.array([0, 1, 1])), source=source)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x_test": None, "y_test": None}, "lacks x_test, y_test; it has x_train, y_train"),
        ({"x_train": np.zeros(6, np.uint8)}, "x_train has shape (6,); expected (rows, height"),
        ({"x_train": np.zeros((6, 3, 2, 1), np.uint8)}, "x_train has shape (6, 3, 2, 1);"),
        ({"x_train": np.float32(1)}, "x_train has shape ();"),
        ({"x_train": np.zeros((0, 3, 2), np.uint8)}, "x_train has shape (0, 3, 2): no images"),
        ({"x_train": np.zeros((6, 0), np.uint8)}, "x_train has shape (6, 0): no images"),
        ({"x_train": np.zeros((6, 3, 3), np.uint8)}, "x_train are (3, 3) but of x_test (3, 2)"),
        ({"x_train": np.zeros((6, 3, 2), bool)}, "x_train is bool; expected uint8 or floats"),
        ({"x_train": np.zeros((6, 3, 2), complex)}, "x_train is complex128; expected"),
        ({"x_train": np.full((6, 3, 2), "a")}, "x_train is <U1; expected"),
        ({"x_train": np.full((6, 3, 2), 256)}, "x_train has whole numbers from 256 to 256"),
        ({"x_train": np.full((6, 3, 2), -1)}, "x_train has whole numbers from -1 to -1"),
        ({"x_train": np.zeros((6, 3, 2), np.float32)}, "x_train is float32 but x_test uint8"),
        ({"x_train": np.full((6, 3, 2), np.nan)}, "not finite float32 numbers in 6 rows, first"),
        ({"x_train": np.full((6, 3, 2), np.inf)}, "not finite float32 numbers"),
        ({"x_train": np.full((6, 3, 2), 1e300)}, "not finite float32 numbers"),
        ({"y_train": np.zeros((6, 1), int)}, "y_train has shape (6, 1); expected (rows,)"),
        ({"y_train": np.zeros(6)}, "y_train is float64; labels must be integers"),
        ({"y_train": np.zeros(6, bool)}, "y_train is bool; labels must be integers"),
        ({"y_train": np.array(list("abcdef"))}, "y_train is <U1; labels must be integers"),
        ({"y_train": np.full(6, -1)}, "y_train has labels below 0"),
        ({"y_train": np.full(6, 2**64 - 1, np.uint64)}, "or beyond 64 bits"),
        ({"y_train": np.zeros(5, int)}, "x_train has 6 images but y_train 5 labels"),
        ({"y_test": np.zeros(0, int)}, "x_test has 3 images but y_test 0 labels"),
        ({"y_train": np.array([0, "a", None, 1, 2, 3], object)}, "y_train holds Python objects"),
    ],
)
def test_wrong_arrays_are_refused(npz, changes, reason):
    path = npz(**changes)
    said = refusal(path)
    assert said.startswith(f"dataset {path}: ")
    assert reason in said


def test_one_nan_pixel_is_found_and_its_row_named(npz):
    images = {name: (arrays()[name] / 255).astype(np.float32) for name in ("x_train", "x_test")}
    images["x_train"][4, 1, 1] = np.nan
    assert "x_train has pixels that are not finite float32 numbers in 1 rows, first in row 4" in (
        refusal(npz(**images))
    )


def test_objects_are_refused_without_running_them(tmp_path, npz):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    assert "Python objects" in refusal(npz(x_train=np.array([Trap()] * 6, object)))
    assert not (tmp_path / "sprung").exists()


def test_every_truncation_of_an_npz_is_refused(npz):
    path = Path(npz())
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert refusal(str(path)).startswith(f"dataset {path}: ")


def test_a_flipped_bit_in_an_npz_is_refused_or_harmless(npz):
    path = Path(npz())
    content, whole = path.read_bytes(), load_dataset(str(path))
    refusals = []
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            dataset = load_dataset(str(path))
        except DatasetError as error:
            refusals.append(str(error))
        else:  # The bit is one of a time stamp or a permission.
            for name in ("x_train", "y_train", "x_test", "y_test"):
                assert np.array_equal(getattr(dataset, name), getattr(whole, name))
    assert len(refusals) > len(content) / 3 / 2
    assert not any("\n" in text for text in refusals)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not an .npz file"),
        (b"\x00" * 100, "is not an .npz file"),
        (b"PK\x03\x04 and then nothing", "is not an .npz file or is cut short"),
        (b"\x93NUMPY\x01\x00", "is not an .npz file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, reason):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    assert reason in refusal(str(path))


def test_a_zip_of_other_things_is_refused(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in datasets.ARRAYS:
            archive.writestr(f"{name}.npy", b"no array")
    assert "x_train is damaged: " in refusal(str(path))


def test_an_array_that_claims_to_be_huge_is_refused(tmp_path):
    path = tmp_path / "own.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 784), }"
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in datasets.ARRAYS:
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00v\x00" + header)
    assert "x_train is damaged: " in refusal(str(path))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mnits", "unknown dataset 'mnits'; did you mean mnist?"),
        ("MNIST", "unknown dataset 'MNIST'; did you mean mnist?"),
        ("photos.tar", "unknown dataset 'photos.tar'; bundled: mnist; a file's name must end"),
        ("", "unknown dataset ''"),
        ("none/such.npz", "dataset file none/such.npz: No such file or directory"),
        ("a\0b.npz", "embedded null byte"),
    ],
)
@pytest.mark.parametrize("act", [find_dataset, load_dataset])
def test_unknown_names_are_refused(name, reason, act):
    with pytest.raises(DatasetError) as caught:
        act(name)
    assert reason in str(caught.value)


def test_a_folder_is_refused(tmp_path):
    folder = tmp_path / "own.npz"
    folder.mkdir()
    assert "Is a directory" in refusal(str(folder))


# --- Pixels ---


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


# --- Slices ---


def counts(split):
    return len(split.train.rows), len(split.validation.rows), len(split.test.rows)


def test_slices_have_the_published_sizes(mnist):
    data = Data()
    labels = mnist.y_train, mnist.y_test
    source = split_classes(*labels, data.source_classes, data.validation_rows)
    target = split_classes(*labels, data.target_classes, data.validation_rows)
    assert counts(source) == (28038, 2558, 5139)
    assert counts(target) == (26962, 2442, 4861)
    assert len(first_of_each(target.train, data.few_shot).rows) == 500
    assert len(first_of_each(target.validation, data.few_shot_validation).rows) == 150


@pytest.mark.parametrize("classes", [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (9, 2, 4)])
def test_a_label_is_the_position_of_its_class(mnist, classes):
    split = split_classes(mnist.y_train, mnist.y_test, classes, 5000)
    for part, labels in (
        (split.train, mnist.y_train),
        (split.validation, mnist.y_train),
        (split.test, mnist.y_test),
    ):
        assert np.array_equal(np.array(classes)[part.labels], labels[part.rows])
        assert (np.diff(part.rows) > 0).all()
    assert split.validation.rows.max() < 5000 <= split.train.rows.min()


def test_a_split_of_a_few_rows_is_exact():
    split = split_classes(np.array([3, 7, 1, 3, 7, 7]), np.array([7, 3]), (7, 3), 2)
    assert (split.validation.rows.tolist(), split.validation.labels.tolist()) == ([0, 1], [1, 0])
    assert (split.train.rows.tolist(), split.train.labels.tolist()) == ([3, 4, 5], [1, 0, 0])
    assert (split.test.rows.tolist(), split.test.labels.tolist()) == ([0, 1], [0, 1])


def test_the_first_few_of_each_class_are_taken_class_after_class():
    images = Slice(np.array([10, 11, 12, 13, 14, 15]), np.array([1, 0, 1, 1, 0, 0]))
    few = first_of_each(images, 2)
    assert few.rows.tolist() == [11, 14, 10, 12]
    assert few.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("labels", [[0, 0, 1], []])
def test_too_few_of_a_class_are_refused(labels):
    images = Slice(np.arange(len(labels)), np.array(labels, np.int64))
    with pytest.raises(DatasetError, match="2 images of each class are asked for"):
        first_of_each(images, 2)


@pytest.mark.parametrize(
    ("y_train", "y_test", "part"), [([1, 0, 0], [0, 1], "training"), ([1, 0, 1], [0], "test")]
)
def test_a_class_without_images_is_refused(y_train, y_test, part):
    with pytest.raises(DatasetError, match=f"class 1 has no {part} images"):
        split_classes(np.array(y_train), np.array(y_test), (0, 1), 1)


# --- Whether settings fit ---


def unfit(dataset, **settings) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        check_classes(dataset.y_train, dataset.y_test, Data(**settings))
    return caught.value.problems


def test_the_defaults_fit_mnist(mnist):
    check_classes(mnist.y_train, mnist.y_test, Data())


def test_a_class_that_mnist_lacks_is_named_with_those_it_has(mnist):
    assert unfit(mnist, target_classes=(5, 12)) == (
        "data.target_classes: class 12 has no images in mnist; it has 0 to 9",
    )


def test_all_misfits_are_stated_at_once(mnist):
    assert unfit(
        mnist,
        source_classes=(0, 300),
        target_classes=(5, 6),
        few_shot=5000,
        few_shot_validation=450,
    ) == (
        "data.source_classes: class 300 has no images in mnist; it has 0 to 9",
        "data.few_shot = 5000: class 5 has only 4987 training images",
        "data.few_shot_validation = 450: class 5 has only 434 validation images",
    )


def test_validation_must_leave_rows_for_training(mnist):
    assert unfit(mnist, validation_rows=60000) == (
        "data.validation_rows = 60000: there are only 60000 training rows",
    )


def test_validation_rows_without_any_source_class_are_refused(mnist):
    assert unfit(mnist, validation_rows=1, few_shot_validation=1, target_classes=(5, 6)) == (
        "data.validation_rows = 1: no image of the source classes is among them",
        "data.few_shot_validation = 1: class 6 has no validation images",
    )


def test_classes_must_be_in_both_files():
    labels = np.array([0, 1, 2, 3] * 4)
    settings = {"source_classes": (0, 1), "target_classes": (2, 3), "validation_rows": 4}
    data = Data(**settings, few_shot=1, few_shot_validation=1)
    check_classes(labels, np.arange(4), data)
    with pytest.raises(ConfigError, match="class 3 has no test images in mnist"):
        check_classes(labels, np.arange(3), data)
    with pytest.raises(ConfigError, match="class 1 has no training images in mnist"):
        check_classes(np.where(labels == 1, 0, labels), np.arange(4), data)


def test_pairs_need_two_source_classes_in_validation():
    labels = np.array([0, 1, 2, 3] * 4)
    settings = {"source_classes": (0, 1), "target_classes": (2, 3)}
    few = Data(**settings, few_shot=1, few_shot_validation=0, validation_rows=1)
    check_classes(labels, np.arange(4), few)
    with pytest.raises(ConfigError, match="only one source class are among them; pretrain.task"):
        check_classes(labels, np.arange(4), few, pairs=True)
    enough = few.model_copy(update={"validation_rows": 2})
    check_classes(labels, np.arange(4), enough, pairs=True)


def test_a_limit_is_named_where_it_is_the_reason(mnist):
    (first, *_) = unfit(load_dataset("mnist", 3), limit=3, validation_rows=1)
    assert first == (
        "data.source_classes: class 3 has no images in the first 3 rows of mnist; "
        "it has 0 to 2, 4 to 5, 7"
    )


def test_loading_does_not_import_tensorflow():
    code = "import sys, models.datasets; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

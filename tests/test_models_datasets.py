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
from models.datasets import MNIST_DIGESTS, bundled_mnist, fetch_dataset, find_dataset, load_dataset
from models.images import DatasetError
from models.npz import ARRAYS
from models.sources import Files

ROOT = Path(__file__).parent.parent
MNIST = ROOT / "data" / "mnist"


@pytest.fixture(scope="module")
def mnist():
    return load_dataset("mnist")


@pytest.fixture
def mnist_copy(tmp_path):
    """The bundled dataset with files that may be damaged."""
    shutil.copytree(MNIST, tmp_path / "mnist")
    return bundled_mnist(tmp_path / "mnist")


def read_all(dataset: Files) -> None:
    dataset.read(limit=0, expected=None)


ACTS = pytest.mark.parametrize("act", [Files.identify, read_all])


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
    assert listed == MNIST_DIGESTS
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
    assert source.files == MNIST_DIGESTS
    assert type(source).model_validate_json(source.model_dump_json()) == source


@ACTS
@pytest.mark.parametrize("file", sorted(MNIST_DIGESTS))
def test_a_flipped_bit_in_mnist_is_found(mnist_copy, file, act):
    path = mnist_copy.paths[file]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"damaged .*{file}; .*git checkout -- data/mnist"):
        act(mnist_copy)


@ACTS
@pytest.mark.parametrize("length", [0, 1, 1000])
def test_a_file_of_mnist_cut_short_is_found(mnist_copy, length, act):
    path = mnist_copy.paths["train-images-idx3-ubyte.gz"]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DatasetError, match=r"damaged .*train-images"):
        act(mnist_copy)


@ACTS
def test_a_missing_file_of_mnist_is_found(mnist_copy, act):
    mnist_copy.paths["t10k-labels-idx1-ubyte.gz"].unlink()
    with pytest.raises(DatasetError, match=r"t10k-labels.*: No such file.*git checkout"):
        act(mnist_copy)


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
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", b"no array")
    assert "x_train is damaged: " in refusal(str(path))


def test_an_array_that_claims_to_be_huge_is_refused(tmp_path):
    path = tmp_path / "own.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 784), }"
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00v\x00" + header)
    assert "x_train is damaged: " in refusal(str(path))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mnits", "unknown dataset 'mnits'; did you mean mnist?"),
        ("MNIST", "unknown dataset 'MNIST'; did you mean mnist?"),
        ("photos.tar", "unknown dataset 'photos.tar'; known: mnist, fashion-mnist,"),
        ("", "unknown dataset ''"),
        ("none/such.npz", "dataset file none/such.npz: No such file or directory"),
        ("a\0b.npz", "embedded null byte"),
        ("a\0b", "unknown dataset 'a\0b'"),
        ("a" * 5000, "unknown dataset 'aaa"),
        ("~nobody/none", "unknown dataset '~nobody/none'"),
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


def test_loading_does_not_import_tensorflow():
    code = "import sys, models.datasets; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- Fashion-MNIST ---


def test_fashion_mnist_is_looked_for_in_debians_folder_and_keras_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    cache = tmp_path / "keras" / "datasets" / "fashion-mnist"
    for act in (find_dataset, load_dataset):
        with pytest.raises(DatasetError) as caught:
            act("fashion-mnist")
        said = str(caught.value)
        assert said.startswith(f"dataset fashion-mnist: not in {tmp_path / 'debian'} and {cache}; ")
        assert "apt install dataset-fashion-mnist" in said
        assert "\n" not in said


def test_what_lies_in_keras_cache_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    cache = tmp_path / "keras" / "datasets" / "fashion-mnist"
    shutil.copytree(MNIST, cache)
    with pytest.raises(DatasetError, match=rf"damaged {cache}.*; remove it, then: headstart fetch"):
        find_dataset("fashion-mnist")


@pytest.mark.skipif(not datasets.DEBIAN_FASHION_MNIST.is_dir(), reason="not installed here")
def test_debians_fashion_mnist_is_the_published_one():
    fashion = load_dataset("fashion-mnist", source=find_dataset("fashion-mnist"))
    assert (fashion.x_train.shape, fashion.x_test.shape) == ((60000, 784), (10000, 784))
    assert np.bincount(fashion.y_train).tolist() == [6000] * 10
    assert np.bincount(fashion.y_test).tolist() == [1000] * 10


def test_fetching_what_is_there_asks_no_network(monkeypatch):
    monkeypatch.setitem(datasets.FETCHERS, "mnist", lambda: pytest.fail("went to the network"))
    assert fetch_dataset("mnist") == find_dataset("mnist")


def test_what_cannot_be_fetched_is_said_in_one_line_with_what_to_do(tmp_path, monkeypatch):
    def fail():
        message = "URL fetch failure:\n no network"
        raise OSError(message)

    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setitem(datasets.FETCHERS, "fashion-mnist", fail)
    with pytest.raises(DatasetError) as caught:
        fetch_dataset("fashion-mnist")
    said = str(caught.value)
    assert said.startswith("cannot be fetched: URL fetch failure: no network; dataset fashi")
    assert "\n" not in said


def test_what_was_fetched_is_checked(tmp_path, monkeypatch):
    cache = tmp_path / "datasets" / "fashion-mnist"
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setitem(datasets.FETCHERS, "fashion-mnist", lambda: shutil.copytree(MNIST, cache))
    with pytest.raises(DatasetError, match=rf"damaged {cache}"):
        fetch_dataset("fashion-mnist")

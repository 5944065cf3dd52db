"""IDX files: read as they are, and refused in one line where they are not what they promise."""

import gzip

import numpy as np
import pytest

from models.datasets import Place, find_dataset, load_dataset, locate_published
from models.idx import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from models.images import DatasetError
from models.sources import Files


def idx(array) -> bytes:
    array = np.asarray(array, np.uint8)
    sizes = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def contents() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {
        TRAIN_IMAGES: idx(rng.integers(0, 256, (4, 3, 2))),
        TRAIN_LABELS: idx([0, 1, 0, 1]),
        TEST_IMAGES: idx(rng.integers(0, 256, (2, 3, 2))),
        TEST_LABELS: idx([1, 0]),
    }


def write(folder, level=6, **changes):
    """Gzipped IDX files in a folder; None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**contents(), **changes}.items():
        if content is not None:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, level))
    return folder


def published(*folders) -> Files:
    """A dataset whose content is known, looked for in some folders."""
    known = find_dataset(str(write(folders[-1].parent / "original"))).files
    places = [Place(folder, f"mend {folder.name}") for folder in folders]
    return locate_published("tiny", known, places, missing="install tiny")


# --- A folder of one's own ---


def test_a_folder_of_gzipped_files_is_loaded(tmp_path):
    dataset = load_dataset(str(write(tmp_path)))
    given = np.frombuffer(contents()[TRAIN_IMAGES][16:], np.uint8).reshape(4, 6)
    assert np.array_equal(dataset.x_train, given)
    assert dataset.y_train.tolist() == [0, 1, 0, 1]
    assert dataset.y_test.tolist() == [1, 0]
    assert dataset.image_shape == (3, 2)
    assert not dataset.x_train.flags.writeable


def test_how_files_are_packed_does_not_change_the_source(tmp_path):
    packed = [find_dataset(str(write(tmp_path / str(level), level))) for level in (1, 9)]
    for name, content in contents().items():
        (tmp_path / name).write_bytes(content)
    assert find_dataset(str(tmp_path)) == packed[0] == packed[1]


def test_a_limit_keeps_the_first_rows(tmp_path):
    few = load_dataset(str(write(tmp_path)), limit=1)
    assert (len(few.x_train), few.y_train.tolist(), few.y_test.tolist()) == (1, [0], [1])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({TRAIN_IMAGES: b""}, "train-images-idx3-ubyte is no IDX file of bytes with 3 dimensions"),
        ({TRAIN_IMAGES: idx([1, 2])}, "is no IDX file of bytes with 3 dimensions"),
        ({TRAIN_IMAGES: contents()[TRAIN_IMAGES][:-1]}, "its header promises 24 values, it has 23"),
        ({TRAIN_IMAGES: contents()[TRAIN_IMAGES] + b"0"}, "promises 24 values, it has 25"),
        ({TRAIN_IMAGES: idx(np.zeros((0, 3, 2)))}, "has shape (0, 3, 2): no images"),
        ({TRAIN_IMAGES: b"\0\0\x08\x03" + b"\xff" * 12}, "is damaged: its header promises"),
        ({TRAIN_IMAGES: b"\0\0\x0d\x03" + bytes(12)}, "is no IDX file of bytes"),
        ({TEST_LABELS: idx([1])}, "t10k-images-idx3-ubyte has 2 images but"),
        (
            {TEST_IMAGES: idx(np.zeros((2, 2, 3)))},
            "(3, 2) but of t10k-images-idx3-ubyte (2, 3)",
        ),
    ],
)
def test_wrong_files_are_refused(tmp_path, changes, reason):
    folder = str(write(tmp_path, **changes))
    with pytest.raises(DatasetError) as caught:
        load_dataset(folder)
    assert str(caught.value).startswith(f"dataset {folder}: ")
    assert reason in str(caught.value)


def test_any_damage_to_a_gzipped_file_is_refused_or_harmless(tmp_path):
    folder = write(tmp_path)
    whole, path = load_dataset(str(folder)), folder / f"{TRAIN_IMAGES}.gz"
    content = path.read_bytes()
    cut = [content[:length] for length in range(len(content))]
    flipped = [content[:i] + bytes([c ^ 16]) + content[i + 1 :] for i, c in enumerate(content)]
    refusals = []
    for damaged in cut + flipped:
        path.write_bytes(damaged)
        try:
            dataset = load_dataset(str(folder))
        except DatasetError as error:
            refusals.append(str(error))
        else:  # The bit is one of the time or the system in the header.
            assert np.array_equal(dataset.x_train, whole.x_train)
    assert len(refusals) > len(cut)
    assert all(TRAIN_IMAGES in text and "\n" not in text for text in refusals)


def test_a_folder_of_something_else_is_refused(tmp_path):
    write(tmp_path, **{TRAIN_LABELS: None})
    with pytest.raises(DatasetError, match="the folder holds neither train-images-idx3-ubyte, "):
        find_dataset(str(tmp_path))


# --- Files that others publish ---


def test_the_first_folder_that_has_all_files_is_taken(tmp_path):
    write(tmp_path / "first", **{TEST_LABELS: None})
    write(tmp_path / "second")
    dataset = published(tmp_path / "first", tmp_path / "second")
    assert {path.parent.name for path in dataset.paths.values()} == {"second"}
    assert dataset.read(0, dataset.identify()).y_test.tolist() == [1, 0]


def test_files_packed_anew_are_the_published_ones(tmp_path):
    write(tmp_path / "a", level=1)
    write(tmp_path / "b", level=9)
    sources = [published(tmp_path / name).identify() for name in ("a", "b")]
    assert sources[0] == sources[1]
    assert sources[0].kind == "tiny"


def test_what_nobody_has_is_said_with_what_to_do(tmp_path):
    with pytest.raises(DatasetError) as caught:
        published(tmp_path / "a", tmp_path / "b")
    assert str(caught.value) == (
        f"dataset tiny: not in {tmp_path / 'a'} and {tmp_path / 'b'}; install tiny"
    )


@pytest.mark.parametrize("act", [Files.identify, lambda files: files.read(0, None)])
def test_a_published_file_of_other_content_is_refused(tmp_path, act):
    dataset = published(write(tmp_path / "a", **{TRAIN_LABELS: idx([1, 1, 0, 1])}))
    with pytest.raises(DatasetError) as caught:
        act(dataset)
    file = tmp_path / "a" / f"{TRAIN_LABELS}.gz"
    assert str(caught.value) == f"dataset tiny: damaged {file}; mend a"


@pytest.mark.parametrize("act", [Files.identify, lambda files: files.read(0, None)])
def test_a_published_file_cut_short_is_refused(tmp_path, act):
    dataset = published(write(tmp_path / "a"))
    path = dataset.paths[TEST_IMAGES]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DatasetError, match=rf"dataset tiny: damaged {path}: .*; mend a$"):
        act(dataset)

"""Folders of PNG files: what can be read is read, the rest is counted, nothing is seen twice."""

import os

import numpy as np
import pytest
from PIL import Image

from models.datasets import find_dataset, load_dataset
from models.images import DatasetError


def picture(seed, shape=(28, 28)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Twelve training and four test images of the classes A and B, all different."""
    for label, name in enumerate("AB"):
        for number in range(6):
            save(tmp_path / "train" / name / f"{number}.png", picture(100 * label + number))
        for number in range(2):
            save(tmp_path / "test" / name / f"{number}.png", picture(1000 + 100 * label + number))
    return tmp_path


def test_every_picture_is_a_row_with_the_class_of_its_folder(folder):
    dataset = load_dataset(str(folder))
    rows = {
        (row.tobytes(), int(y)) for row, y in zip(dataset.x_train, dataset.y_train, strict=True)
    }
    assert rows == {(picture(100 * y + n).tobytes(), y) for y in (0, 1) for n in range(6)}
    assert (dataset.x_test.shape, dataset.x_test.dtype) == ((4, 784), np.uint8)
    assert dataset.image_shape == (28, 28)
    assert dataset.skipped == {"unreadable": 0, "duplicates": 0}
    assert not any(a.flags.writeable for a in (dataset.x_train, dataset.y_train, dataset.x_test))


def test_the_folders_of_notmnist_are_known(folder):
    as_others = load_dataset(str(folder))
    (folder / "train").rename(folder / "notMNIST_large")
    (folder / "test").rename(folder / "notMNIST_small")
    assert np.array_equal(load_dataset(str(folder)).x_train, as_others.x_train)


def test_unreadable_files_are_left_out_and_counted(folder):
    (folder / "train" / "A" / "empty.png").touch()
    (folder / "train" / "B" / "cut.png").write_bytes(
        (folder / "train" / "B" / "0.png").read_bytes()[:200]
    )
    (folder / "test" / "A" / "text.png").write_text("no picture")
    save(folder / "train" / "A" / "large.png", picture(1, (29, 28)))
    save(folder / "train" / "A" / "colour.png", picture(1, (28, 28, 3)))
    (folder / "train" / "A" / ".hidden").touch()
    dataset = load_dataset(str(folder))
    assert (len(dataset.x_train), len(dataset.x_test)) == (12, 4)
    assert dataset.skipped == {"unreadable": 5, "duplicates": 0}


def test_training_images_that_are_test_images_too_are_left_out_and_counted(folder):
    save(folder / "train" / "A" / "again.png", picture(1100))  # In the test images it is a B.
    save(folder / "train" / "B" / "again.png", picture(1100))
    save(folder / "train" / "B" / "twice.png", picture(100))  # Twice in training does no harm.
    dataset = load_dataset(str(folder))
    assert dataset.skipped == {"unreadable": 0, "duplicates": 2}
    assert (len(dataset.x_train), len(dataset.x_test)) == (13, 4)
    assert not {r.tobytes() for r in dataset.x_train} & {r.tobytes() for r in dataset.x_test}


def test_a_limit_keeps_the_first_rows_of_mixed_classes(folder):
    whole, few = load_dataset(str(folder)), load_dataset(str(folder), limit=3)
    assert np.array_equal(few.x_train, whole.x_train[:3])
    assert np.array_equal(few.x_test, whole.x_test[:3])
    assert len(set(whole.y_train[:6].tolist())) == 2


def test_a_new_file_moves_no_other(folder):
    before = load_dataset(str(folder)).x_train
    save(folder / "train" / "A" / "new.png", picture(7777))
    after = load_dataset(str(folder)).x_train
    old = [row for row in after if row.tobytes() != picture(7777).tobytes()]
    assert np.array_equal(old, before)


def test_a_source_is_found_without_reading_a_picture(folder):
    source = find_dataset(str(folder))
    path = folder / "train" / "A" / "0.png"
    times = path.stat()
    path.write_bytes(bytes(times.st_size))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find_dataset(str(folder)) == source
    assert str(folder) not in source.model_dump_json()


@pytest.mark.parametrize("change", ["touch", "add", "remove", "rename", "write"])
def test_any_change_of_the_files_is_another_source(folder, change):
    source, path = find_dataset(str(folder)), folder / "test" / "B" / "1.png"
    match change:
        case "touch":
            os.utime(path, ns=(0, 0))
        case "add":
            (folder / "train" / "B" / "more.png").touch()
        case "remove":
            path.unlink()
        case "rename":
            path.rename(path.with_name("2.png"))
        case "write":
            path.write_bytes(b"other")
    assert find_dataset(str(folder)) != source
    with pytest.raises(DatasetError, match="its bytes have changed"):
        load_dataset(str(folder), source=source)


def test_classes_must_be_those_of_both_parts(folder):
    save(folder / "train" / "C" / "0.png", picture(1))
    with pytest.raises(DatasetError, match="only one of train and test has C"):
        find_dataset(str(folder))


def test_a_part_without_a_readable_picture_is_refused(folder):
    for path in (folder / "test").glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no image in .*test can be read: ./.\.png is no"):
        load_dataset(str(folder))


def test_parts_without_classes_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError, match="has no folders named by class"):
        find_dataset(str(tmp_path))


def test_training_on_nothing_but_test_images_is_refused(tmp_path):
    for part in ("train", "test"):
        save(tmp_path / part / "A" / "0.png", picture(1))
    with pytest.raises(DatasetError, match="every training image is a test image too"):
        load_dataset(str(tmp_path))


def test_a_file_that_cannot_be_opened_is_an_error_and_no_picture_to_leave_out(folder):
    for name, target in (("a", "b"), ("b", "a")):
        (folder / "train" / "A" / f"{name}.png").symlink_to(f"{target}.png")
    with pytest.raises(DatasetError, match=r"train/A/.\.png: Too many levels of symbolic links"):
        load_dataset(str(folder))

"""Letters: the same wherever the same releases are, hard enough, and never taken for notMNIST."""

import hashlib

import numpy as np
import pytest

import models.letters as letters_module
from models.datasets import find_dataset, load_dataset
from models.images import DatasetError
from models.letters import TEST_FONTS, TRAIN_FONTS, Letters


@pytest.fixture(scope="module")
def letters():
    return load_dataset("letters", limit=2000)


def test_letters_have_the_form_of_mnist(letters):
    assert (letters.x_train.shape, letters.x_train.dtype) == ((2000, 784), np.uint8)
    assert letters.image_shape == (28, 28)
    assert not letters.x_train.flags.writeable
    for labels in (letters.y_train, letters.y_test):
        counts = np.bincount(labels, minlength=10)
        assert len(counts) == 10
        assert counts.min() > 150


def test_letters_say_that_they_are_a_stand_in(letters):
    assert "stand-in for notMNIST" in letters.note
    assert "not comparable" in letters.note


def test_letters_are_the_same_every_time(letters):
    letters_module._draw_glyphs.cache_clear()
    again = load_dataset("letters", limit=2000, source=find_dataset("letters"))
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert np.array_equal(getattr(again, name), getattr(letters, name))


def test_a_limit_keeps_the_first_rows(letters):
    few = load_dataset("letters", limit=7)
    assert np.array_equal(few.x_train, letters.x_train[:7])
    assert np.array_equal(few.y_test, letters.y_test[:7])


def test_another_seed_is_another_source_and_other_images(letters):
    other = Letters(seed=1)
    assert other.identify() != find_dataset("letters")
    assert not np.array_equal(other.read(10, None).x_train, letters.x_train[:10])


def test_the_source_names_fonts_and_releases():
    source = find_dataset("letters")
    assert source.kind == "letters"
    assert set(source.files) == {*TRAIN_FONTS, *TEST_FONTS, "drawn by", "recipe"}
    assert source.files["drawn by"].startswith("Pillow ")
    assert all(len(source.files[name]) == len(hashlib.sha256().hexdigest()) for name in TEST_FONTS)


def test_no_font_is_in_both_parts():
    assert not set(TRAIN_FONTS) & set(TEST_FONTS)


def test_another_source_is_refused():
    with pytest.raises(DatasetError, match="its bytes have changed"):
        load_dataset("letters", 1, Letters(seed=1).identify())


def test_no_two_images_are_equal(letters):
    rows = np.concatenate([letters.x_train, letters.x_test])
    assert len({row.tobytes() for row in rows}) == len(rows)


def test_letters_are_neither_trivial_nor_hopeless(letters):
    """A linear map by least squares: far from chance, far from all."""
    train, test = (x / 255 - 0.15 for x in (letters.x_train, letters.x_test))
    wanted = np.eye(10)[letters.y_train]
    scores = test @ np.linalg.solve(train.T @ train + 30 * np.eye(784), train.T @ wanted)
    assert 0.5 < np.mean(scores.argmax(axis=1) == letters.y_test) < 0.9

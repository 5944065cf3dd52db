"""Slices: the rows of a transfer are those the settings ask for, or the settings are refused."""

import numpy as np
import pytest

from models.config import ConfigError, Data
from models.datasets import load_dataset
from models.images import DatasetError
from models.slices import Slice, check_classes, first_of_each, split_classes


@pytest.fixture(scope="module")
def mnist():
    return load_dataset("mnist")


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


def test_a_limit_is_named_where_it_is_the_reason(mnist):
    (first, *_) = unfit(load_dataset("mnist", 3), limit=3, validation_rows=1)
    assert first == (
        "data.source_classes: class 3 has no images in the first 3 rows of mnist; "
        "it has 0 to 2, 4 to 5, 7"
    )


def test_pairs_need_two_source_classes_in_validation():
    labels = np.array([0, 1, 2, 3] * 4)
    settings = {"source_classes": (0, 1), "target_classes": (2, 3)}
    few = Data(**settings, few_shot=1, few_shot_validation=0, validation_rows=1)
    check_classes(labels, np.arange(4), few)
    with pytest.raises(ConfigError, match="only one source class are among them; pretrain.task"):
        check_classes(labels, np.arange(4), few, pairs=True)
    enough = few.model_copy(update={"validation_rows": 2})
    check_classes(labels, np.arange(4), enough, pairs=True)

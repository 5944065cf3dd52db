import numpy as np
import pytest

from models.config import Nightly
from models.deliveries import Delivery
from models.images import Dataset
from models.incoming import doubt_labels, fingerprints, inspect, make_reference

GENERATOR = np.random.default_rng(1)


def draw(rows):
    """Images of classes 0 and 1, the second ones brighter, as chance has it."""
    labels = np.arange(rows) % 2
    images = GENERATOR.integers(0, 100, (rows, 16)) + 100 * labels[:, None]
    return images.astype(np.uint8), labels


def delivery(images, labels, problems=None):
    names = tuple(f"row {row}" for row in range(len(images)))
    return Delivery(images, np.asarray(labels), names, tuple(problems or [""] * len(images)))


TRAIN, TEST = draw(400), draw(50)
REFERENCE = make_reference(Dataset(*TRAIN, *TEST, image_shape=(4, 4)), classes=(1, 0))


def look(images, labels, known=None, **limits):
    return inspect(delivery(images, labels), REFERENCE, known or {}, Nightly(**limits))


def test_new_images_are_accepted():
    found = look(*draw(60))
    assert found.accepted.tolist() == list(range(60))
    assert (found.duplicates, found.problems, found.refusal) == (0, {}, "")
    assert not found.drift.is_class_drift
    assert not found.drift.is_pixel_drift


def test_every_row_is_counted_once():
    images, labels = draw(10)
    images[1], labels[1] = TRAIN[0][1], TRAIN[1][1]
    images[2], labels[2] = TEST[0][2], TEST[1][2]
    images[3], labels[3] = images[0], labels[0]
    images[4], labels[4] = images[0], 1 - labels[0]
    labels[5] = 7
    found = look(images, labels)
    assert found.accepted.tolist() == [0, 6, 7, 8, 9]
    assert found.duplicates == 2
    assert found.problems == {
        "row 2": "is in the hold-out, which must stay unseen",
        "row 4": "is labelled 1 here and 0 before",
        "row 5": "has label 7; the classes are 0, 1",
    }


def test_what_joined_on_an_earlier_night_is_a_duplicate():
    images, labels = draw(4)
    known = dict(zip(fingerprints(images), map(int, labels), strict=True))
    assert look(images, labels, known).duplicates == 4


def test_a_row_that_could_not_be_read_is_a_problem_and_nothing_else():
    images, labels = draw(3)
    came = delivery(images, labels, ["", "is torn", ""])
    found = inspect(came, REFERENCE, {}, Nightly())
    assert (found.accepted.tolist(), found.problems) == ([0, 2], {"row 1": "is torn"})


def test_images_of_another_brightness_are_refused_whatever_their_class():
    images, labels = draw(60)
    found = look(255 - images, labels)
    assert found.drift.is_pixel_drift
    assert "brighter or darker" in found.refusal


def test_a_delivery_of_one_class_is_class_drift_but_no_pixel_drift():
    images, labels = draw(120)
    bright = labels == 1
    found = look(images[bright], labels[bright])
    assert found.drift.is_class_drift
    assert not found.drift.is_pixel_drift
    assert found.refusal == ""
    assert "one class is 100%" in look(images[bright], labels[bright], max_class_share=0.9).refusal


def test_a_handful_is_never_refused_for_what_a_handful_does():
    images, labels = draw(4)
    assert not look(images[:2], labels[:2]).drift.is_class_drift


def test_pixels_beyond_the_reference_are_told_for_floats():
    images = np.linspace(0, 1, 40, dtype=np.float32).reshape(10, 4)
    labels = np.arange(10) % 2
    reference = make_reference(Dataset(images, labels, images, labels, (4,)), (0, 1))
    found = inspect(delivery(images + 5, labels), reference, {}, Nightly())
    assert len(found.problems) == 10
    assert "the dataset has 0.0 to 1.0" in found.problems["row 0"]


@pytest.mark.parametrize(
    ("right", "rows", "doubted"),
    [(90, 100, False), (50, 100, False), (10, 100, True), (0, 5, False)],
)
def test_labels_that_a_good_model_denies_are_doubted(right, rows, doubted):
    labels = np.zeros(rows)
    answers = np.where(np.arange(rows) < right, 0, 1)
    assert bool(doubt_labels(labels, answers, expected=0.9, agreement=0.5)) is doubted

"""Forged classes: which images are put together, and what they are called."""

import numpy as np
import pytest

from models.config import Network
from models.forging import CUTS, count_forged, forge
from models.networks import build_classifier, build_trunk
from models.programs import predict
from models.transfer import keep_classes

SHAPE, CLASSES = (4, 6), 3


def make(rows=90, seed=1, share=2.0, labels=None):
    """Each image has its own number in every pixel, so that a pixel tells where it came from."""
    labels = np.arange(rows) % CLASSES if labels is None else labels
    images = np.repeat(np.arange(rows, dtype=np.float32)[:, None], 24, axis=1)
    return images, labels, *forge(images, labels, share, shape=SHAPE, classes=CLASSES, seed=seed)


def test_each_is_made_of_two_images_of_different_classes():
    _, labels, forged, _ = make()
    for image in forged:
        origins = np.unique(image).astype(int)
        assert len(origins) == 2
        assert len(set(labels[origins])) == 2


def test_the_label_tells_the_cut_and_both_classes():
    _, labels, forged, named = make()
    found = {}
    for image, name in zip(forged.reshape(-1, *SHAPE), named, strict=True):
        # A corner that all cuts leave to the first image, and what lies where.
        first = image[0, 2]
        second = next(value for value in image.flat if value != first)
        where = tuple((image == second).reshape(-1))
        found.setdefault(name, set()).add((where, labels[int(first)], labels[int(second)]))
    assert sorted(found) == list(range(CLASSES, CLASSES + count_forged(CLASSES)))
    assert all(len(meanings) == 1 for meanings in found.values())
    assert len({meaning for meanings in found.values() for meaning in meanings}) == len(found)


def test_halves_are_halves():
    _, _, forged, named = make()
    lower = forged[(named - CLASSES) // (CLASSES * (CLASSES - 1)) == list(CUTS).index("lower half")]
    for image in lower.reshape(-1, *SHAPE):
        assert len(np.unique(image[:2])) == len(np.unique(image[2:])) == 1


@pytest.mark.parametrize("share", [0.5, 1.0, 2.5])
def test_every_image_serves_as_often(share):
    images, _, forged, _ = make(share=share)
    assert len(forged) == round(share * len(images))
    firsts = np.bincount(forged.reshape(-1, *SHAPE)[:, 0, 2].astype(int), minlength=len(images))
    assert firsts.max() - firsts.min() <= 1


def test_the_seed_decides_all():
    assert all(map(np.array_equal, make(seed=3), make(seed=3)))
    assert not np.array_equal(make(seed=3)[2], make(seed=4)[2])


def test_the_images_stay_as_they_are():
    images, *_ = make()
    assert np.array_equal(images[:, 0], np.arange(90))


def test_classes_of_any_size_and_order_serve():
    labels = np.array([2, 0, 1, 1, 1, 1, 0, 1, 1, 1])
    _, _, forged, _ = make(rows=10, labels=labels, share=10)
    assert {len(set(labels[np.unique(image).astype(int)])) for image in forged} == {2}


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match="10 images of one class; two are needed"):
        make(rows=10, labels=np.zeros(10, int))


@pytest.mark.parametrize("norm_head", [False, True])
def test_without_the_forged_classes_the_others_keep_their_order(norm_head):
    network = Network(hidden_layers=2, units=8, norm_head=norm_head)
    rows = np.random.default_rng(0).normal(size=(50, 24)).astype(np.float32)

    def build(classes, seed):
        return build_classifier(build_trunk(network, 24, seed), classes, seed, network)

    wide, narrow = build(9, 1), build(CLASSES, 2)
    keep_classes(wide, narrow)
    kept = predict(wide, rows)[:, :CLASSES]
    np.testing.assert_allclose(
        predict(narrow, rows), kept / kept.sum(axis=1, keepdims=True), rtol=1e-5
    )

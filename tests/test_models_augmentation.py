from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from models.augmentation import augment, warp
from models.config import Augmentation
from models.feeding import Array

NONE = {"shift": 0, "rotation": 0, "scale": 0, "shear": 0, "elastic": 0}


def only(**changes: float) -> Augmentation:
    """Images change in these ways alone."""
    return Augmentation.model_validate({**NONE, **changes})


SHAPE = (28, 20)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((300, 28 * 20), np.float32)
ROWS = np.arange(300)
ALL = only(shift=2, rotation=15, scale=0.1, shear=0.1, elastic=34)
change = partial(augment, IMAGES, ROWS, epoch=0, shape=SHAPE, seed=1)


def shift(down: float, right: float) -> Array:
    """The images read so many pixels below and to the right."""
    framed = np.pad(IMAGES.reshape(-1, *SHAPE), [(0, 0), (1, 2), (1, 2)])
    places = len(IMAGES), *SHAPE
    moved: Array = warp(
        tf.constant(framed), tf.fill(places, float(down)), tf.fill(places, float(right))
    ).numpy()
    return moved


# --- Reading at other places ---


def test_image_read_at_its_own_place_is_itself() -> None:
    np.testing.assert_array_equal(shift(0.0, 0.0).reshape(IMAGES.shape), IMAGES)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 3), (-2, 1), (5, -4)])
def test_whole_pixels_move_exactly_and_zeros_come_in(down: int, right: int) -> None:
    border = np.pad(IMAGES.reshape(-1, *SHAPE), [(0, 0), (5, 5), (5, 5)])
    expected = border[:, 5 + down : 33 + down, 5 + right : 25 + right]
    np.testing.assert_array_equal(shift(down, right), expected)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    images = IMAGES.reshape(-1, *SHAPE)
    moved = shift(0.5, 0.0)
    np.testing.assert_allclose(moved[:, :-1], (images[:, :-1] + images[:, 1:]) / 2, rtol=1e-6)
    np.testing.assert_allclose(moved[:, -1], images[:, -1] / 2, rtol=1e-6)


def test_image_read_far_outside_is_empty() -> None:
    for down, right in ((1e6, 0.0), (-1e6, 0.0), (0.0, 1e6), (0.0, -1e6)):
        assert not shift(down, right).any()


# --- Each kind of change ---


def test_zero_strength_changes_nothing() -> None:
    np.testing.assert_array_equal(change(settings=only()), IMAGES)
    # Through the whole arithmetic: a map too small for a float32 is none.
    tiny = only(shift=1e-12, rotation=1e-12, scale=1e-12, shear=1e-12, elastic=1e-12)
    np.testing.assert_allclose(change(settings=tiny), IMAGES, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"shift": 2}, {"rotation": 90}, {"scale": 0.5}, {"shear": 0.5}, {"elastic": 20}]
)
def test_values_stay_within_those_of_the_image(settings: dict[str, float]) -> None:
    changed = change(settings=only(**settings))
    assert not np.allclose(changed, IMAGES)
    assert changed.min() >= 0
    assert (changed.max(axis=1) <= IMAGES.max(axis=1) + 1e-6).all()


@pytest.mark.parametrize(
    ("settings", "farthest"),
    [({"shift": 3}, (3, 3)), ({"shear": 0.2}, (0, 2)), ({"scale": 0.1}, (1, 1))],
)
def test_no_point_moves_farther_than_the_settings_say(
    settings: dict[str, float], farthest: tuple[float, float]
) -> None:
    # One dot, ten pixels below the middle and five to the right of it, in an odd square.
    image = np.zeros((31, 31), np.float32)
    image[25, 20] = 1
    dots = np.tile(image.ravel(), (200, 1))
    changed = augment(dots, np.arange(200), 0, settings=only(**settings), shape=(31, 31), seed=1)
    mass = changed.reshape(-1, 31, 31) / changed.sum(axis=1)[:, None, None]
    moved = np.stack(
        [
            (mass.sum(axis=2) * np.arange(31)).sum(axis=1) - 25,
            (mass.sum(axis=1) * np.arange(31)).sum(axis=1) - 20,
        ]
    )
    # Between two pixels a dot's centre of mass is off by up to a half.
    assert (np.abs(moved).max(axis=1) <= np.array(farthest) + 0.5).all()
    assert np.abs(moved).max() > 0.7 * max(farthest)


def test_images_turn_about_their_middle_by_up_to_the_angle_asked_for() -> None:
    image = np.zeros((31, 31), np.float32)
    image[25, 15] = 1
    dots = np.tile(image.ravel(), (200, 1))
    turned = augment(
        dots, np.arange(200), 0, settings=only(rotation=90), shape=(31, 31), seed=1
    ).reshape(-1, 31, 31)
    mass = turned / turned.sum(axis=(1, 2), keepdims=True)
    down = (mass.sum(axis=2) * np.arange(31)).sum(axis=1) - 15
    right = (mass.sum(axis=1) * np.arange(31)).sum(axis=1) - 15
    np.testing.assert_allclose(np.hypot(down, right), 10, atol=0.5)
    angles = np.degrees(np.arctan2(right, down))
    # Even on both sides, up to a pixel's half.
    assert np.abs(angles).max() < 93
    assert angles.min() < -80
    assert angles.max() > 80
    assert abs(np.median(angles)) < 15


def test_elastic_field_is_as_strong_as_in_the_paper() -> None:
    # With a slope for an image, the change of value is the displacement to the right.
    slope = np.tile(np.arange(41, dtype=np.float32), (41, 1)).ravel()
    settings = only(elastic=34, smoothness=4)
    changed = augment(
        np.tile(slope, (300, 1)), np.arange(300), 0, settings=settings, shape=(41, 41), seed=1
    )
    moved = (changed - slope).reshape(-1, 41, 41)[:, 12:29, 12:29]
    # Uniform noise deviates by 1 / sqrt(3); a Gaussian of 4 in the plane divides by 8 sqrt(pi).
    assert moved.std() == pytest.approx(34 / 3**0.5 / (8 * np.pi**0.5), rel=0.1)
    assert abs(moved.mean()) < 0.1
    # Neighbours move together.
    assert np.corrcoef(moved[:, :, 1:].ravel(), moved[:, :, :-1].ravel())[0, 1] > 0.95


# --- A function of seed, epoch and row ---


def test_same_seed_epoch_and_row_give_the_same_bits() -> None:
    np.testing.assert_array_equal(change(settings=ALL), change(settings=ALL))


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 1}])
def test_seed_and_epoch_change_every_image(other: dict[str, int]) -> None:
    first, second = change(settings=ALL), change(settings=ALL, **other)
    assert (np.abs(first - second).max(axis=1) > 0.01).all()


def test_rows_are_changed_in_different_ways() -> None:
    same = np.tile(IMAGES[:1], (300, 1))
    changed = augment(same, ROWS, 0, settings=ALL, shape=SHAPE, seed=1)
    assert len(np.unique(changed, axis=0)) == 300


def test_other_images_and_their_order_make_no_difference() -> None:
    together = change(settings=ALL)
    order = RANDOM.permutation(300)
    np.testing.assert_array_equal(
        augment(IMAGES[order], ROWS[order], 0, settings=ALL, shape=SHAPE, seed=1), together[order]
    )
    for few in (slice(0, 1), slice(299, 300), slice(100, 270)):
        np.testing.assert_array_equal(
            augment(IMAGES[few], ROWS[few], 0, settings=ALL, shape=SHAPE, seed=1), together[few]
        )


def test_draws_are_uniform_and_unrelated() -> None:
    from models.augmentation import _draw

    numbers = _draw(tf.constant([1, 2], tf.uint32), tf.range(1000), 0, 200).numpy()
    assert np.abs(numbers).max() <= 1
    counts, _ = np.histogram(numbers, 20, (-1, 1))
    np.testing.assert_allclose(counts, 10_000, rtol=0.05)
    for related in (numbers[1:] * numbers[:-1], numbers[:, 1:] * numbers[:, :-1]):
        assert abs(related.mean()) < 0.005

"""Means of a few values and how sure they are."""

import numpy as np
import pytest

from models.intervals import is_clearly_positive, mean_interval, t_quantile


# Two-sided 95% and 99% quantiles as tables of Student's t print them.
@pytest.mark.parametrize(
    ("confidence", "freedom", "quantile"),
    [
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.95, 9, 2.262),
        (0.95, 30, 2.042),
        (0.99, 5, 4.032),
    ],
)
def test_quantiles_are_those_of_the_tables(confidence, freedom, quantile):
    assert t_quantile(confidence, freedom) == pytest.approx(quantile, abs=5e-4)


def test_the_interval_lies_around_the_mean():
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0], 0.95)
    assert (mean, low + high) == (2.5, pytest.approx(5.0))
    assert high - mean == pytest.approx(3.182 * 1.29099 / 2, rel=1e-3)


def test_of_one_value_nothing_is_known_beyond_itself():
    assert mean_interval([0.9], 0.95) == (0.9, 0.9, 0.9)


def test_a_mean_above_zero_by_chance_is_not_clear():
    # Of a standard error of 0.1 the mean lies one, one and a half, then three above 0.
    for shift, clear in ((0.0, False), (0.05, False), (0.2, True)):
        values = np.tile([-0.9, 1.1], 50) + shift
        assert is_clearly_positive(values, 0.95) is clear
    assert is_clearly_positive(np.tile([-0.9, 1.1], 50) + 0.2, 0.999) is False


def test_one_value_is_never_clear():
    assert is_clearly_positive(np.array([1.0]), 0.95) is False

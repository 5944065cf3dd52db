import numpy as np
import pytest

from models.drift import gap_limit, largest_gap, stability_index, stability_limit

TEN_CLASSES = np.full(10, 1000)


def test_equal_shares_have_no_shift_whatever_the_size():
    assert stability_index(TEN_CLASSES, np.full(10, 1000)) == 0
    assert stability_index(np.array([50, 50]), np.array([500, 500])) == pytest.approx(0, abs=1e-12)


def test_the_stability_index_is_the_textbook_s():
    shares = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    by_hand = sum((b - a) * np.log(b / a) for a, b in zip(*shares, strict=True))
    found = stability_index(shares[0] * 1e9, shares[1] * 1e9)
    assert found == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("rows", [30, 100, 1000])
def test_chance_alone_rarely_passes_the_limits(rows):
    generator = np.random.default_rng(1)
    expected = np.full(10, 6000)
    reference = np.sort(generator.normal(size=60_000))
    shifts, gaps = 0, 0
    for _ in range(300):
        found = np.bincount(generator.integers(0, 10, rows), minlength=10)
        shifts += stability_index(expected, found) > stability_limit(expected, found)
        gap = largest_gap(reference, generator.normal(size=rows))
        gaps += gap > gap_limit(len(reference), rows)
    assert shifts <= 5
    assert gaps <= 3


def test_a_real_shift_passes_the_limits():
    expected, found = np.full(10, 6000), np.array([91, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    assert stability_index(expected, found) > max(0.25, stability_limit(expected, found))
    generator = np.random.default_rng(1)
    reference = np.sort(generator.normal(size=1000))
    assert largest_gap(reference, generator.normal(2, size=100)) > gap_limit(1000, 100)


def test_the_largest_gap_of_ranges_apart_is_one():
    assert largest_gap(np.array([0.0, 1.0]), np.array([3.0, 2.0])) == 1
    assert largest_gap(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == 0

"""What one classifier gains over another on the same rows."""

import numpy as np
import pytest

from models.gain import measure_gain, sign_test


def rows(won: int, lost: int, both_wrong: int, both_right: int) -> tuple[np.ndarray, np.ndarray]:
    kinds = [(True, False), (False, True), (False, False), (True, True)]
    counts = (won, lost, both_wrong, both_right)
    right, other = np.array([k for k, n in zip(kinds, counts, strict=True) for _ in range(n)]).T
    return right, other


def test_the_share_of_the_others_errors_that_is_gone():
    gain = measure_gain(*rows(60, 10, 40, 890), confidence=0.95)
    assert gain.removed == 0.5
    assert 0.3 < gain.low < 0.5 < gain.high < 0.65
    assert gain.p_value < 1e-6
    assert gain.describe("this", "that").startswith("Transfer pays: this makes 50% fewer errors")


def test_more_errors_are_called_negative_transfer():
    gain = measure_gain(*rows(5, 45, 95, 855), confidence=0.95)
    assert gain.removed == -0.4
    said = gain.describe("this", "that")
    assert said.startswith("Negative transfer: this makes 40% more errors than that (")
    assert "fewer" not in said


def test_a_difference_within_chance_is_no_gain():
    gain = measure_gain(*rows(12, 9, 80, 899), confidence=0.95)
    assert gain.low < 0 < gain.high
    assert gain.describe("this", "that").startswith("No clear gain")


def test_a_narrower_confidence_gives_a_narrower_interval():
    counts = rows(60, 10, 40, 890)
    wide, narrow = measure_gain(*counts, 0.99), measure_gain(*counts, 0.8)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_nobody_wrong_is_no_gain():
    gain = measure_gain(*rows(0, 0, 0, 10), confidence=0.95)
    assert (gain.removed, gain.p_value) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("won", "lost", "p_value"), [(0, 0, 1.0), (5, 0, 2 / 32), (1, 4, 12 / 32), (3, 3, 1.0)]
)
def test_the_sign_test_is_exact(won, lost, p_value):
    assert sign_test(won, lost) == pytest.approx(p_value)


def test_the_sign_test_bears_thousands():
    assert 0 < sign_test(2600, 2400) < 0.01

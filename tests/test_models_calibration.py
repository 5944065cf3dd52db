"""Confidence against accuracy, temperature, and the worst mistakes."""

import numpy as np
import pytest

from models.calibration import Calibration, Mistakes, find_temperature, soften

RANDOM = np.random.default_rng(0)


def draw(rows: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels that follow some probabilities, and those probabilities made so much sharper."""
    logits = RANDOM.normal(0, 1.5, (rows, 4))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([RANDOM.choice(4, p=row) for row in truth])
    return labels, soften(truth, 1 / sharpness)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_answers_too_sure(sharpness):
    assert find_temperature(*draw(5000, sharpness)) == pytest.approx(sharpness, rel=0.1)


def test_the_temperature_lowers_the_calibration_error():
    labels, sure = draw(5000, 3.0)
    before = Calibration().add(labels, sure).error
    after = Calibration().add(labels, soften(sure, find_temperature(labels, sure))).error
    assert before > 0.15
    assert after < 0.03


def test_a_few_rows_all_right_do_not_ask_for_certainty():
    labels = np.arange(20) % 4
    answers = np.full((20, 4), 0.02)
    answers[np.arange(20), labels] = 0.94
    softened = soften(answers, find_temperature(labels, answers))
    assert softened.max() < 0.95


def test_calibration_of_hand_made_answers():
    labels = np.array([0, 0, 1, 1])
    answers = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.38, 0.62]])
    found = Calibration().add(labels[:2], answers[:2]).add(labels[2:], answers[2:])
    assert found.error == pytest.approx((abs(2 - 2.7) + abs(1 - 0.62)) / 4)
    assert [part["rows"] for part in found.bins] == [1, 3]
    assert found.bins[1] == pytest.approx({"confidence": 0.9, "accuracy": 2 / 3, "rows": 3})


def test_a_temperature_keeps_the_order_of_the_answers():
    _, answers = draw(100, 1.0)
    assert (soften(answers, 5.0).argmax(axis=1) == answers.argmax(axis=1)).all()
    np.testing.assert_allclose(soften(answers, 1.0), answers)


def test_mistakes_are_the_surest_whatever_the_blocks():
    labels = np.zeros(6, int)
    answers = np.array([[0.4, 0.6], [0.1, 0.9], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.9, 0.1]])
    whole, parts = Mistakes(3), Mistakes(3)
    whole.add(0, labels, answers)
    for first in (0, 2, 4):
        parts.add(first, labels[first : first + 2], answers[first : first + 2])
    assert [each["row"] for each in whole.worst] == [1, 4, 3]
    assert whole.worst == parts.worst
    assert whole.worst[0] == {"row": 1, "label": 0, "predicted": 1, "confidence": 0.9}

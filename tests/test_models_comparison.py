from math import comb

import numpy as np
import pytest

from models.comparison import compare, mcnemar_mid_p

LEVEL = {"significance": 0.01, "max_class_loss": 0.02}


def by_hand(lost, won):
    rows = lost + won
    more = sum(comb(rows, heads) for heads in range(won + 1, rows + 1))
    return (more + comb(rows, won) / 2) / 2**rows


@pytest.mark.parametrize(("lost", "won"), [(0, 1), (3, 9), (9, 3), (5, 5), (40, 80)])
def test_mid_p_is_the_binomial_s(lost, won):
    assert mcnemar_mid_p(lost, won) == pytest.approx(by_hand(lost, won), rel=1e-9)


def test_no_difference_is_a_coin_s_toss_and_thousands_are_no_trouble():
    assert mcnemar_mid_p(0, 0) == 0.5
    assert mcnemar_mid_p(5000, 5000) == pytest.approx(0.5, abs=1e-6)
    assert mcnemar_mid_p(4000, 6000) < 1e-50


def test_the_two_directions_add_up_to_one():
    assert mcnemar_mid_p(4, 11) + mcnemar_mid_p(11, 4) == pytest.approx(1)


def answers(labels, wrong):
    given = labels.copy()
    given[wrong] = 1 - given[wrong]
    return given


LABELS = np.arange(1000) % 2


def test_clearly_better_is_promoted():
    verdict = compare(LABELS, answers(LABELS, slice(100)), answers(LABELS, slice(50)), **LEVEL)
    assert verdict.promote
    assert (verdict.champion, verdict.challenger) == (0.9, 0.95)
    assert "90.0 -> 95.0 %, 50 won, 0 lost" in verdict.why


@pytest.mark.parametrize("wrong", [slice(100), slice(98), slice(200)])
def test_equal_hardly_better_or_worse_is_not(wrong):
    verdict = compare(LABELS, answers(LABELS, slice(100)), answers(LABELS, wrong), **LEVEL)
    assert not verdict.promote
    assert "not better by more than chance" in verdict.why


THREE = np.arange(900) % 3


def confuse(actual, said, rows):
    """Answers that are right but for the first rows of a class."""
    given = THREE.copy()
    given[np.flatnonzero(THREE == actual)[:rows]] = said
    return given


def test_better_at_the_expense_of_one_class_is_not():
    champion, challenger = confuse(0, 1, rows=100), confuse(2, 0, rows=40)
    verdict = compare(THREE, champion, challenger, **LEVEL)
    assert not verdict.promote
    assert "class 2 would lose 7.1 points of F1, allowed are 2.0" in verdict.why
    assert compare(THREE, champion, challenger, 0.01, max_class_loss=0.1).promote


def test_a_champion_that_says_one_class_too_often_is_not_protected_by_it():
    champion, challenger = confuse(0, 1, rows=150), confuse(1, 0, rows=30)
    assert compare(THREE, champion, challenger, **LEVEL).promote


def test_chance_alone_is_promoted_no_oftener_than_the_level_says():
    generator = np.random.default_rng(3)
    labels = np.zeros(2000, np.int64)
    promoted = 0
    for _ in range(400):
        pair = (generator.random((2, 2000)) < 0.2).astype(np.int64)
        promoted += compare(labels, *pair, significance=0.05, max_class_loss=1).promote
    assert promoted <= 32  # 20 expected; this many in one of a hundred seeds.

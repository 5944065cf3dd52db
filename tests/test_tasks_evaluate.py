import numpy as np
import pytest

from models.metrics import measure_loss
from tasks.answers import Candidate
from tasks.evaluate import choose

LABELS = np.arange(150) % 5


def make(title, *probabilities):
    """A candidate that gives the right class these probabilities, in turn."""
    right = np.resize(probabilities, len(LABELS))[:, None]
    answers = np.where(np.eye(5)[LABELS] == 1, right, (1 - right) / 4)
    loss, _ = measure_loss(LABELS, answers)
    # In blocks, as stages give them.
    return Candidate(title, loss, lambda part: iter([answers[:100], answers[100:]]))


GOOD, BETTER = make("good", 0.8, 0.9), make("better", 0.9, 0.95)
# Worse on every other image, and a little better on average.
LUCKY = make("lucky", 0.75, 0.97)


@pytest.mark.parametrize(
    ("heads", "networks", "title"),
    [
        ([GOOD, BETTER], [], "better"),
        ([GOOD], [BETTER], "better"),
        ([BETTER], [GOOD], "better"),
        ([LUCKY], [GOOD], "good"),
        ([LUCKY], [], "lucky"),
        ([GOOD], [LUCKY], "lucky"),
        ([GOOD, LUCKY], [GOOD, LUCKY], "lucky"),
    ],
)
def test_a_head_is_chosen_before_networks_only_if_clearly_better(heads, networks, title):
    assert LUCKY.validation_loss < GOOD.validation_loss
    assert choose(heads, networks, LABELS, 0.95).title == title

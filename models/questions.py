"""The documents' own questions, answered by runs over several seeds, each with its interval."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models.intervals import mean_interval

History = dict[str, list[float]]


@dataclass(frozen=True)
class Answer:
    """What the runs say to a question.

    Attributes:
        question: As the document asks it.
        quantity: What was measured, with its unit.
        value: Its mean over the seeds.
        low: Lower end of the interval.
        high: Upper end.
        text: The answer in words.
    """

    question: str
    quantity: str
    value: float
    low: float
    high: float
    text: str

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def compare_pairs(
    question: str,
    quantity: str,
    values: Sequence[float],
    confidence: float,
    more: str,
    less: str,
) -> Answer:
    """Answers by the mean of differences, one a seed.

    Args:
        question: As the document asks it.
        quantity: What the differences are of, with their unit.
        values: The differences.
        confidence: Level of the interval.
        more: The answer if they are clearly above 0.
        less: The answer if they are clearly below 0.
    """
    value, low, high = mean_interval(values, confidence)
    text = more if low > 0 else less if high < 0 else "not clear: the interval holds 0"
    return Answer(question, quantity, value, low, high, text)


def compare_ratios(
    question: str,
    quantity: str,
    ratios: Sequence[float],
    confidence: float,
    more: str,
    less: str,
) -> Answer:
    """Answers by the mean of ratios, one a seed; 1 is no difference."""
    value, low, high = mean_interval(ratios, confidence)
    text = more if low > 1 else less if high < 1 else "not clear: the interval holds 1"
    return Answer(question, quantity, value, low, high, text)


def epochs_to(history: History, loss: float) -> int:
    """The first epoch after which the validation loss is at most this; one too many if none is."""
    for epoch, value in enumerate(history["val_loss"], start=1):
        if value <= loss:
            return epoch
    return len(history["val_loss"]) + 1


def common_loss(*histories: History) -> float:
    """The lowest validation loss that all of some trainings reach."""
    return max(min(history["val_loss"]) for history in histories)

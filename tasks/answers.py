"""What trained classifiers answer: probabilities, a block of rows at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from artifacts.reference import Ref
from models.config import Augmentation
from tasks.fitting import image_changer
from tasks.rows import Array, Part, Rows, open_activations, open_rows
from tasks.stage import Work
from tasks.train import network_names
from tasks.trained import load_model

if TYPE_CHECKING:
    import keras

    from models.feeding import Change

BLOCK_ROWS = 2000


@dataclass(frozen=True)
class Candidate:
    """A trained way to tell the target classes apart.

    Attributes:
        title: As results call it.
        validation_loss: What it is chosen by.
        answers: Gives for each block of rows of a part the probabilities, (rows, classes).
    """

    title: str
    validation_loss: float
    answers: Callable[[Part], Iterator[Array]]

    def labels(self, part: Part) -> Array:
        """The most probable class of each row, (rows,)."""
        # A class in two bytes: six million answers then take 12 MB.
        found = [block.argmax(axis=1).astype(np.uint16) for block in self.answers(part)]
        return np.concatenate(found)


def head_candidates(work: Work, activations: Ref, heads: Ref) -> list[Candidate]:
    """The heads on cached activations, the lowest cut first."""
    return [
        Candidate(
            title=f"head on {head['layer']}",
            validation_loss=head["validation_loss"],
            answers=partial(_ask_head, work, activations, heads, head["layer"]),
        )
        for head in heads.metrics["heads"]
    ]


def network_candidate(
    work: Work,
    network: Ref,
    dataset: Ref,
    split: Ref,
    augmentation: Augmentation | None,
    views: int,
) -> Candidate:
    """A network, or the mean of an ensemble, that stage ``train`` trained.

    Args:
        work: Of the stage that asks.
        network: What ``train`` gave.
        dataset: The images.
        split: Which of them.
        augmentation: How the views differ from the image.
        views: Changed copies of each image whose answers count as much as its own.
    """
    return Candidate(
        title=network.metrics["title"],
        validation_loss=network.metrics["validation_loss"],
        answers=partial(_ask_networks, work, network, dataset, split, augmentation, views),
    )


def _ask_head(work: Work, activations: Ref, heads: Ref, layer: str, part: Part) -> Iterator[Array]:
    rows = open_activations(work, activations, layer, part)
    return _ask([load_model(work, heads, layer)], [rows])


def _ask_networks(
    work: Work,
    network: Ref,
    dataset: Ref,
    split: Ref,
    augmentation: Augmentation | None,
    views: int,
    part: Part,
) -> Iterator[Array]:
    names = network_names(network.metrics["ensemble"])
    images = open_rows(work, dataset, split, part)
    shown: list[Rows | View] = [images]
    change = image_changer(dataset, augmentation, seed=0) if augmentation else None
    if change:
        shown += [View(images, change, view) for view in range(views)]
    return _ask([load_model(work, network, name) for name in names], shown)


class View:
    """Rows, each changed in its own way, read a slice at a time."""

    def __init__(self, rows: Rows, change: "Change", number: int) -> None:
        self.rows, self.change, self.number = rows, change, number

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, where: slice) -> Array:
        """The changed rows of a slice, (rows, columns)."""
        return self.change(self.rows[where], np.arange(len(self))[where], self.number)


def _ask(models: "list[keras.Model]", shown: "list[Rows | View]") -> Iterator[Array]:
    """The mean answer of all models to all views of each row."""
    from models.metrics import average_answers
    from models.programs import predict_blocks

    asked = [predict_blocks(model, rows, BLOCK_ROWS) for model in models for rows in shown]
    for answers in zip(*asked, strict=True):
        yield average_answers([outputs[0] for outputs in answers])

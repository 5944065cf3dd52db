"""Training inside a stage: its state kept beside the future entry, its progress told."""

import csv
import io
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from artifacts.reference import Ref
from models.config import Augmentation, Training
from tasks.stage import Work

if TYPE_CHECKING:
    import keras

    from models.feeding import Change


def fit_resumably(
    work: Work,
    name: str,
    model: "keras.Model",
    train: tuple[Any, Any],
    validation: tuple[Any, Any],
    settings: Training,
    seed: int,
    keep_every: float = 0.0,
    **options: Any,
) -> dict[str, list[float]]:
    """Trains a model; killed and run again, goes on from the last epoch it kept.

    Args:
        work: Of the stage that trains.
        name: What is trained, unique in the stage.
        model: Trained in place, left with the weights of its best epoch.
        train: Rows and labels.
        validation: Rows and labels that decide when to stop and which epoch was best.
        settings: How to train.
        seed: Of the order of the rows and of dropout.
        keep_every: Seconds that must have passed for another epoch to be kept; small networks
            take longer to save than to train.
        options: Further arguments of ``models.training.fit``.

    Returns:
        The history: one value an epoch for loss, accuracy and their validation counterparts.
    """
    from models.training import State, fit

    kept = time.monotonic()

    def after_epoch(state: State) -> None:
        nonlocal kept
        losses = state.history["val_loss"]
        work.progress(name, state.epoch, settings.max_epochs, val_loss=losses[-1])
        if time.monotonic() - kept >= keep_every:
            work.save_state(f"{name}.npz", state.to_arrays())
            kept = time.monotonic()

    arrays = work.load_state(f"{name}.npz")
    history = fit(
        model,
        *train,
        settings=settings,
        validation=validation,
        seed=seed,
        saved=State.from_arrays(arrays) if arrays else None,
        on_epoch=after_epoch,
        **options,
    )
    return {key: [float(value) for value in values] for key, values in history.history.items()}


def save_history_table(work: Work, histories: Mapping[str, dict[str, list[float]]]) -> None:
    """Makes ``history.csv`` part of the result: one row an epoch, for tools that read tables.

    Args:
        work: Of the stage that trained.
        histories: The history of each training, by name.
    """
    text = io.StringIO()
    quantities = list(dict.fromkeys(name for history in histories.values() for name in history))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["training", "epoch", *quantities])
    for training, history in histories.items():
        for place in range(max(map(len, history.values()), default=0)):
            values = [history[name][place] if name in history else "" for name in quantities]
            writer.writerow([training, place + 1, *values])
    work.save_bytes("history.csv", text.getvalue().encode())


def best_epoch(history: dict[str, list[float]]) -> int:
    """Index of the epoch with the lowest validation loss."""
    losses = history["val_loss"]
    return losses.index(min(losses))


def image_shape(dataset: Ref) -> tuple[int, int] | None:
    """Height and width of a dataset's images; None for rows that are no images."""
    shape = tuple(dataset.metrics["image_shape"])
    return (shape[0], shape[1]) if len(shape) == 2 else None


def image_changer(dataset: Ref, augmentation: Augmentation, seed: int) -> "Change | None":
    """What changes training images anew in every epoch; None for rows that are no images."""
    from models.augmentation import augment

    shape = image_shape(dataset)
    return partial(augment, settings=augmentation, shape=shape, seed=seed) if shape else None

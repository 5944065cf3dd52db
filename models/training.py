"""The training engine: one XLA program an epoch, on any Keras model, resumable to the bit.

A run is a function of model, rows, settings and seed. Nothing here knows of files.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Self

import keras
import numpy as np

from models.config import Training
from models.feeding import Array, Block, Change, Feed, Sliceable, choose_block_rows, to_tensor
from models.interruption import interruptibly
from models.optimizers import build_optimizer
from models.programs import Program, RowLoss, find_shared_program
from models.tuning import Rules, Tuning
from models.variables import read, write

Arrays = tuple[Array, ...]

ACCURACY: Mapping[str, RowLoss] = {"accuracy": keras.metrics.sparse_categorical_accuracy}


class TrainingDiverged(ValueError):
    """The loss is no longer a finite number."""

    def __init__(self, epoch: int, name: str, value: float) -> None:
        self.epoch = epoch
        super().__init__(
            f"Training diverged: {name} is {value} after epoch {epoch}. "
            "Lower the learning rate or clip the gradients; else look for bad rows and labels."
        )


@dataclass(frozen=True, eq=False)
class State:
    """All that training needs to go on after an epoch as if it had never stopped.

    Attributes:
        epoch: Epochs done.
        variables: The model's variables: weights, batch norm statistics, random states.
        optimizer: The optimizer's variables: steps, learning rate, moments.
        best_epoch: The epoch of the lowest validation loss; 0 before the first.
        best: The model's variables after that epoch.
        history: One value an epoch for each name: loss, val_loss and so on.
    """

    epoch: int
    variables: Arrays
    optimizer: Arrays
    best_epoch: int
    best: Arrays
    history: Mapping[str, tuple[float, ...]]

    @property
    def best_loss(self) -> float:
        """The lowest validation loss so far; infinite before the first epoch."""
        return self.history["val_loss"][self.best_epoch - 1] if self.best_epoch else math.inf

    @property
    def waited(self) -> int:
        """Epochs since the validation loss last fell."""
        return self.epoch - self.best_epoch

    def is_finished(self, settings: Training) -> bool:
        """Tells whether the epochs are used up, or the patience."""
        return self.epoch >= settings.max_epochs or self.waited > settings.patience

    def to_arrays(self) -> dict[str, Array]:
        """Flattens the state to named arrays, as ``numpy.savez`` takes them."""
        arrays: dict[str, Array] = {
            "epoch": np.array(self.epoch),
            "best_epoch": np.array(self.best_epoch),
        }
        for group in ("variables", "optimizer", "best"):
            for index, value in enumerate(getattr(self, group)):
                arrays[f"{group}/{index:05d}"] = value
        for name, values in self.history.items():
            arrays[f"history/{name}"] = np.array(values, dtype=np.float64)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Rebuilds a state from what ``to_arrays`` gave.

        Raises:
            ValueError: If arrays are missing.
        """
        missing = {"epoch", "best_epoch"} - set(arrays)
        if missing:
            msg = f"Not a training state: no {' and no '.join(sorted(missing))} among its arrays."
            raise ValueError(msg)
        return cls(
            epoch=int(arrays["epoch"]),
            variables=tuple(_group(arrays, "variables").values()),
            optimizer=tuple(_group(arrays, "optimizer").values()),
            best_epoch=int(arrays["best_epoch"]),
            best=tuple(_group(arrays, "best").values()),
            history={
                name: tuple(values.tolist()) for name, values in _group(arrays, "history").items()
            },
        )


def _group(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    prefix = f"{name}/"
    return {
        key.removeprefix(prefix): arrays[key] for key in sorted(arrays) if key.startswith(prefix)
    }


def fit(
    model: keras.Model,
    x: Sliceable,
    y: Sliceable,
    *,
    settings: Training,
    validation: tuple[Sliceable, Sliceable],
    seed: int,
    loss: str | RowLoss = "sparse_categorical_crossentropy",
    metrics: Mapping[str, RowLoss] = ACCURACY,
    optimizer: keras.optimizers.Optimizer | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    saved: State | None = None,
    on_epoch: Callable[[State], None] | None = None,
    block_rows: int = 0,
    change: Change | None = None,
    copies: int = 1,
    rules: Rules = MappingProxyType({}),
) -> keras.callbacks.History:
    """Trains a model in place, and leaves it with the weights of its best epoch, or its last.

    Training stops after ``settings.max_epochs`` or ``settings.max_steps``, or when the validation
    loss has not fallen for more than ``settings.patience`` epochs. Every row is trained on once an
    epoch, in an order drawn from the seed and the epoch; the last batch may be smaller. Dropout
    draws from the seed too, so the same arguments give the same bits on the same machine and
    thread count.

    An epoch is one compiled program, so callbacks are called around epochs, not around batches.
    Interrupted in the main thread, it ends at once; the epoch under way does so in a thread of its
    own, and may still change the model.
    Fits in several threads run at the same time and to the same bits; only those of equal models
    and settings share a program, and take turns at it.

    Rows and labels may be anything that gives an array for a slice, such as a memory map. Those
    beyond one block are read a block at a time, and shuffled as ``feeding.draw_blocks`` says.
    Where they come from makes no difference to the result; the size of a block does. Arrays may
    not be changed meanwhile.

    Training rows may be changed anew in every epoch, such as images by ``augmentation.augment``.
    That is done in a thread, for the next block while one is trained on.

    Args:
        model: Any built Keras model with one input and one output.
        x: Rows, ``(rows, ...)``.
        y: Labels, ``(rows,)`` or as the loss takes them.
        settings: Update rule, batch size, epochs and patience.
        validation: Rows and labels that decide which epoch is best.
        seed: Of the order of the rows and of dropout.
        loss: Name, function or object of a Keras loss; regularisation is added to it.
        metrics: Names and functions of labels and predictions that give one number a row.
        optimizer: To use instead of the one in the settings.
        callbacks: Called with loss, val_loss, learning_rate and the metrics of each epoch.
        saved: The state to go on from, instead of the model's weights and the seed.
        on_epoch: Called with the state after each epoch, to save it.
        block_rows: Rows to have in memory at once; 0 is as many as ``feeding.BLOCK_BYTES`` hold.
        change: Makes rows to train on of some rows, their numbers and the epoch, the first is 0;
            a function of nothing else, so that the run can be repeated and resumed.
        copies: How often each row comes in an epoch, each time with another number for
            ``change``, see ``feeding.Change``.
        rules: What is otherwise for some layers, by name. An anchored layer is drawn to the
            weights the model has on entry, also with ``saved``.

    Returns:
        The losses and metrics of every epoch and the learning rate at its end, those of the
        epochs before ``saved`` included.

    Raises:
        TrainingDiverged: If a loss is not finite. ``on_epoch`` has not seen that epoch.
        ValueError: If rows and labels differ in number, ``saved`` is of another model, or a rule
            is for a layer that the model does not have.
    """
    _check_rows(x, y, *validation)
    settings = settings.over(len(x) * copies)
    size = choose_block_rows(x, settings.batch_size, block_rows)
    train = Feed(
        x,
        y,
        size,
        copies,
        change,
        shuffled=settings.order == "shuffled",
        last=_last_row(settings, len(x) * copies),
    )
    held_out = Feed(*validation, size)
    if not model.built:
        model(to_tensor(x[:1]))
    own = optimizer or build_optimizer(settings)
    own.build(model.trainable_variables)
    tuning = Tuning(model, rules)
    shared = None if optimizer else find_shared_program(model, settings, loss, metrics, rules)
    program = shared or Program(model, own, loss, metrics, settings.batch_size, tuning)
    state = saved or _begin(model, own, seed)
    _assign(model.variables, state.variables)
    _assign(own.variables, state.optimizer)

    listeners = keras.callbacks.CallbackList(
        list(callbacks), model=model, verbose=0, epochs=settings.max_epochs
    )
    epochs = train.epochs(seed, state.epoch, settings.max_epochs)
    with _shown_to_callbacks(model, own), _closing(epochs), interruptibly() as call:
        listeners.on_train_begin()
        while not (state.is_finished(settings) or model.stop_training):
            listeners.on_epoch_begin(state.epoch)
            variables = [*model.variables, *own.variables, *tuning.variables]
            blocks = next(epochs)
            logs = call(partial(program.run, variables, train, blocks, held_out))
            _check_finite(logs, state.epoch + 1)
            logs["learning_rate"] = float(own.learning_rate)
            listeners.on_epoch_end(state.epoch, dict(logs))
            state = _advance(state, model, own, logs, settings.min_delta)
            if on_epoch:
                on_epoch(state)
        _assign(model.variables, state.best if settings.keep == "best" else state.variables)
        listeners.on_train_end()
    return _to_history(model, state)


def _last_row(settings: Training, rows: int) -> int:
    """How many rows, counted over all epochs, ``max_steps`` batches are; 0 if all there are."""
    each = math.ceil(rows / settings.batch_size)
    epochs, steps = divmod(settings.max_steps, each)
    return epochs * rows + steps * settings.batch_size


def _begin(model: keras.Model, optimizer: keras.optimizers.Optimizer, seed: int) -> State:
    """The state before the first epoch: the model's weights, its random states from the seed."""
    weights = {id(variable) for variable in model.weights}
    seeds = iter(np.random.SeedSequence(seed).generate_state(len(model.variables)) >> 1)
    variables = tuple(
        value if id(variable) in weights else np.array([next(seeds), 0])
        for variable, value in zip(model.variables, read(model.variables), strict=True)
    )
    return State(0, variables, read(optimizer.variables), 0, variables, {})


def _advance(
    state: State,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    logs: Mapping[str, float],
    min_delta: float,
) -> State:
    epoch, variables = state.epoch + 1, read(model.variables)
    better = logs["val_loss"] < state.best_loss - min_delta
    return State(
        epoch=epoch,
        variables=variables,
        optimizer=read(optimizer.variables),
        best_epoch=epoch if better else state.best_epoch,
        best=variables if better else state.best,
        history={name: (*state.history.get(name, ()), value) for name, value in logs.items()},
    )


def _check_finite(logs: Mapping[str, float], epoch: int) -> None:
    for name in ("loss", "val_loss"):
        if not math.isfinite(logs[name]):
            raise TrainingDiverged(epoch, name, logs[name])


def _check_rows(x: Sliceable, y: Sliceable, x_val: Sliceable, y_val: Sliceable) -> None:
    problems = [
        f"{name}: {len(rows)} rows and {len(labels)} labels."
        for name, rows, labels in (("Training", x, y), ("Validation", x_val, y_val))
        if len(rows) != len(labels) or not len(rows)
    ]
    if problems:
        msg = f"Each row needs one label, and there must be rows. {' '.join(problems)}"
        raise ValueError(msg)


def _assign(variables: Sequence[Any], values: Arrays) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    given = [value.shape for value in values]
    if shapes != given:
        wrong = [pair for pair in zip(shapes, given, strict=False) if pair[0] != pair[1]]
        first = (
            f"; the first to differ is {wrong[0][0]}, in the state {wrong[0][1]}" if wrong else ""
        )
        msg = (
            "The saved state is of another model or optimizer: "
            f"{len(shapes)} variables, in the state {len(given)}{first}."
        )
        raise ValueError(msg)
    write(variables, values)


@contextmanager
def _closing(epochs: Generator[Iterator[Block]]) -> Iterator[None]:
    """Ends the reading ahead."""
    try:
        yield
    finally:
        # An epoch that nobody waits for any more may be reading at this moment.
        with suppress(ValueError):
            epochs.close()


@contextmanager
def _shown_to_callbacks(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> Iterator[None]:
    """Makes the optimizer ``model.optimizer`` while training, as callbacks expect.

    Only so long: a model saved later should not carry the moments of its training.
    """
    before = getattr(model, "optimizer", None)
    model.optimizer, model.stop_training = optimizer, False
    try:
        yield
    finally:
        model.optimizer = before


def _to_history(model: keras.Model, state: State) -> keras.callbacks.History:
    history = keras.callbacks.History()
    history.set_model(model)
    history.epoch = list(range(state.epoch))
    # In one order: a state that was kept has its names sorted.
    history.history = {name: list(values) for name, values in sorted(state.history.items())}
    return history

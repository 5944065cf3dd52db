"""The training engine: one XLA program an epoch, on any Keras model, resumable to the bit.

A run is a function of model, rows, settings and seed. Nothing here knows of files.
"""

import json
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self

import keras
import numpy as np
import tensorflow as tf

from models.config import Training

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]
RowLoss = Callable[[Any, Any], Any]


class Sliceable(Protocol):
    """Rows that need not be in memory."""

    def __len__(self) -> int:
        """How many rows there are."""

    def __getitem__(self, where: slice, /) -> Array:
        """The rows of a slice, ``(rows, ...)``."""


ACCURACY: Mapping[str, RowLoss] = {"accuracy": keras.metrics.sparse_categorical_accuracy}

# Rows of a validation step: large enough for the matrix product to dominate.
_VALIDATION_ROWS = 1000


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


def build_optimizer(settings: Training) -> keras.optimizers.Optimizer:
    """Builds the update rule with its learning rate schedule."""
    rate, momentum = _learning_rate(settings), settings.momentum
    match settings.optimizer:
        case "adam":
            return keras.optimizers.Adam(rate)
        case "sgd":
            return keras.optimizers.SGD(rate)
        case "momentum":
            return keras.optimizers.SGD(rate, momentum=momentum)
        case "nesterov":
            return keras.optimizers.SGD(rate, momentum=momentum, nesterov=True)
        case "rmsprop":
            return keras.optimizers.RMSprop(rate, momentum=momentum)
        case "adagrad":
            return keras.optimizers.Adagrad(rate)


def _learning_rate(settings: Training) -> Any:
    schedules = keras.optimizers.schedules
    rate, steps = settings.learning_rate, settings.decay_steps
    match settings.schedule:
        case "constant":
            return rate
        case "exponential":
            return schedules.ExponentialDecay(rate, steps, settings.decay_rate)
        case "cosine":
            return schedules.CosineDecay(rate, steps)


def fit(
    model: keras.Model,
    x: Array,
    y: Array,
    *,
    settings: Training,
    validation: tuple[Array, Array],
    seed: int,
    loss: str | RowLoss = "sparse_categorical_crossentropy",
    metrics: Mapping[str, RowLoss] = ACCURACY,
    optimizer: keras.optimizers.Optimizer | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    saved: State | None = None,
    on_epoch: Callable[[State], None] | None = None,
) -> keras.callbacks.History:
    """Trains a model in place, and leaves it with the weights of its best epoch.

    Training stops after ``settings.max_epochs``, or when the validation loss has not fallen for
    more than ``settings.patience`` epochs. Every row is trained on once an epoch, in an order
    drawn from the seed and the epoch; the last batch may be smaller. Dropout draws from the
    seed too, so the same arguments give the same bits on the same machine and thread count.

    An epoch is one compiled program, so callbacks are called around epochs, not around batches.

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

    Returns:
        The losses and metrics of every epoch and the learning rate at its end, those of the
        epochs before ``saved`` included.

    Raises:
        TrainingDiverged: If a loss is not finite. ``on_epoch`` has not seen that epoch.
        ValueError: If rows and labels differ in number, or ``saved`` is of another model.
    """
    rows = [_to_tensor(part) for part in (x, y, *validation)]
    _check_rows(*rows)
    if not model.built:
        model(rows[0][:1])
    own = optimizer or build_optimizer(settings)
    own.build(model.trainable_variables)
    shared = None if optimizer else _shared_program(model, settings, loss, metrics)
    program = shared or _Program(model, own, loss, metrics, settings.batch_size)
    state = saved or _begin(model, own, seed)
    _assign(model.variables, state.variables)
    _assign(own.variables, state.optimizer)

    listeners = keras.callbacks.CallbackList(
        list(callbacks), model=model, verbose=0, epochs=settings.max_epochs
    )
    with _shown_to_callbacks(model, own):
        listeners.on_train_begin()
        while not (state.is_finished(settings) or model.stop_training):
            listeners.on_epoch_begin(state.epoch)
            order = draw_order(len(x), seed, state.epoch)
            logs = program.run([*model.variables, *own.variables], order, rows)
            _check_finite(logs, state.epoch + 1)
            logs["learning_rate"] = float(own.learning_rate)
            listeners.on_epoch_end(state.epoch, dict(logs))
            state = _advance(state, model, own, logs)
            if on_epoch:
                on_epoch(state)
        _assign(model.variables, state.best)
        listeners.on_train_end()
    return _to_history(model, state)


def predict_labels(model: keras.Model, x: Sliceable, batch_size: int = 2000) -> Array:
    """The most probable class of each row by a classifier, ``(rows,)``."""
    blocks = predict_blocks(model, x, batch_size)
    # A class in two bytes: six million predictions then take 12 MB.
    return np.concatenate([outputs[0].argmax(axis=1).astype(np.uint16) for outputs in blocks])


def predict(model: keras.Model, x: Sliceable, batch_size: int = 2000) -> Array:
    """Computes the outputs of a one-output model, ``(rows, ...)``, a block of rows at a time."""
    blocks = [outputs[0] for outputs in predict_blocks(model, x, batch_size)]
    return np.concatenate(blocks) if blocks else np.empty((0, *model.output_shape[1:]), np.float32)


def predict_blocks(
    model: keras.Model, x: Sliceable, batch_size: int = 2000, start: int = 0
) -> Iterator[list[Array]]:
    """Computes the outputs of a model block by block, for results larger than memory.

    The last block is padded to the size of the others and trimmed after. So one compiled
    program serves every number of rows, and a row's outputs do not depend on that number.

    Args:
        model: A model with one input.
        x: Rows, ``(rows, ...)``: an array, or anything that gives one for a slice of rows.
        batch_size: Rows of a block.
        start: The first row to compute.

    Yields:
        For each block the list of the model's outputs, ``(up to batch_size, ...)``.
    """
    forward = _compile_forward(model)
    for first in range(start, len(x), batch_size):
        block = x[first : first + batch_size]
        padding = [(0, batch_size - len(block))] + [(0, 0)] * (block.ndim - 1)
        outputs = forward(_to_tensor(np.pad(block, padding)))
        yield [output.numpy()[: len(block)] for output in tf.nest.flatten(outputs)]


# Keeps the last models alive; a handful are in use at a time.
@lru_cache(maxsize=8)
def _compile_forward(model: keras.Model) -> "_Compiled":
    return _Compiled(lambda rows: model(rows, training=False))


class _Compiled:
    """A function as one XLA program, or as a plain graph where XLA lacks an operation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._call = tf.function(function, jit_compile=True)
        self._ran = False

    def __call__(self, *args: Any) -> Any:
        try:
            result = self._call(*args)
        except (
            tf.errors.InvalidArgumentError,
            tf.errors.NotFoundError,
            tf.errors.UnimplementedError,
        ) as error:
            if self._ran:
                raise
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"XLA cannot compile this model, running it slower: {reason}",
                RuntimeWarning,
                stacklevel=3,
            )
            self._call = tf.function(self._function)
            result = self._call(*args)
        self._ran = True
        return result


class _Program:
    """One epoch of training and validation, compiled as a whole."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: str | RowLoss,
        metrics: Mapping[str, RowLoss],
        batch_size: int,
    ) -> None:
        optimizer.build(model.trainable_variables)
        self._model = model
        self._optimizer = optimizer
        self._loss = keras.losses.get(loss)
        self._metrics = dict(metrics)
        self._batch_size = batch_size
        self._variables = [*model.variables, *optimizer.variables]
        self._epoch = _Compiled(self._train_and_validate)
        self._lock = threading.Lock()

    def run(self, variables: Sequence[Any], order: Array, rows: Sequence[Any]) -> dict[str, float]:
        """Runs one epoch on the values of ``variables`` and writes them back.

        Args:
            variables: Of the model trained and its optimizer; may be this program's own.
            order: Numbers of the rows in the order of training, ``(rows,)``.
            rows: x, y, validation x, validation y.

        Returns:
            Mean loss and metrics over the rows, and the same for validation as ``val_...``.
        """
        with self._lock:
            _copy(variables, self._variables)
            sums = self._epoch(*rows, tf.constant(order))
            _copy(self._variables, variables)
        logs: dict[str, float] = {}
        for prefix, part, count in zip(("", "val_"), sums, (len(order), len(rows[2])), strict=True):
            means = part.numpy().astype(np.float64) / count
            names = (f"{prefix}{name}" for name in ("loss", *self._metrics))
            logs.update(zip(names, means.tolist(), strict=True))
        return logs

    def fits(self, model: keras.Model) -> bool:
        """Tells whether the variables of a model correspond to those of this program's."""
        return _layout(model) == _layout(self._model)

    def _train_and_validate(self, x: Any, y: Any, x_val: Any, y_val: Any, order: Any) -> Any:
        trained = self._sum_over(self._train, x, y, order, self._batch_size)
        in_turn = tf.range(x_val.shape[0])
        return trained, self._sum_over(self._validate, x_val, y_val, in_turn, _VALIDATION_ROWS)

    def _sum_over(
        self, step: Callable[[Any, Any], Any], x: Any, y: Any, order: Any, batch_size: int
    ) -> Any:
        """Sums a step's results over batches whose sizes are known at compile time."""
        size = min(batch_size, order.shape[0])
        batches, left = divmod(order.shape[0], size)
        sums = tf.zeros(1 + len(self._metrics))
        for batch in tf.range(batches):
            rows = tf.slice(order, [batch * size], [size])
            sums += step(tf.gather(x, rows), tf.gather(y, rows))
        if left:
            rows = order[-left:]
            sums += step(tf.gather(x, rows), tf.gather(y, rows))
        return sums

    def _train(self, x: Any, y: Any) -> Any:
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self._model(x, training=True)
            loss = self._penalised_loss(y, outputs)
            scaled = self._optimizer.scale_loss(loss)
        self._optimizer.apply(tape.gradient(scaled, variables), variables)
        return self._sums(y, outputs, loss)

    def _validate(self, x: Any, y: Any) -> Any:
        outputs = self._model(x, training=False)
        return self._sums(y, outputs, self._penalised_loss(y, outputs))

    def _penalised_loss(self, y: Any, outputs: Any) -> Any:
        loss = tf.reduce_mean(self._loss(y, outputs))
        return tf.add_n([loss, *self._model.losses])

    def _sums(self, y: Any, outputs: Any, loss: Any) -> Any:
        each_row = [metric(y, outputs) for metric in self._metrics.values()]
        return tf.stack([loss * y.shape[0], *map(tf.reduce_sum, each_row)])


def _shared_program(
    model: keras.Model, settings: Training, loss: str | RowLoss, metrics: Mapping[str, RowLoss]
) -> _Program | None:
    """Finds the program of this architecture, so that equal models are compiled once.

    The program trains a twin, built from nothing but the text it is found by. None if that
    text might not say all about the model.
    """
    functional = type(model).__module__.startswith("keras.") and hasattr(model, "operations")
    if not (functional and all(map(_is_plain, model.operations))):
        return None
    text = json.dumps(_describe(model), sort_keys=True)
    program = _build_twin_program(text, settings, loss, tuple(metrics.items()))
    return program if program.fits(model) else None


@lru_cache(maxsize=8)
def _build_twin_program(
    text: str,
    settings: Training,
    loss: str | RowLoss,
    metrics: tuple[tuple[str, RowLoss], ...],
) -> _Program:
    twin = keras.saving.deserialize_keras_object(json.loads(text))
    return _Program(twin, build_optimizer(settings), loss, dict(metrics), settings.batch_size)


# Layers that compute what their config says. An adapted Normalization, say, does not.
_PLAIN_LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
)


def _is_plain(layer: keras.Operation) -> bool:
    # A function of one's own that is named like one of Keras's is saved as that one.
    functions = [part for part in vars(layer).values() if callable(part)]
    return type(layer) in _PLAIN_LAYERS and all(
        function.__module__.startswith("keras.") for function in functions
    )


def _describe(model: keras.Model) -> Any:
    """Serialises a model without what equal ones differ in: numbered name, seeds, compilation."""
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    config["config"]["name"] = "twin"
    return _without_seeds(config)


def _without_seeds(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {key: 0 if key == "seed" else _without_seeds(value) for key, value in config.items()}
    return [_without_seeds(part) for part in config] if isinstance(config, list) else config


def _layout(model: keras.Model) -> list[Any]:
    trainable = {id(variable) for variable in model.trainable_variables}
    return [(tuple(v.shape), str(v.dtype), id(v) in trainable) for v in model.variables]


def _begin(model: keras.Model, optimizer: keras.optimizers.Optimizer, seed: int) -> State:
    """The state before the first epoch: the model's weights, its random states from the seed."""
    weights = {id(variable) for variable in model.weights}
    seeds = iter(np.random.SeedSequence(seed).generate_state(len(model.variables)) >> 1)
    variables = tuple(
        value if id(variable) in weights else np.array([next(seeds), 0])
        for variable, value in zip(model.variables, _values(model.variables), strict=True)
    )
    return State(0, variables, _values(optimizer.variables), 0, variables, {})


def _advance(
    state: State,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    logs: Mapping[str, float],
) -> State:
    epoch, variables = state.epoch + 1, _values(model.variables)
    better = logs["val_loss"] < state.best_loss
    return State(
        epoch=epoch,
        variables=variables,
        optimizer=_values(optimizer.variables),
        best_epoch=epoch if better else state.best_epoch,
        best=variables if better else state.best,
        history={name: (*state.history.get(name, ()), value) for name, value in logs.items()},
    )


def draw_order(rows: int, seed: int, epoch: int) -> Array:
    """Draws the order of one epoch's rows, from nothing but the seed and the epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return order.astype(np.int32)


def _check_finite(logs: Mapping[str, float], epoch: int) -> None:
    for name in ("loss", "val_loss"):
        if not math.isfinite(logs[name]):
            raise TrainingDiverged(epoch, name, logs[name])


def _check_rows(x: Any, y: Any, x_val: Any, y_val: Any) -> None:
    problems = [
        f"{name}: {len(rows)} rows and {len(labels)} labels."
        for name, rows, labels in (("Training", x, y), ("Validation", x_val, y_val))
        if len(rows) != len(labels) or not len(rows)
    ]
    if problems:
        msg = f"Each row needs one label, and there must be rows. {' '.join(problems)}"
        raise ValueError(msg)


def _to_tensor(rows: Array) -> Any:
    tensor = tf.convert_to_tensor(rows)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def _values(variables: Sequence[Any]) -> Arrays:
    # Not np.array(variable): Keras's arrays lack NumPy's `copy` keyword, which NumPy warns about.
    return tuple(np.array(variable.numpy()) for variable in variables)


def _copy(sources: Sequence[Any], targets: Sequence[Any]) -> None:
    for source, target in zip(sources, targets, strict=True):
        if source is not target:
            target.assign(source)


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
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


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

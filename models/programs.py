"""The compiled programs: an epoch of training and validation, and prediction.

Each is one XLA program, or one plain graph where that is quicker. Equal models share
one, so a second fold or seed compiles nothing.
"""

import json
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.config import Training
from models.feeding import Array, Block, Feed, Sliceable, to_tensor
from models.optimizers import Adam, build_optimizer
from models.runtime import start_xla
from models.tuning import LayerRule, Rules, Tuning
from models.variables import copy

RowLoss = Callable[[Any, Any], Any]

# Least rows of a validation step: enough for the matrix products to dominate.
_VALIDATION_ROWS = 1000


class Program:
    """One epoch of training and validation, compiled as a whole."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: str | RowLoss,
        metrics: Mapping[str, RowLoss],
        batch_size: int,
        tuning: Tuning,
    ) -> None:
        optimizer.build(model.trainable_variables)
        self._model = model
        self._optimizer = optimizer
        self._loss = keras.losses.get(loss)
        self._metrics = dict(metrics)
        self._batch_size = batch_size
        self._tuning = tuning
        self._variables = [*model.variables, *optimizer.variables, *tuning.variables]
        xla = suits_xla(model, training=True)
        if isinstance(optimizer, Adam):
            optimizer.in_xla = xla
        self._epoch = Compiled(self._train_and_validate, xla)
        self._train_block = Compiled(self._train_rows, xla)
        self._validate_block = Compiled(self._validate_rows, xla)
        self._lock = threading.Lock()

    def run(
        self, variables: Sequence[Any], train: Feed, blocks: Iterator[Block], validation: Feed
    ) -> dict[str, float]:
        """Runs one epoch on the values of ``variables`` and writes them back.

        Args:
            variables: Of the model trained, its optimizer and its anchors; may be this
                program's own.
            train: What to train on.
            blocks: Those of this epoch of it.
            validation: What to measure on, after training.

        Returns:
            Mean loss and metrics over the rows, and the same for validation as ``val_...``.
        """
        with self._lock:
            copy(variables, self._variables)
            parts = self._run_blocks(train, blocks, validation)
            copy(self._variables, variables)
        logs: dict[str, float] = {}
        for prefix, (sums, rows) in zip(("", "val_"), parts, strict=True):
            names = (f"{prefix}{name}" for name in ("loss", *self._metrics))
            logs.update(zip(names, (sums / rows).tolist(), strict=True))
        return logs

    def fits(self, model: keras.Model) -> bool:
        """Tells whether the variables of a model correspond to those of this program's."""
        return _layout(model) == _layout(self._model)

    def _run_blocks(
        self, train: Feed, blocks: Iterator[Block], validation: Feed
    ) -> tuple[tuple[Array, int], tuple[Array, int]]:
        """The sums over the rows trained on and over those measured on, and how many they are."""
        if train.blocks == 1 and validation.whole:
            block = next(blocks)
            trained, validated = self._epoch(*block, *validation.whole)
            return (_to_float64(trained), len(block[2])), (_to_float64(validated), len(validation))
        sums, rows = [], 0
        for block in blocks:
            sums.append(_to_float64(self._train_block(*block)))
            rows += len(block[2])
        measured = [_to_float64(self._validate_block(*block)) for block in validation.in_turn()]
        return (np.sum(sums, axis=0), rows), (np.sum(measured, axis=0), len(validation))

    def _train_and_validate(self, x: Any, y: Any, order: Any, x_val: Any, y_val: Any) -> Any:
        return self._train_rows(x, y, order), self._validate_rows(x_val, y_val)

    def _train_rows(self, x: Any, y: Any, order: Any) -> Any:
        def take(part: Any, start: Any, size: int) -> Any:
            return tf.gather(part, tf.slice(order, [start], [size]))

        return self._sum_over(self._train, x, y, order.shape[0], self._batch_size, take)

    def _validate_rows(self, x: Any, y: Any) -> Any:
        rows = x.shape[0]
        return self._sum_over(self._validate, x, y, rows, _divide_evenly(rows), _cut)

    def _sum_over(
        self,
        step: Callable[[Any, Any], Any],
        x: Any,
        y: Any,
        rows: int,
        batch_size: int,
        take: Callable[[Any, Any, int], Any],
    ) -> Any:
        """Sums a step's results over batches whose sizes are known at compile time."""
        size = min(batch_size, rows)
        batches, left = divmod(rows, size)
        if left:
            step = _trace_once(step, x, y)

        def add(batch: Any, sums: Any) -> tuple[Any]:
            return (sums + step(*(take(part, batch * size, size) for part in (x, y))),)

        (sums,) = repeat(batches, add, tf.zeros(1 + len(self._metrics)))
        if left:
            sums += step(*(take(part, rows - left, left) for part in (x, y)))
        return sums

    def _train(self, x: Any, y: Any) -> Any:
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self._model(x, training=True)
            loss = self._penalised_loss(y, outputs)
            scaled = self._optimizer.scale_loss(loss)
        with self._tuning.slowed_down():
            self._optimizer.apply(tape.gradient(scaled, variables), variables)
        return self._sums(y, outputs, loss)

    def _validate(self, x: Any, y: Any) -> Any:
        outputs = self._model(x, training=False)
        return self._sums(y, outputs, self._penalised_loss(y, outputs))

    def _penalised_loss(self, y: Any, outputs: Any) -> Any:
        loss = tf.reduce_mean(self._loss(y, outputs))
        return tf.add_n([loss, *self._model.losses, *self._tuning.penalties()])

    def _sums(self, y: Any, outputs: Any, loss: Any) -> Any:
        each_row = [metric(y, outputs) for metric in self._metrics.values()]
        rows = tf.cast(tf.shape(y)[0], loss.dtype)
        return tf.stack([loss * rows, *map(tf.reduce_sum, each_row)])


def _cut(part: Any, start: Any, size: int) -> Any:
    return tf.slice(part, [start, *[0] * (part.shape.rank - 1)], [size, *part.shape[1:]])


def _divide_evenly(rows: int) -> int:
    """Rows of a validation step, such that none are left: they are compiled by themselves."""
    sizes = range(_VALIDATION_ROWS, 2 * _VALIDATION_ROWS + 1)
    return next((size for size in sizes if rows % size == 0), _VALIDATION_ROWS)


def find_shared_program(
    model: keras.Model,
    settings: Training,
    loss: str | RowLoss,
    metrics: Mapping[str, RowLoss],
    rules: Rules,
) -> Program | None:
    """Finds the program of this architecture, so that equal models are compiled once.

    The program trains a twin, built from nothing but the text it is found by. None if that
    text might not say all about the model.
    """
    text = _find_text(model)
    if not text:
        return None
    items = tuple(metrics.items()), tuple(rules.items())
    program = _build_twin_program(text, settings, loss, *items)
    return program if program.fits(model) else None


def _find_text(model: keras.Model) -> str:
    """What equal models have in common, whatever their weights; empty if it may not say all."""
    functional = type(model).__module__.startswith("keras.") and hasattr(model, "operations")
    if not (functional and all(map(_is_plain, model.operations))):
        return ""
    return json.dumps(_describe(model), sort_keys=True)


@lru_cache(maxsize=8)
def _build_twin_program(
    text: str,
    settings: Training,
    loss: str | RowLoss,
    metrics: tuple[tuple[str, RowLoss], ...],
    rules: tuple[tuple[str, LayerRule], ...],
) -> Program:
    twin = keras.saving.deserialize_keras_object(json.loads(text))
    tuning = Tuning(twin, dict(rules))
    optimizer = build_optimizer(settings)
    return Program(twin, optimizer, loss, dict(metrics), settings.batch_size, tuning)


# Layers that compute what their config says. An adapted Normalization, say, does not.
_PLAIN_LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Activation,
    keras.layers.LeakyReLU,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.Rescaling,
    keras.layers.Reshape,
    keras.layers.Conv2D,
    keras.layers.Flatten,
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


def _to_float64(sums: Any) -> Array:
    return np.asarray(sums.numpy(), np.float64)


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
    forward = _find_forward(model)
    for first in range(start, len(x), batch_size):
        block = x[first : first + batch_size]
        padding = [(0, batch_size - len(block))] + [(0, 0)] * (block.ndim - 1)
        outputs = forward.run(model, to_tensor(np.pad(block, padding)))
        yield [output.numpy()[: len(block)] for output in tf.nest.flatten(outputs)]


class _Forward:
    """The outputs of a model for a block of rows, compiled; weights are an input."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._program = Compiled(self._compute, suits_xla(model, training=False))

    def run(self, model: keras.Model, rows: Any) -> Any:
        """Computes the outputs of this model or an equal one."""
        parts = (model.trainable_variables, model.non_trainable_variables)
        return self._program(*([variable.value for variable in part] for part in parts), rows)

    def fits(self, model: keras.Model) -> bool:
        """Tells whether the variables of a model correspond to those of this one."""
        return _layout(model) == _layout(self._model)

    def _compute(self, trainable: Any, others: Any, rows: Any) -> Any:
        return self._model.stateless_call(trainable, others, rows, training=False)[0]


def _find_forward(model: keras.Model) -> _Forward:
    text = _find_text(model)
    shared = _build_twin_forward(text) if text else None
    return shared if shared and shared.fits(model) else _build_forward(model)


@lru_cache(maxsize=16)
def _build_twin_forward(text: str) -> _Forward:
    return _Forward(keras.saving.deserialize_keras_object(json.loads(text)))


# Keeps the last models alive; a handful are in use at a time.
@lru_cache(maxsize=8)
def _build_forward(model: keras.Model) -> _Forward:
    return _Forward(model)


# On a CPU XLA's convolutions take eight times as long as TensorFlow's. Into what comes after it,
# XLA works the drawing of a dropout's random numbers again and again: up to twenty times as long.
_SLOW_IN_XLA = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_SLOW_IN_TRAINING = (
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


def is_on_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def suits_xla(model: keras.Model, training: bool) -> bool:
    """Whether XLA makes a model quicker on this machine.

    Args:
        model: Any model.
        training: Whether it is trained, or only asked.
    """
    slow = _SLOW_IN_XLA + (_SLOW_IN_TRAINING if training else ())
    # Layers may lie inside layers.
    return is_on_gpu() or not any(isinstance(layer, slow) for layer in model._flatten_layers())  # noqa: SLF001


def repeat(times: int, step: Callable[..., Sequence[Any]], *state: Any) -> Sequence[Any]:
    """What a compiled program makes of a state by ``state = step(number, *state)`` in a loop."""

    def count(number: Any, *state: Any) -> tuple[Any, ...]:
        return number + 1, *step(number, *state)

    return list(tf.while_loop(lambda number, *_: number < times, count, (0, *state))[1:])


def _trace_once(step: Callable[[Any, Any], Any], x: Any, y: Any) -> Callable[[Any, Any], Any]:
    """A step to be compiled for several numbers of rows of ``x`` and ``y``, traced for all."""
    any_number = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in (x, y)]
    traced: Callable[[Any, Any], Any] = tf.function(step, any_number, autograph=False)
    return traced


class Compiled:
    """A function as one XLA program, or as a plain graph where XLA lacks an operation.

    Python's own ``if`` and ``for`` are not for tensors in it, as in all that Keras compiles:
    to look for them in the code takes TensorFlow half as long as the rest of tracing.
    """

    def __init__(self, function: Callable[..., Any], xla: bool = True) -> None:
        self._function = function
        self._call = tf.function(function, jit_compile=xla, autograph=False)
        self._ran = False
        if xla:
            start_xla()

    def __call__(self, *args: Any) -> Any:
        """Calls the program; the first call compiles it."""
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
            self._call = tf.function(self._function, autograph=False)
            result = self._call(*args)
        self._ran = True
        return result

"""Many Keras variables read and written at once: one by one Keras takes several times as long."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from models.feeding import Array


def read(variables: Iterable[Any]) -> tuple[Array, ...]:
    """Copies of the values of some variables."""
    # Those of a number are no arrays.
    return tuple(np.asarray(_read(variable).numpy()) for variable in variables)


def write(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Gives each of some variables a value.

    Raises:
        tensorflow.errors.InvalidArgumentError: If a value is of another shape.
    """
    for variable, value in zip(variables, values, strict=True):
        _write(variable, tf.constant(value, variable.value.dtype))


def copy(sources: Sequence[Any], targets: Sequence[Any]) -> None:
    """Gives each of some variables the value of another."""
    for source, target in zip(sources, targets, strict=True):
        if source is not target:
            _write(target, _read(source))


def _read(variable: Any) -> Any:
    place = variable.value
    return tf.raw_ops.ReadVariableOp(resource=place.handle, dtype=place.dtype)


def _write(variable: Any, value: Any) -> None:
    place = variable.value.handle
    tf.raw_ops.AssignVariableOp(resource=place, value=value, validate_shape=True)

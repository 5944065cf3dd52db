from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.variables import copy, read, write

VALUES = (np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7), np.array([4, 5], np.uint32))

Variables = Sequence[Any]


def build(values: Sequence[Any] = VALUES) -> Variables:
    return [keras.Variable(np.zeros_like(value), dtype=str(value.dtype)) for value in values]


def assert_values(variables: Variables, expected: Sequence[Any]) -> None:
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.numpy()), value)


def add_one(variables: Variables) -> None:
    for variable in variables:
        variable.value.assign_add(tf.ones_like(variable.value))


def add_one_by_xla(variables: Variables) -> None:
    # Where it can, it writes into the memory in which the values lie.
    tf.function(lambda: add_one(variables), jit_compile=True, autograph=False)()


def test_what_is_written_is_read() -> None:
    variables = build()
    write(variables, VALUES)
    assert_values(variables, VALUES)
    for array, value in zip(read(variables), VALUES, strict=True):
        assert array.dtype == value.dtype
        np.testing.assert_array_equal(array, value)


def test_values_are_taken_as_the_kind_the_variable_has() -> None:
    variables = build([np.zeros(2, np.float32)])
    write(variables, [np.array([1.5, 2.5])])
    assert_values(variables, [np.array([1.5, 2.5])])


@pytest.mark.parametrize("change", [add_one, add_one_by_xla])
def test_copies_do_not_change_with_what_they_are_of(change: Callable[[Variables], None]) -> None:
    given = [value.copy() for value in VALUES]
    first, second = build(), build()
    write(first, given)
    arrays = read(first)
    copy(first, second)
    change(first)
    assert_values(first, [value + 1 for value in VALUES])
    for values in (given, arrays):
        for value, expected in zip(values, VALUES, strict=True):
            np.testing.assert_array_equal(value, expected)
    assert_values(second, VALUES)
    change(second)
    assert_values(second, [value + 1 for value in VALUES])


@pytest.mark.parametrize("act", [lambda few: write(few, VALUES), lambda few: copy(few, build())])
def test_each_variable_needs_one_value(act: Callable[[Variables], None]) -> None:
    with pytest.raises(ValueError, match="zip"):
        act(build()[:2])


def test_value_of_another_shape_is_refused() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="shape"):
        write(build([np.zeros(2, np.float32)]), [np.zeros(3, np.float32)])

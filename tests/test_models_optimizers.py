from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.optimizers import Adam
from models.runtime import start_xla

STEPS = 7


@pytest.fixture(autouse=True)
def xla() -> None:
    start_xla()


def draw_weights() -> list[Any]:
    """The rows of an embedding, and the kernel they are multiplied by."""
    random = np.random.default_rng(0)
    shapes = ((6, 4), (4, 3))
    return [keras.Variable(random.random(shape, np.float32)) for shape in shapes]


def make_step(optimizer: Any, weights: list[Any]) -> Callable[[Any], None]:
    optimizer.build(weights)
    rows, kernel = (weight.value for weight in weights)

    @tf.function(jit_compile=True, autograph=False)
    def step(chosen: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((tf.gather(rows, chosen) @ kernel) ** 2)
        optimizer.apply(tape.gradient(loss, [rows, kernel]), weights)

    return step


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amsgrad": True},
        {"clipvalue": 0.05},
        {"weight_decay": 0.1},
        {"gradient_accumulation_steps": 2},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.5)},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
@pytest.mark.parametrize("in_xla", [True, False])
def test_adam_is_that_of_keras_to_the_bit(in_xla: bool, options: dict[str, Any]) -> None:
    ours, theirs = draw_weights(), draw_weights()
    before = [weight.numpy() for weight in ours]
    mine = Adam(**options)
    mine.in_xla = in_xla
    for rule, weights in ((mine, ours), (keras.optimizers.Adam(**options), theirs)):
        step = make_step(rule, weights)
        for number in range(STEPS):
            # One row of the embedding comes twice.
            step(tf.constant([1, 1, 3, number % 6]))
    for mine, its, first in zip(ours, theirs, before, strict=True):
        np.testing.assert_array_equal(mine.numpy(), its.numpy())
        assert (mine.numpy() != first).any()


def test_adam_does_not_hide_what_is_no_number() -> None:
    weights = draw_weights()
    weights[1].assign(np.full((4, 3), np.nan))
    make_step(Adam(), weights)(tf.constant([0]))
    assert np.isnan(weights[1].numpy()).all()


def test_adam_compiles_without_the_detour_to_its_square_roots_to_one_loop() -> None:
    weight = keras.Variable(np.ones((3, 4), np.float32))
    optimizer = Adam()
    optimizer.in_xla = True
    optimizer.build([weight])

    @tf.function(jit_compile=True, autograph=False)
    def step(gradient: Any) -> None:
        optimizer.apply([gradient], [weight])

    gradient = tf.ones((3, 4))
    graph = step.get_concrete_function(gradient).graph
    assert "Sqrt" not in {operation.type for operation in graph.get_operations()}
    compiled = step.experimental_get_compiler_ir(gradient)(stage="optimized_hlo")
    assert "sqrt(" in compiled
    assert "f32[3,4]{1,0} power(" not in compiled
    # The weight and its moments at once.
    (loop,) = [line for line in compiled.splitlines() if " fusion(" in line and "f32[3,4]" in line]
    assert loop.split(" fusion(")[0].count("f32[3,4]") == 3

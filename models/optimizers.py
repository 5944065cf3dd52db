"""The update rules that the settings name: Keras's, and the same for many heads at once."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.config import HeadTraining


def build_optimizer(settings: HeadTraining) -> keras.optimizers.Optimizer:
    """Builds the update rule with its learning rate schedule."""
    rate, momentum = _learning_rate(settings), settings.momentum
    # Named, or Keras numbers them, and TensorFlow takes twice as long to make variables whose names
    # it has not had in this process.
    common: Any = {"name": "optimizer", "clipvalue": settings.clip_value or None}
    match settings.optimizer:
        case "adam":
            return Adam(rate, **common)
        case "sgd":
            return keras.optimizers.SGD(rate, **common)
        case "momentum":
            return keras.optimizers.SGD(rate, momentum=momentum, **common)
        case "nesterov":
            return keras.optimizers.SGD(rate, momentum=momentum, nesterov=True, **common)
        case "rmsprop":
            return keras.optimizers.RMSprop(rate, momentum=momentum, **common)
        case "adagrad":
            return keras.optimizers.Adagrad(rate, **common)


def _learning_rate(settings: HeadTraining) -> Any:
    schedules = keras.optimizers.schedules
    rate, steps = settings.learning_rate, settings.decay_steps
    match settings.schedule:
        case "constant":
            return rate
        case "exponential" | "staircase" as kind:
            in_steps = kind == "staircase"
            return schedules.ExponentialDecay(rate, steps, settings.decay_rate, in_steps)
        case "cosine":
            return schedules.CosineDecay(rate, steps)


class Adam(keras.optimizers.Adam):
    """Keras's, to the same bits, compiled sooner and to quicker code.

    For every weight Keras corrects the learning rate anew and takes two square roots, and each
    of them TensorFlow hands to XLA by a detour that takes it a hundred times as long as a power.

    Attributes:
        in_xla: Whether XLA compiles the steps.
    """

    in_xla = False

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        kind = keras.config.floatx()
        step = tf.cast(self.iterations + 1, kind)
        mean_share, square_share = (1 - beta**step for beta in (self.beta_1, self.beta_2))
        corrected = tf.cast(learning_rate, kind) * _root(square_share) / mean_share
        super()._backend_update_step(grads, trainable_variables, (learning_rate, corrected))

    def update_step(self, gradient: Any, variable: Any, learning_rate: tuple[Any, Any]) -> None:
        """Updates one weight and its moments.

        Args:
            gradient: Of the loss with respect to the weight.
            variable: The weight.
            learning_rate: As it is, and corrected for moments that have begun at 0.
        """
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate[0])
            return
        kind = variable.dtype
        gradient, rate = tf.cast(gradient, kind), tf.cast(learning_rate[1], kind)
        number = self._get_variable_index(variable)
        moments = self._momentums[number], self._velocities[number]
        values, shares = [part.value for part in moments], (1 - self.beta_1, 1 - self.beta_2)
        move, *new = _step_adam(values, gradient, rate, shares, self.epsilon, self.in_xla)
        for moment, value in zip(moments, new, strict=True):
            moment.assign(value)
        variable.assign_sub(move)


def _step_adam(
    moments: Sequence[Any],
    gradient: Any,
    rate: Any,
    shares: tuple[float, float],
    epsilon: float,
    in_xla: bool,
) -> tuple[Any, Any, Any]:
    """What Adam takes off a weight, and the weight's new moments.

    Args:
        moments: The running means of the gradients and of their squares.
        gradient: The new one, as the moments.
        rate: The learning rate, corrected for moments that have begun at 0.
        shares: Of a new gradient in either moment.
        epsilon: Added to the root.
        in_xla: Whether XLA compiles this.
    """
    mean, square = moments
    new_mean = mean + (gradient - mean) * shares[0]
    new_square = square + (gradient**2 - square) * shares[1]
    used_mean, used_square = new_mean, new_square
    if in_xla:
        # The same bits, which XLA takes for other numbers. Were they the new moments themselves, it
        # would write those in loops of their own and read them again for the weight, and memory is
        # what a loop waits for. It makes one loop only if both, and the gradient's square, differ.
        used_mean = mean - (mean - gradient) * shares[0]
        used_square = square - (square - tf.maximum(gradient, -gradient) ** 2) * shares[1]
    return used_mean * rate / (_root(used_square) + epsilon), new_mean, new_square


def _root(square: Any) -> Any:
    # XLA makes a square root of it, as it sees that nothing negative can come.
    return tf.maximum(square, 0.0) ** 0.5


def choose_rate(settings: HeadTraining, rates: Any, steps: Any) -> Any:
    """The learning rate of each head after its steps, as the schedule has it.

    Args:
        settings: Name the schedule and its course.
        rates: Learning rates at step 0, ``(heads,)``.
        steps: Updates done, ``(heads,)``.
    """
    done = tf.cast(steps, rates.dtype) / settings.decay_steps
    match settings.schedule:
        case "exponential":
            return rates * settings.decay_rate**done
        case "staircase":
            return rates * settings.decay_rate ** tf.floor(done)
        case "cosine":
            return rates * 0.5 * (1 + tf.cos(math.pi * tf.minimum(done, 1.0)))
        case _:
            return rates


def start_slots(settings: HeadTraining, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The moments of a rule before the first step, ``(heads, slots, ...)``.

    Args:
        settings: Name the rule.
        shape: Of the weights, ``(heads, ...)``.
    """
    slots = {"adam": 2, "sgd": 0, "momentum": 1, "nesterov": 1, "rmsprop": 2, "adagrad": 1}
    # Adagrad divides by the root of its sum from the first step on.
    start = 0.1 if settings.optimizer == "adagrad" else 0.0
    return np.full((shape[0], slots[settings.optimizer], *shape[1:]), start, np.float32)


def update(
    settings: HeadTraining,
    weights: Any,
    slots: tuple[Any, ...],
    gradient: Any,
    rate: Any,
    steps: Any,
    in_xla: bool = True,
) -> tuple[Any, tuple[Any, ...]]:
    """One step of many heads, by the formula of the optimizer of that name in Keras.

    Args:
        settings: Name the rule and its momentum.
        weights: ``(heads, ...)``.
        slots: The rule's moments, each as ``weights``.
        gradient: As ``weights``.
        rate: Learning rates, ``(heads, 1, ...)``.
        steps: Updates done before, as ``rate``.
        in_xla: Whether XLA compiles it.

    Returns:
        The new weights and slots.
    """
    momentum, epsilon = settings.momentum, 1e-7
    if settings.clip_value:
        gradient = tf.clip_by_value(gradient, -settings.clip_value, settings.clip_value)
    match settings.optimizer:
        case "adam":
            step = tf.cast(steps + 1, weights.dtype)
            rate = rate * _root(1 - 0.999**step) / (1 - 0.9**step)
            shares = 1 - 0.9, 1 - 0.999
            move, *moments = _step_adam(slots, gradient, rate, shares, epsilon, in_xla)
            return weights - move, tuple(moments)
        case "momentum":
            move = slots[0] * momentum - gradient * rate
            return weights + move, (move,)
        case "nesterov":
            move = slots[0] * momentum - gradient * rate
            return weights + move * momentum - gradient * rate, (move,)
        case "rmsprop":
            square = 0.9 * slots[0] + 0.1 * gradient**2
            move = momentum * slots[1] + rate * gradient / _root(square + epsilon)
            return weights - move, (square, move)
        case "adagrad":
            total = slots[0] + gradient**2
            return weights - rate * gradient / _root(total + epsilon), (total,)
        case "sgd":
            return weights - gradient * rate, ()

"""What sets one layer's training apart: a slower rate, a pull back to where it began."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf


@dataclass(frozen=True)
class LayerRule:
    """How a layer is trained otherwise than the rest of its model.

    Attributes:
        rate: Factor of every update of its weights, of whatever update rule: as a learning rate
            of its own. 0 is none.
        anchor: Factor of the squared distance of its kernels from where training began, added
            to the loss (L2-SP).

    References:
        Howard, Ruder (2018), Universal language model fine-tuning for text classification, 3.2.
        Li, Grandvalet, Davoine (2018), Explicit inductive bias for transfer learning, 3.
    """

    rate: float = 1.0
    anchor: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what no training could follow."""
        if not (self.rate >= 0 and self.anchor >= 0):
            msg = f"A layer's rate and anchor must be at least 0: {self.rate} and {self.anchor}."
            raise ValueError(msg)


Rules = Mapping[str, LayerRule]


class Tuning:
    """The rules of a model's layers, for its compiled program.

    The weights to return to are those the model has now.
    """

    def __init__(self, model: keras.Model, rules: Rules) -> None:
        """Raises ValueError if a rule is for a layer that the model does not have."""
        layers = {layer.name: layer for layer in model.layers}
        unknown = sorted(set(rules) - set(layers))
        if unknown:
            msg = f"Rules for unknown layers: {', '.join(unknown)}. There are {', '.join(layers)}."
            raise ValueError(msg)
        trained = [
            (rule, variable)
            for name, rule in rules.items()
            for variable in layers[name].trainable_variables
        ]
        self._slow = [(rule.rate, variable) for rule, variable in trained if rule.rate != 1]
        self._anchored = [
            (rule.anchor, variable, keras.Variable(variable.numpy(), trainable=False))
            for rule, variable in trained
            if rule.anchor and variable.name == "kernel"
        ]

    @property
    def variables(self) -> list[Any]:
        """The weights to return to."""
        return [start for _, _, start in self._anchored]

    def penalties(self) -> list[Any]:
        """What the anchors add to the loss."""
        return [
            factor * tf.reduce_sum((variable - start) ** 2)
            for factor, variable, start in self._anchored
        ]

    @contextmanager
    def slowed_down(self) -> Iterator[None]:
        """Shortens the updates made within.

        Not the gradients: Adam, for one, takes steps of the same length whatever their scale.
        """
        before = [tf.identity(variable.value) for _, variable in self._slow]
        yield
        for (rate, variable), start in zip(self._slow, before, strict=True):
            variable.assign(start + rate * (variable - start))

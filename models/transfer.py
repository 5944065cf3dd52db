"""From one network to the next: layers copied, frozen, slowed down, held back."""

import re
from typing import Any

import keras
import numpy as np

from models.config import Network
from models.networks import (
    Statistics,
    build_classifier,
    build_head,
    build_trunk,
    measure_pixels,
)
from models.strategies import Strategy
from models.tuning import LayerRule, Rules

Array = np.ndarray[Any, Any]


def build_network(
    strategy: Strategy,
    pretrained: keras.Model | None,
    network: Network | None,
    rows: Array,
    classes: int,
    seed: int,
) -> keras.Model:
    """Builds what a strategy begins with: hidden layers and head, new or pretrained.

    Args:
        strategy: Says which layers are copied, and whether batch norm's statistics are adapted.
        pretrained: The classifier whose hidden layers are copied; None if all weights are new.
        network: The hidden layers: those of the pretrained classifier or, from the bottom, some.
            None for a softmax on the pixels.
        rows: The images to train on, ``(rows, columns)``, or what the strategy puts in their place.
        classes: Outputs of the head.
        seed: Of all new weights.

    Returns:
        A model from ``(rows, columns)`` to probabilities ``(rows, classes)`` that shares no
        weights with the pretrained one.
    """
    columns = rows.shape[1]
    if network is None:
        return build_head(columns, classes, seed)
    statistics = pixel_statistics(pretrained) if pretrained else measure_pixels(rows)
    trunk = build_trunk(network, columns, seed, statistics, strategy.above)
    model = build_classifier(trunk, classes, seed, network)
    if pretrained:
        for layer in filter(_has_weights, model.layers):
            if strategy.head if layer.name.startswith("head") else _level(layer) <= strategy.reused:
                layer.set_weights(pretrained.get_layer(layer.name).get_weights())
    if strategy.adapt_statistics:
        adapt_statistics(model, rows)
    return model


def adopt_trunk(model: keras.Model, pretrained: keras.Model) -> None:
    """Gives a classifier the hidden layers of another model, and freezes them.

    Args:
        model: A classifier; its head stays as it is.
        pretrained: A model with hidden layers of the same names and shapes, such as a network for
            pairs, whose first stack they are.
    """
    for layer in filter(_has_weights, _hidden(model)):
        layer.set_weights(pretrained.get_layer(layer.name).get_weights())
    freeze_below(model, 0)


def keep_classes(wide: keras.Model, narrow: keras.Model) -> None:
    """Gives a classifier the weights of one that has further classes after its own.

    Args:
        wide: Stays as it is.
        narrow: Of the same layers, but for fewer outputs.
    """
    for layer in filter(_has_weights, narrow.layers):
        own, given = layer.get_weights(), wide.get_layer(layer.name).get_weights()
        layer.set_weights([b[..., : a.shape[-1]] for a, b in zip(own, given, strict=True)])


def pixel_statistics(model: keras.Model) -> Statistics | None:
    """What a model standardizes its inputs by; None if it does not."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            config = layer.get_config()
            return np.array(config["mean"]), np.array(config["variance"])
    return None


def freeze_below(model: keras.Model, layers: int) -> None:
    """Freezes all hidden layers but so many from the top; the head is always trained.

    Convolutions lie below the hidden layers and are trained only if all of those are.

    Frozen batch norm uses the statistics it has, and leaves them as they are.
    """
    depth = _depth(model)
    for layer in _hidden(model):
        layer.trainable = _level(layer) > depth - layers or layers >= depth


def adapt_statistics(model: keras.Model, rows: Array) -> None:
    """Sets batch norm's means and variances to those of other rows, layer by layer, in place.

    Args:
        model: A classifier.
        rows: ``(rows, columns)``.

    References:
        Li et al. (2017), Revisiting batch normalization for practical domain adaptation.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = keras.Model(model.input, layer.input)(rows, training=False).numpy()
            layer.moving_mean.assign(values.mean(axis=0))
            layer.moving_variance.assign(values.var(axis=0))


def layer_rules(model: keras.Model, rate_decay: float, anchor: float) -> Rules:
    """How each hidden layer learns otherwise than the head.

    Args:
        model: A classifier.
        rate_decay: The rate of each layer is that of the one above it divided by this.
        anchor: Factor of the squared distance of its kernels from where training began.
    """
    depth = _depth(model)
    return {
        layer.name: LayerRule(rate=rate_decay ** (_level(layer) - depth - 1), anchor=anchor)
        for layer in _hidden(model)
        if _has_weights(layer) and (rate_decay != 1 or anchor)
    }


def _hidden(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if re.match(r"(hidden|conv)\d", layer.name)]


def _has_weights(layer: keras.layers.Layer) -> bool:
    return bool(layer.weights)


def _level(layer: keras.layers.Layer) -> int:
    """1 for each layer that is part of hidden1, 0 for what lies below."""
    found = re.match(r"hidden(\d+)", layer.name)
    return int(found[1]) if found else 0


def _depth(model: keras.Model) -> int:
    return max(map(_level, model.layers), default=0)

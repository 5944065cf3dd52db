"""The networks: a trunk of equal hidden layers, softmax heads, and trunks cut at a layer.

Only layers that Keras ships, so that a saved model loads with ``safe_mode=True``.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.config import Activation, Network

Array = np.ndarray[Any, Any]

# Added to the level of a head's layers, so that they draw other weights than a trunk's.
_IN_HEAD = 3000


def build_trunk(network: Network, columns: int, seed: int) -> keras.Model:
    """Builds the hidden layers; the output of layer ``hiddenK`` is its activation.

    Args:
        network: Depth, width, activation, initialiser, batch norm and dropout.
        columns: Columns of the input, ``(rows, columns)``.
        seed: The same seed gives the same weights.

    Returns:
        A model from ``(rows, columns)`` to ``(rows, network.units)``.
    """
    pixels = keras.Input((columns,), name="pixels")
    hidden = pixels
    for level, name in enumerate(network.layer_names, start=1):
        hidden = _add_hidden(hidden, network, name, _layer_seed(seed, level))
    return keras.Model(pixels, hidden, name="trunk")


def _add_hidden(
    inputs: keras.KerasTensor, network: Network, name: str, seed: int
) -> keras.KerasTensor:
    initializer = keras.initializers.get(
        {"class_name": network.initializer, "config": {"seed": seed}}
    )
    hidden = keras.layers.Dense(
        network.units,
        # Batch norm subtracts the mean, and with it any bias.
        use_bias=not network.batch_norm,
        kernel_initializer=initializer,
        # Only here: what layers hand on, and caches keep, is float32 either way.
        dtype="mixed_bfloat16" if network.mixed_precision else None,
        name=f"{name}_dense",
    )(inputs)
    if network.batch_norm:
        hidden = keras.layers.BatchNormalization(name=f"{name}_norm")(hidden)
    hidden = keras.layers.Activation(network.activation, name=name)(hidden)
    if network.dropout:
        hidden = keras.layers.Dropout(network.dropout, seed=seed, name=f"{name}_dropout")(hidden)
    return hidden


def build_classifier(trunk: keras.Model, classes: int, seed: int) -> keras.Model:
    """Puts a softmax layer ``head`` on a trunk; the layers of the trunk are shared, not copied.

    Returns:
        A model from ``(rows, columns)`` to probabilities ``(rows, classes)``.
    """
    return keras.Model(trunk.input, _softmax(classes, seed)(trunk.output), name="classifier")


def build_head(
    columns: int,
    classes: int,
    seed: int,
    l2: float = 0.0,
    dropout: float = 0.0,
    hidden: Sequence[int] = (),
    activation: Activation = "elu",
) -> keras.Model:
    """Builds a softmax classifier: on activations a new head, on pixels the baseline to beat.

    Args:
        columns: Columns of the input, ``(rows, columns)``.
        classes: Columns of the output.
        seed: The same seed gives the same weights.
        l2: Factor of the sum of the squared weights in the loss.
        dropout: Share of the inputs set to 0 in training.
        hidden: Units of layers below the softmax, the lowest first; none is a linear classifier.
        activation: Of those layers.

    Returns:
        A model from ``(rows, columns)`` to probabilities ``(rows, classes)``.
    """
    inputs = keras.Input((columns,), name="inputs")
    last = keras.layers.Dropout(dropout, seed=seed, name="dropout")(inputs) if dropout else inputs
    for level, units in enumerate(hidden, start=1):
        last = keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.HeNormal(_layer_seed(seed, _IN_HEAD + level)),
            kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
            name=f"dense{level}",
        )(last)
    return keras.Model(inputs, _softmax(classes, seed, l2)(last), name="classifier")


def draw_head_kernels(columns: int, classes: int, seeds: Sequence[int]) -> Array:
    """Draws the first weights that ``build_head`` gives to each seed.

    Returns:
        Weights ``(seeds, columns, classes)``.
    """
    limit = math.sqrt(6 / (columns + classes))
    drawn: Array = _draw_uniform(
        tf.constant([_layer_seed(seed, 0) for seed in seeds]), (columns, classes), limit
    ).numpy()
    return drawn


@tf.function
def _draw_uniform(seeds: Any, shape: tuple[int, ...], limit: float) -> Any:
    """What Keras draws with each seed from -limit to limit, at a tenth of its overhead."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform(shape, [seed, 0], -limit, limit),
        seeds,
        fn_output_signature=tf.float32,
    )


def _softmax(classes: int, seed: int, l2: float = 0.0) -> keras.layers.Layer:
    initializer = keras.initializers.GlorotUniform(seed=_layer_seed(seed, 0))
    return keras.layers.Dense(
        classes,
        activation="softmax",
        kernel_initializer=initializer,
        kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
        name="head",
    )


def cut_trunk(model: keras.Model, layers: Sequence[str]) -> keras.Model:
    """Cuts a model open at some hidden layers, sharing its weights.

    Args:
        model: A trunk, or a classifier on top of one.
        layers: Names of hidden layers, such as ``("hidden1", "hidden5")``.

    Returns:
        A model from ``(rows, columns)`` to a list with one ``(rows, units)`` for each layer.

    Raises:
        ValueError: If no layer or an unknown one is named.
    """
    known = [layer.name for layer in model.layers if re.fullmatch(r"hidden\d+", layer.name)]
    unknown = [repr(name) for name in layers if name not in known]
    if unknown or not layers:
        has = f"This trunk has {known[0]} to {known[-1]}." if known else "It has no hidden layers."
        what = f"Unknown layer {', '.join(unknown)}." if unknown else "No layer to cut at."
        msg = f"{what} {has}"
        raise ValueError(msg)
    outputs = [model.get_layer(name).output for name in layers]
    return keras.Model(model.input, outputs, name="activations")


def join_head(model: keras.Model, layer: str, head: keras.Model) -> keras.Model:
    """Puts a head that was trained on a layer's activations onto that layer.

    Args:
        model: A trunk, or a classifier on top of one.
        layer: The hidden layer, such as ``hidden3``.
        head: A model from ``(rows, units)`` to probabilities ``(rows, classes)``.

    Returns:
        A model from ``(rows, columns)`` to probabilities ``(rows, classes)``.
    """
    cut = cut_trunk(model, (layer,))
    (activation,) = cut.outputs
    return keras.Model(cut.input, head(activation), name="classifier")


def average(models: Sequence[keras.Model]) -> keras.Model:
    """Joins classifiers of the same input to one whose answer is the mean of theirs."""
    if len(models) == 1:
        return models[0]
    inputs = keras.Input(models[0].input_shape[1:], name="pixels")
    for number, model in enumerate(models, start=1):
        model.name = f"{model.name}{number}"
    answers = keras.layers.Average(name="mean")([model(inputs) for model in models])
    return keras.Model(inputs, answers, name="ensemble")


def _layer_seed(seed: int, level: int) -> int:
    """Draws one layer's seed: neighbouring seeds and layers share no random numbers."""
    # Halved, because Keras keeps seeds in signed 32 bits.
    return int(np.random.SeedSequence([seed, level]).generate_state(1)[0] >> 1)

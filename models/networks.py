"""The networks: a trunk of hidden layers, softmax heads, and trunks cut at a layer.

Only layers that Keras ships, so that a saved model loads with ``safe_mode=True``.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.config import Activation, Initializer, Network

Array = np.ndarray[Any, Any]
# Mean and variance of each pixel, (columns,) each.
Statistics = tuple[Array, Array]

# Added to the number of a layer that is no hidden one: of every layer its own seed.
_CONVOLUTIONS, _DROPOUTS, _IN_HEAD = 1000, 2000, 3000

# Scale, fan and distribution of Keras's initialisers, all of them its VarianceScaling.
_SCALING: dict[Initializer, tuple[float, str, str]] = {
    "he_normal": (2.0, "fan_in", "truncated_normal"),
    "he_uniform": (2.0, "fan_in", "uniform"),
    "glorot_normal": (1.0, "fan_avg", "truncated_normal"),
    "glorot_uniform": (1.0, "fan_avg", "uniform"),
    "lecun_normal": (1.0, "fan_in", "truncated_normal"),
}


def build_trunk(
    network: Network,
    columns: int,
    seed: int,
    statistics: Statistics | None = None,
    above: int = 0,
) -> keras.Model:
    """Builds the hidden layers; the output of layer ``hiddenK`` is its activation.

    Args:
        network: What the layers are.
        columns: Columns of the input, ``(rows, columns)``.
        seed: The same seed gives the same weights.
        statistics: Of the pixels, for standardized inputs, see ``measure_pixels``.
        above: Leave out so many of the lowest hidden layers, and all below them: the input is
            the activations of the last one left out.

    Returns:
        A model from ``(rows, columns)`` to the activations of the last layer ``(rows, units)``.

    Raises:
        ValueError: If convolutions are asked for and the columns are no square, or there are no
            statistics to standardize by.
    """
    pixels = keras.Input((columns,), name="pixels")
    hidden = pixels
    if not above:
        hidden = _add_scaling(hidden, network, statistics)
        hidden = _add_convolutions(hidden, network, columns, seed)
        if network.input_dropout:
            dropout = keras.layers.Dropout(
                network.input_dropout, seed=_layer_seed(seed, _DROPOUTS), name="pixels_dropout"
            )
            hidden = dropout(hidden)
    for level, name in list(enumerate(network.layer_names))[above:]:
        layer_seed = _layer_seed(seed, level + 1)
        dense = keras.layers.Dense(
            network.sizes[level],
            use_bias=_has_bias(network),
            # Only here: what layers hand on, and caches keep, is float32 either way.
            dtype="mixed_bfloat16" if network.mixed_precision else None,
            name=f"{name}_dense",
            **_kernel_options(network, layer_seed),
        )
        hidden = _add_activation(dense(hidden), network, name)
        if rate := network.dropout_rates[level]:
            hidden = keras.layers.Dropout(rate, seed=layer_seed, name=f"{name}_dropout")(hidden)
    return keras.Model(pixels, hidden, name="trunk")


def measure_pixels(rows: Array) -> Statistics:
    """Mean and variance of each pixel over the training images ``(rows, columns)``."""
    return rows.mean(axis=0), rows.var(axis=0)


def _add_scaling(
    pixels: keras.KerasTensor, network: Network, statistics: Statistics | None
) -> keras.KerasTensor:
    match network.inputs:
        case "unit":
            return pixels
        case "centered":
            return keras.layers.Rescaling(1.0, offset=-0.5, name="pixels_scaled")(pixels)
        case "standardized":
            if statistics is None:
                msg = "network.inputs = standardized needs the statistics of the pixels"
                raise ValueError(msg)
            mean, variance = (values.tolist() for values in statistics)
            return keras.layers.Normalization(mean=mean, variance=variance, name="pixels_scaled")(
                pixels
            )


def _add_convolutions(
    pixels: keras.KerasTensor, network: Network, columns: int, seed: int
) -> keras.KerasTensor:
    if not network.filters:
        return pixels
    side = math.isqrt(columns)
    if side**2 != columns:
        msg = f"network.filters: images of {columns} pixels are not square"
        raise ValueError(msg)
    maps = keras.layers.Reshape((side, side, 1), name="pixels_square")(pixels)
    strides = network.strides or (1,) * len(network.filters)
    for number, (filters, stride) in enumerate(zip(network.filters, strides, strict=True), 1):
        convolution = keras.layers.Conv2D(
            filters,
            3,
            strides=stride,
            padding="same",
            use_bias=_has_bias(network),
            name=f"conv{number}_maps",
            **_kernel_options(network, _layer_seed(seed, _CONVOLUTIONS + number)),
        )
        maps = _add_activation(convolution(maps), network, f"conv{number}")
    return keras.layers.Flatten(name="flat")(maps)


def _has_bias(network: Network) -> bool:
    # Batch norm right after the products subtracts the mean, and with it any bias.
    return network.norm_bias or not (network.batch_norm and network.norm_place == "before")


def _kernel_options(network: Network, seed: int) -> dict[str, Any]:
    norm, axis = network.max_norm, network.max_norm_axis
    return {
        "kernel_initializer": _initializer(network.initializer, network.initial_scale, seed),
        "kernel_regularizer": _regularizer(network.l1, network.l2),
        "kernel_constraint": keras.constraints.MaxNorm(norm, axis=axis) if norm else None,
    }


def _add_activation(products: keras.KerasTensor, network: Network, name: str) -> keras.KerasTensor:
    if network.activation == "leaky_relu":
        activation = keras.layers.LeakyReLU(negative_slope=network.slope, name=name)
    else:
        activation = keras.layers.Activation(network.activation, name=name)
    if not network.batch_norm:
        return activation(products)
    norm = _norm(network, name)
    return (
        activation(norm(products)) if network.norm_place == "before" else norm(activation(products))
    )


def _norm(network: Network, name: str) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(momentum=network.norm_momentum, name=f"{name}_norm")


def _initializer(kind: Initializer, factor: float, seed: int) -> keras.initializers.Initializer:
    if kind == "truncated_normal":
        return keras.initializers.TruncatedNormal(stddev=factor, seed=seed)
    scale, mode, distribution = _SCALING[kind]
    return keras.initializers.VarianceScaling(scale * factor**2, mode, distribution, seed=seed)


def _regularizer(l1: float, l2: float) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L1L2(l1, l2) if l1 or l2 else None


def build_classifier(
    trunk: keras.Model, classes: int, seed: int, network: Network | None = None
) -> keras.Model:
    """Puts a softmax layer ``head`` on a trunk; the layers of the trunk are shared, not copied.

    Args:
        trunk: From ``(rows, columns)`` to ``(rows, units)``.
        classes: Columns of the output.
        seed: The same seed gives the same weights.
        network: Says what the head is; None is a plain softmax layer.

    Returns:
        A model from ``(rows, columns)`` to probabilities ``(rows, classes)``; with
        ``network.outputs`` sigmoid those of a row do not sum to 1.
    """
    network, hidden = network or Network(), trunk.output
    if network.alpha_dropout:
        hidden = keras.layers.AlphaDropout(
            network.alpha_dropout, seed=_layer_seed(seed, _DROPOUTS), name="head_dropout"
        )(hidden)
    initializer = _initializer(
        network.head_initializer, network.initial_scale, _layer_seed(seed, 0)
    )
    head = keras.layers.Dense(
        classes,
        activation=None if network.norm_head else network.outputs,
        kernel_initializer=initializer,
        kernel_regularizer=_regularizer(network.l1, network.l2),
        name="head",
    )
    answers = head(hidden)
    if network.norm_head:
        answers = _norm(network, "head")(answers)
        answers = keras.layers.Activation(network.outputs, name="head_answers")(answers)
    return keras.Model(trunk.input, answers, name="classifier")


def choose_loss(network: Network) -> str | Callable[[Any, Any], Any]:
    """The loss that fits the source head's outputs, as ``training.fit`` takes it."""
    return "sparse_categorical_crossentropy" if network.outputs == "softmax" else one_against_all


def one_against_all(labels: Any, answers: Any) -> Any:
    """Mean cross-entropy of each class against the others, ``(rows,)``.

    Args:
        labels: ``(rows,)``.
        answers: Probability of each class for itself, ``(rows, classes)``.
    """
    targets = keras.ops.one_hot(labels, answers.shape[-1])
    return keras.losses.binary_crossentropy(targets, answers)


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


@tf.function(autograph=False)
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
        kernel_regularizer=_regularizer(0.0, l2),
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

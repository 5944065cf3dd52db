from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest

from models.config import Activation, Initializer, Network
from models.networks import (
    build_classifier,
    build_head,
    build_trunk,
    choose_loss,
    cut_trunk,
    join_head,
    measure_pixels,
)

SMALL = Network(hidden_layers=3, units=8, batch_norm=False)


def draw_rows(rows: int, columns: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


def test_same_seed_gives_same_weights() -> None:
    first, second = (build_classifier(build_trunk(SMALL, 6, 1), 4, 1) for _ in range(2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_layer_and_seed_draws_other_weights() -> None:
    square = Network(hidden_layers=3, units=6, batch_norm=False)
    kernels = [
        model.get_layer(f"{name}_dense").kernel.numpy().tobytes()
        for model in (build_trunk(square, 6, 1), build_trunk(square, 6, 2))
        for name in square.layer_names
    ]
    assert len(set(kernels)) == 6


def test_he_initialiser_keeps_twice_the_inverse_fan_in_as_variance() -> None:
    kernel = build_trunk(
        Network(hidden_layers=1, units=500, batch_norm=False), 400, 1
    ).get_weights()[0]
    assert kernel.std() == pytest.approx(np.sqrt(2 / 400), rel=0.01)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_hidden_layer_gives_the_activation_of_its_products(activation: str) -> None:
    network = Network(
        hidden_layers=2, units=8, activation=activation, batch_norm=False, dropout=0.5
    )
    trunk = build_trunk(network, 6, 1)
    rows = draw_rows(5)
    first, second = cut_trunk(trunk, ["hidden1", "hidden2"])(rows)
    expected = keras.activations.get(activation)(trunk.get_layer("hidden2_dense")(first))
    np.testing.assert_array_equal(second.numpy(), expected.numpy())
    np.testing.assert_array_equal(trunk(rows, training=False).numpy(), second.numpy())


@pytest.mark.parametrize("initializer", get_args(Initializer))
def test_each_initialiser_is_drawn_from_the_seed(initializer: str) -> None:
    network = Network(hidden_layers=1, units=8, initializer=initializer, batch_norm=False)
    kernels = [build_trunk(network, 6, seed).get_weights()[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_batch_norm_stands_before_the_activation_and_replaces_the_bias() -> None:
    trunk = build_trunk(Network(hidden_layers=1, units=8, batch_norm=True, dropout=0.1), 6, 1)
    names = [layer.name for layer in trunk.layers[1:]]
    assert names == ["hidden1_dense", "hidden1_norm", "hidden1", "hidden1_dropout"]
    assert not trunk.get_layer("hidden1_dense").use_bias


def test_classifier_shares_the_trunk_and_gives_probabilities() -> None:
    trunk = build_trunk(SMALL, 6, 1)
    classifier = build_classifier(trunk, 4, 1)
    assert classifier.get_layer("hidden2_dense") is trunk.get_layer("hidden2_dense")
    probabilities = classifier(draw_rows(5)).numpy()
    assert probabilities.shape == (5, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_head_is_one_softmax_layer() -> None:
    head = build_head(6, 4, 1)
    rows = draw_rows(5)
    kernel, bias = head.get_weights()
    products = np.exp(rows @ kernel + bias)
    expected = products / products.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head(rows).numpy(), expected, rtol=1e-5)


def test_cut_gives_the_asked_layers_in_the_asked_order() -> None:
    classifier = build_classifier(build_trunk(SMALL, 6, 1), 4, 1)
    rows = draw_rows(5)
    third, first = cut_trunk(classifier, ["hidden3", "hidden1"])(rows)
    expected = classifier.get_layer("hidden1")(classifier.get_layer("hidden1_dense")(rows))
    np.testing.assert_array_equal(first.numpy(), expected.numpy())
    probabilities = classifier.get_layer("head")(third)
    np.testing.assert_array_equal(probabilities.numpy(), classifier(rows).numpy())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["hidden1", "hidden7"], "Unknown layer 'hidden7'. This trunk has hidden1 to hidden3."),
        (
            ["hidden0", "head"],
            "Unknown layer 'hidden0', 'head'. This trunk has hidden1 to hidden3.",
        ),
        ([], "No layer to cut at. This trunk has hidden1 to hidden3."),
    ],
)
def test_unknown_layer_is_named_with_the_known_ones(layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match="layer") as error:
        cut_trunk(build_classifier(build_trunk(SMALL, 6, 1), 4, 1), layers)
    assert str(error.value) == message


def test_cutting_a_model_without_hidden_layers_says_so() -> None:
    with pytest.raises(ValueError, match="It has no hidden layers"):
        cut_trunk(build_head(6, 4, 1), ["hidden1"])


# Keras 3.15 saves variables by np.array(), whose copy keyword they do not take.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saved_model_loads_in_safe_mode(tmp_path: Path) -> None:
    network = Network(hidden_layers=2, units=8, batch_norm=True, dropout=0.1)
    model = build_classifier(build_trunk(network, 6, 1), 4, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    rows = draw_rows(5)
    np.testing.assert_array_equal(loaded(rows).numpy(), model(rows).numpy())
    cuts = [cut_trunk(each, ["hidden1"])(rows)[0].numpy() for each in (loaded, model)]
    np.testing.assert_array_equal(*cuts)


def test_mixed_precision_is_inside_the_hidden_layers_only() -> None:
    network = Network(hidden_layers=2, units=8, batch_norm=False, mixed_precision=True)
    model = build_classifier(build_trunk(network, 6, 1), 4, 1)
    exact = build_classifier(build_trunk(SMALL.model_copy(update={"hidden_layers": 2}), 6, 1), 4, 1)
    assert model.get_layer("hidden1_dense").compute_dtype == "bfloat16"
    rows = draw_rows(5)
    for mine, theirs in zip(
        [*cut_trunk(model, ["hidden1", "hidden2"])(rows), model(rows)],
        [*cut_trunk(exact, ["hidden1", "hidden2"])(rows), exact(rows)],
        strict=True,
    ):
        assert mine.dtype == "float32"
        assert not np.array_equal(mine, theirs)
        np.testing.assert_allclose(mine, theirs, atol=0.1)


def test_head_has_the_penalty_and_the_dropout_asked_for() -> None:
    head = build_head(6, 4, 1, l2=0.5, dropout=0.3)
    kernel = head.get_layer("head").kernel.numpy()
    assert float(head.losses[0]) == pytest.approx(0.5 * np.sum(kernel**2), rel=1e-5)
    assert head.get_layer("dropout").rate == 0.3
    np.testing.assert_array_equal(kernel, build_head(6, 4, 1).get_layer("head").kernel.numpy())
    assert [layer.name for layer in build_head(6, 4, 1).layers] == ["inputs", "head"]


def test_head_with_hidden_layers_computes_them_in_order() -> None:
    head = build_head(6, 4, 1, hidden=(5, 3), activation="tanh")
    rows = draw_rows(7)
    values = rows
    for name, activate in (("dense1", np.tanh), ("dense2", np.tanh), ("head", None)):
        kernel, bias = head.get_layer(name).get_weights()
        values = values @ kernel + bias
        values = activate(values) if activate else values
    powers = np.exp(values)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head(rows).numpy(), expected, rtol=1e-4)
    assert head.output_shape == (None, 4)


def test_heads_layers_are_drawn_from_the_seed_and_not_as_a_trunks() -> None:
    kernels = [
        build_head(6, 4, seed, hidden=(6, 6)).get_layer(name).get_weights()[0]
        for seed, name in ((1, "dense1"), (1, "dense1"), (1, "dense2"), (2, "dense1"))
    ]
    kernels += [
        build_trunk(Network(hidden_layers=2, units=6, batch_norm=False), 6, 1).get_weights()[0]
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert len({kernel.tobytes() for kernel in kernels}) == 4


def test_a_linear_head_draws_the_same_softmax_with_and_without_that_choice() -> None:
    plain, chosen = build_head(6, 4, 1), build_head(6, 4, 1, hidden=(), activation="relu")
    np.testing.assert_array_equal(plain.get_weights()[0], chosen.get_weights()[0])
    assert plain.get_config() == chosen.get_config()


def test_a_head_with_hidden_layers_joins_its_trunk() -> None:
    trunk = build_trunk(SMALL, 6, 1)
    head = build_head(8, 4, 1, hidden=(5,))
    rows = draw_rows(3)
    _, activations = cut_trunk(trunk, ["hidden1", "hidden2"])(rows)
    joined = join_head(trunk, "hidden2", head)
    np.testing.assert_array_equal(joined(rows).numpy(), head(activations).numpy())


# --- What experiments ask for ---

PLAIN = Network(widths=(5, 4), batch_norm=False, activation="relu")


def test_widths_say_how_many_units_each_hidden_layer_has() -> None:
    trunk = build_trunk(PLAIN, 6, 1)
    assert [trunk.get_layer(name).output.shape[1] for name in PLAIN.layer_names] == [5, 4]
    assert (PLAIN.shape, SMALL.shape) == ("5-4", "3x8")


def test_convolutions_stand_below_the_hidden_layers_and_halve_by_their_strides() -> None:
    network = PLAIN.model_copy(update={"filters": (2, 3), "strides": (1, 2)})
    trunk = build_trunk(network, 36, 1)
    shapes = [trunk.get_layer(name).output.shape[1:] for name in ("conv1", "conv2", "hidden1")]
    assert shapes == [(6, 6, 2), (3, 3, 3), (5,)]
    with pytest.raises(ValueError, match="images of 35 pixels are not square"):
        build_trunk(network, 35, 1)


def test_standardized_pixels_have_mean_0_and_deviation_1_over_the_training_images() -> None:
    rows = draw_rows(200) * 3 + 5
    network = PLAIN.model_copy(update={"inputs": "standardized"})
    trunk = build_trunk(network, 6, 1, measure_pixels(rows))
    scaled = keras.Model(trunk.input, trunk.get_layer("pixels_scaled").output)(rows).numpy()
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-5)
    with pytest.raises(ValueError, match="needs the statistics"):
        build_trunk(network, 6, 1)


def test_centered_pixels_lie_around_0() -> None:
    trunk = build_trunk(PLAIN.model_copy(update={"inputs": "centered"}), 2, 1)
    scaled = keras.Model(trunk.input, trunk.get_layer("pixels_scaled").output)
    np.testing.assert_array_equal(scaled(np.array([[0.0, 1.0]])).numpy(), [[-0.5, 0.5]])


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("before", ["hidden1_dense", "hidden1_norm", "hidden1"]),
        ("after", ["hidden1_dense", "hidden1", "hidden1_norm"]),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_stands_where_it_is_put(place: str, names: list[str], bias: bool) -> None:
    network = Network(hidden_layers=1, units=8, norm_place=place, norm_bias=bias, norm_momentum=0.9)
    trunk = build_trunk(network, 6, 1)
    assert [layer.name for layer in trunk.layers[1:]] == names
    assert trunk.get_layer("hidden1_norm").momentum == 0.9
    # After the activation nothing takes the place of a bias.
    assert trunk.get_layer("hidden1_dense").use_bias == (bias or place == "after")


def test_logits_may_be_normalised_before_the_softmax() -> None:
    network = PLAIN.model_copy(update={"norm_head": True})
    model = build_classifier(build_trunk(network, 6, 1), 4, 1, network)
    assert [layer.name for layer in model.layers[-3:]] == ["head", "head_norm", "head_answers"]
    np.testing.assert_allclose(model(draw_rows(5)).numpy().sum(axis=1), 1, rtol=1e-6)


def test_one_head_a_class_has_probabilities_of_its_own_and_their_loss() -> None:
    network = PLAIN.model_copy(update={"outputs": "sigmoid"})
    answers = build_classifier(build_trunk(network, 6, 1), 4, 1, network)(draw_rows(3))
    labels = np.array([0, 3, 1])
    targets = np.eye(4)[labels]
    p = answers.numpy()
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(axis=1)
    loss = choose_loss(network)
    assert callable(loss)
    np.testing.assert_allclose(loss(labels, answers).numpy(), expected, rtol=1e-5)


def test_penalties_and_norms_are_on_every_kernel_they_are_meant_for() -> None:
    network = PLAIN.model_copy(update={"l1": 0.1, "l2": 0.2, "max_norm": 1.0, "max_norm_axis": 1})
    model = build_classifier(build_trunk(network, 6, 1), 4, 1, network)
    kernels = [model.get_layer(f"{name}_dense").kernel for name in PLAIN.layer_names]
    kernels.append(model.get_layer("head").kernel)
    penalty = sum(0.1 * np.abs(k).sum() + 0.2 * (k.numpy() ** 2).sum() for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(float(penalty), rel=1e-5)
    limits = [layer.kernel_constraint for layer in model.layers if hasattr(layer, "kernel")]
    assert [limit and (limit.max_value, limit.axis) for limit in limits] == [(1, 1), (1, 1), None]


def test_dropout_is_where_and_as_strong_as_asked_for() -> None:
    network = PLAIN.model_copy(
        update={"input_dropout": 0.1, "dropouts": (0.2, 0.0), "alpha_dropout": 0.3}
    )
    model = build_classifier(build_trunk(network, 6, 1), 4, 1, network)
    rates = {layer.name: layer.rate for layer in model.layers if hasattr(layer, "rate")}
    assert rates == {"pixels_dropout": 0.1, "hidden1_dropout": 0.2, "head_dropout": 0.3}
    assert isinstance(model.get_layer("head_dropout"), keras.layers.AlphaDropout)


def test_the_slope_of_a_leaky_relu_is_the_one_asked_for() -> None:
    network = PLAIN.model_copy(update={"activation": "leaky_relu", "slope": 0.01})
    layer = build_trunk(network, 6, 1).get_layer("hidden1")
    np.testing.assert_allclose(layer(np.array([-2.0, 3.0])).numpy(), [-0.02, 3.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("initializer", "deviation"), [("truncated_normal", 0.88 / 2), ("he_normal", 0.1 / 2)]
)
def test_initial_weights_are_scaled(initializer: str, deviation: float) -> None:
    # Cut off at two deviations a normal has 0.88 of its deviation.
    network = Network(widths=(300,), batch_norm=False, initializer=initializer, initial_scale=0.5)
    kernel = build_trunk(network, 200, 1).get_weights()[0]
    assert kernel.std() == pytest.approx(deviation, rel=0.02)


def test_a_trunk_above_some_layers_reads_their_activations() -> None:
    whole = build_trunk(PLAIN, 6, 1)
    upper = build_trunk(PLAIN, 5, 1, above=1)
    upper.get_layer("hidden2_dense").set_weights(whole.get_layer("hidden2_dense").get_weights())
    rows = draw_rows(4)
    activations, expected = cut_trunk(whole, ["hidden1", "hidden2"])(rows)
    np.testing.assert_array_equal(upper(activations).numpy(), expected.numpy())


@pytest.mark.parametrize(
    "changed",
    [
        {"filters": (2,), "batch_norm": True},
        {"inputs": "standardized", "alpha_dropout": 0.2},
        {"activation": "leaky_relu", "norm_head": True, "max_norm": 1.0, "l1": 0.1},
    ],
)
def test_every_option_survives_saving_in_safe_mode(tmp_path: Path, changed: dict) -> None:
    network = PLAIN.model_copy(update=changed)
    rows = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    model = build_classifier(build_trunk(network, 9, 1, measure_pixels(rows)), 4, 1, network)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(rows).numpy(), model(rows).numpy())

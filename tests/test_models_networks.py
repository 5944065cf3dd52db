from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest

from models.config import Activation, Initializer, Network
from models.networks import build_classifier, build_head, build_trunk, cut_trunk, join_head

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

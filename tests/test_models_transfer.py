"""What goes from one network to the next."""

import numpy as np
import pytest

from models.config import Network, Transfer
from models.networks import build_classifier, build_trunk, cut_trunk
from models.programs import predict
from models.strategies import make_strategy
from models.transfer import build_network, freeze_below, layer_rules

COLUMNS = 6
NETWORK = Network(hidden_layers=3, units=4, batch_norm=True, dropout=0.3)
ROWS = np.random.default_rng(0).normal(2.0, 3.0, (50, COLUMNS)).astype(np.float32)


@pytest.fixture
def pretrained():
    model = build_classifier(build_trunk(NETWORK, COLUMNS, seed=1), 5, seed=1)
    for variable in model.variables:
        if "moving_mean" in variable.path:
            variable.assign(np.full(variable.shape, 0.5, np.float32))
    return model


def build(name, pretrained, network=NETWORK, **settings):
    strategy = make_strategy(name, Transfer.model_validate(settings), network.hidden_layers)
    return build_network(strategy, pretrained, network, ROWS, classes=3, seed=2)


def weights_of(model, name):
    return [value.tolist() for value in model.get_layer(name).get_weights()]


def test_kept_layers_are_copied_and_the_head_is_new(pretrained):
    kept = NETWORK.model_copy(update={"hidden_layers": 2, "dropout": 0.0})
    model = build("full", pretrained, kept)
    for name in ("hidden1_dense", "hidden1_norm", "hidden2_dense", "hidden2_norm"):
        assert weights_of(model, name) == weights_of(pretrained, name)
    assert model.output_shape == (None, 3)
    names = {layer.name for layer in model.layers}
    assert not names & {"hidden3", "hidden3_dense", "hidden1_dropout"}


def test_a_copy_shares_nothing_with_its_original(pretrained):
    before = weights_of(pretrained, "hidden1_dense")
    build("full", pretrained).get_layer("hidden1_dense").kernel.assign(np.zeros((COLUMNS, 4)))
    assert weights_of(pretrained, "hidden1_dense") == before


def test_without_a_pretrained_network_all_weights_are_drawn_from_the_seed(pretrained):
    one, two = build("scratch", None), build("scratch", None)
    assert weights_of(one, "hidden1_dense") == weights_of(two, "hidden1_dense")
    assert weights_of(one, "hidden1_dense") != weights_of(pretrained, "hidden1_dense")


def test_without_hidden_layers_it_is_a_softmax_on_the_pixels():
    strategy = make_strategy("pixels", Transfer(), 3)
    model = build_network(strategy, None, None, ROWS, classes=3, seed=2)
    assert model.count_params() == COLUMNS * 3 + 3


@pytest.mark.parametrize(("layers", "trained"), [(0, set()), (1, {3}), (2, {2, 3}), (3, {1, 2, 3})])
def test_all_but_the_top_layers_are_frozen(pretrained, layers, trained):
    model = build("full", pretrained)
    freeze_below(model, layers)
    paths = {variable.path.partition("/")[0] for variable in model.trainable_variables}
    expected = {f"hidden{level}_{part}" for level in trained for part in ("dense", "norm")}
    assert paths == {"head", *expected}


def test_frozen_batch_norm_keeps_its_statistics_in_training(pretrained):
    model = build("full", pretrained)
    freeze_below(model, 0)
    model(ROWS, training=True)
    assert weights_of(model, "hidden1_norm") == weights_of(pretrained, "hidden1_norm")


def test_adapted_statistics_are_those_of_the_rows(pretrained):
    model = build("full", pretrained, adapt_statistics=True)
    inputs = ROWS @ model.get_layer("hidden1_dense").kernel.numpy()
    norm = model.get_layer("hidden1_norm")
    np.testing.assert_allclose(norm.moving_mean, inputs.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, inputs.var(axis=0), rtol=1e-4)


def test_each_layer_learns_slower_than_the_one_above(pretrained):
    rules = layer_rules(build("full", pretrained), rate_decay=2.0, anchor=0.0)
    rates = {name: rule.rate for name, rule in rules.items() if name.endswith("_dense")}
    assert rates == {"hidden1_dense": 1 / 8, "hidden2_dense": 1 / 4, "hidden3_dense": 1 / 2}


def test_without_decay_and_anchor_there_are_no_rules(pretrained):
    assert layer_rules(build("full", pretrained), rate_decay=1.0, anchor=0.0) == {}


def reuse(**changed):
    strategy = make_strategy("full", Transfer(), 3)
    return strategy.model_copy(update=changed)


def same(first, second, layer):
    return np.array_equal(
        first.get_layer(layer).get_weights()[0], second.get_layer(layer).get_weights()[0]
    )


def test_as_many_of_the_lowest_layers_are_copied_as_asked_for(pretrained):
    model = build_network(reuse(reused=2), pretrained, NETWORK, ROWS, 3, 5)
    copied = [same(model, pretrained, f"hidden{level}_dense") for level in (1, 2, 3)]
    assert copied == [True, True, False]
    assert not same(model, pretrained, "head")


def test_a_head_is_copied_only_if_asked_for(pretrained):
    classes = pretrained.output_shape[1]
    model = build_network(reuse(head=True), pretrained, NETWORK, ROWS, classes, 5)
    assert same(model, pretrained, "head")


def test_layers_above_a_cut_are_copied_and_read_its_activations(pretrained):
    activations = predict(cut_trunk(pretrained, ["hidden2"]), ROWS)
    model = build_network(reuse(above=2), pretrained, NETWORK, activations, 3, 5)
    assert same(model, pretrained, "hidden3_dense")
    assert model.input_shape == (None, 4)


def test_convolutions_are_trained_only_with_all_hidden_layers():
    network = Network(filters=(2,), widths=(4, 4), batch_norm=False)
    model = build_classifier(build_trunk(network, 9, 1), 3, 1)
    freeze_below(model, 1)
    trained = {layer.name for layer in model.layers if layer.trainable_weights}
    assert trained == {"hidden2_dense", "head"}
    freeze_below(model, 2)
    assert model.get_layer("conv1_maps").trainable_weights

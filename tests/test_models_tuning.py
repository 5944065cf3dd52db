from functools import partial
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import OptimizerName, Training
from models.feeding import Array
from models.networks import build_head
from models.optimizers import build_optimizer
from models.training import State, fit
from models.tuning import LayerRule

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.random((50, 6), np.float32), RANDOM.integers(0, 3, 50).astype(np.int32)
SETTINGS = Training(batch_size=16, max_epochs=3, learning_rate=0.01)
train = partial(fit, x=X, y=Y, settings=SETTINGS, validation=(X, Y), seed=7)


def build(seed: int = 1) -> keras.Model:
    inputs = keras.Input((6,), name="inputs")
    hidden = keras.layers.Dense(
        5, "elu", kernel_initializer=keras.initializers.HeNormal(seed), name="hidden"
    )
    return keras.Model(inputs, build_head(5, 3, seed)(hidden(inputs)))


def build_flat(seed: int = 1) -> keras.Model:
    """The same model, whose layers are all its own, so that it shares a program."""
    nested = build(seed)
    inputs = keras.Input((6,), name="inputs")
    hidden = keras.layers.Dense(5, "elu", name="hidden")
    head = keras.layers.Dense(3, "softmax", name="head")
    model = keras.Model(inputs, head(hidden(inputs)))
    model.set_weights(nested.get_weights())
    return model


def weights_of(model: keras.Model) -> list[Array]:
    return [variable.numpy() for variable in model.variables]


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_rate_of_a_layer_is_a_learning_rate_of_its_own(optimizer: str) -> None:
    settings = SETTINGS.model_copy(update={"optimizer": optimizer, "max_epochs": 1})
    few: Any = {"x": X[:16], "y": Y[:16], "settings": settings}
    slow, fast = build_flat(), build_flat()
    train(slow, **few, rules={"hidden": LayerRule(rate=0.25)})
    slower = settings.model_copy(update={"learning_rate": settings.learning_rate / 4})
    train(fast, **{**few, "settings": slower})
    # One step: the hidden layer's as at a quarter of the rate, the head's as at the whole rate.
    np.testing.assert_allclose(weights_of(slow)[0], weights_of(fast)[0], rtol=1e-5)
    plain = build_flat()
    train(plain, **few)
    np.testing.assert_allclose(weights_of(slow)[2], weights_of(plain)[2], rtol=1e-5)


def test_adam_agrees_with_keras_with_an_optimizer_for_each_layer() -> None:
    settings = SETTINGS.model_copy(update={"batch_size": 50})
    ours, theirs = build_flat(), build_flat()
    train(ours, settings=settings, rules={"hidden": LayerRule(rate=0.1)})
    updates = {"hidden": keras.optimizers.Adam(0.001), "head": keras.optimizers.Adam(0.01)}
    loss_of = keras.losses.SparseCategoricalCrossentropy()
    for _ in range(settings.max_epochs):
        with tf.GradientTape(persistent=True) as tape:
            loss = loss_of(Y, theirs(X))
        for name, optimizer in updates.items():
            variables = theirs.get_layer(name).trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
    for first, second in zip(weights_of(ours), weights_of(theirs), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_rate_0_leaves_a_layer_as_it_is() -> None:
    model, before = build_flat(), weights_of(build_flat())
    train(model, rules={"hidden": LayerRule(rate=0)})
    np.testing.assert_array_equal(weights_of(model)[0], before[0])
    assert not np.array_equal(weights_of(model)[2], before[2])


def test_rule_of_no_effect_changes_no_bit() -> None:
    plain, ruled = build_flat(), build_flat()
    train(plain)
    train(ruled, rules={"hidden": LayerRule()})
    for first, second in zip(weights_of(plain), weights_of(ruled), strict=True):
        np.testing.assert_array_equal(first, second)


def test_anchor_adds_the_squared_distance_of_kernels_to_the_loss() -> None:
    model, start = build_flat(), weights_of(build_flat())[0]
    states: list[State] = []
    rules = {"hidden": LayerRule(anchor=3.0)}
    history = train(model, rules=rules, on_epoch=states.append).history
    for state, loss in zip(states, history["val_loss"], strict=True):
        model.set_weights(state.variables)
        likely = np.asarray(model(X))[np.arange(50), Y]
        distance = np.sum((state.variables[0] - start) ** 2)
        assert loss == pytest.approx(-np.log(likely).mean() + 3 * distance, rel=1e-5)


@pytest.mark.parametrize("make", [build, build_flat])
def test_strong_anchor_holds_a_layer_where_it_began(make: Any) -> None:
    distances = []
    for anchor in (0.0, 1.0, 100.0):
        model, start = make(), weights_of(make())[0]
        train(model, rules={"hidden": LayerRule(anchor=anchor)})
        distances.append(np.sum((weights_of(model)[0] - start) ** 2))
    assert distances[0] > 2 * distances[1] > 4 * distances[2]


def test_models_of_other_weights_share_a_program_and_keep_their_own_anchors() -> None:
    rules = {"hidden": LayerRule(rate=0.5, anchor=1.0)}
    for seed in (1, 2):
        shared, alone = build_flat(seed), build_flat(seed)
        train(shared, rules=rules)
        train(alone, rules=rules, optimizer=build_optimizer(SETTINGS))
        for first, second in zip(weights_of(shared), weights_of(alone), strict=True):
            np.testing.assert_array_equal(first, second)


def test_resumed_run_returns_to_the_weights_of_its_first_start() -> None:
    states: list[State] = []
    rules = {"hidden": LayerRule(rate=0.5, anchor=1.0)}
    undisturbed, resumed = build_flat(), build_flat()
    whole = train(undisturbed, rules=rules, on_epoch=states.append)
    later: list[State] = []
    options = {"saved": states[0], "on_epoch": later.append}
    assert train(resumed, rules=rules, **options).history == whole.history
    assert [state.epoch for state in later] == [state.epoch for state in states[1:]]
    for first, second in zip(weights_of(undisturbed), weights_of(resumed), strict=True):
        np.testing.assert_array_equal(first, second)


def test_rules_for_unknown_layers_name_those_there_are() -> None:
    message = "unknown layers: hiden. There are inputs, hidden, head"
    with pytest.raises(ValueError, match=message):
        train(build_flat(), rules={"hiden": LayerRule(rate=0.5)})


@pytest.mark.parametrize("wrong", [{"rate": -1.0}, {"anchor": -0.1}, {"rate": float("nan")}])
def test_rules_below_0_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least 0"):
        LayerRule(**wrong)

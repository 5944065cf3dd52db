from dataclasses import replace
from functools import partial
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import heads as heads_module
from models.config import FineTune, OptimizerName, Schedule
from models.heads import Head, HeadsState, build_best_head, fit_heads
from models.networks import build_head, draw_head_kernels
from models.optimizers import build_optimizer, choose_rate, start_slots, update
from models.programs import predict
from models.training import State, fit

UNITS, CLASSES = 8, 3
RANDOM = np.random.default_rng(0)
CENTRES = RANDOM.normal(size=(CLASSES, UNITS))
Y = RANDOM.integers(0, CLASSES, 110).astype(np.int32)
X = (CENTRES[Y] + 2 * RANDOM.normal(size=(110, UNITS))).astype(np.float32)
VALIDATION = X[70:], Y[70:]
X, Y = X[:70], Y[:70]

SETTINGS = FineTune(batch_size=16, max_epochs=40, patience=4)
# Of different lengths, with whole and partial last batches, and one that stops late.
HEADS = [
    Head(seed=1),
    Head(seed=2, learning_rate=0.1, l2=0.01),
    Head(seed=3, learning_rate=0.003, dropout=0.4),
    Head(seed=4, learning_rate=0.05, rows=np.arange(0, 70, 2), validation_rows=np.arange(20)),
    Head(seed=5, learning_rate=0.02, l2=0.1, dropout=0.2, rows=np.arange(64)),
]
DRY = [replace(head, dropout=0.0) for head in HEADS]
wet_and_dry = pytest.mark.parametrize("heads", [HEADS, DRY], ids=["dropout", "no-dropout"])
train = partial(fit_heads, classes=CLASSES, settings=SETTINGS, validation=VALIDATION)


def fit_alone(head: Head, settings: Any) -> tuple[Any, list[State]]:
    model = build_head(UNITS, CLASSES, head.seed, l2=head.l2, dropout=head.dropout)
    rows = slice(None) if head.rows is None else head.rows
    counted = slice(None) if head.validation_rows is None else head.validation_rows
    states: list[State] = []
    fit(
        model,
        X[rows],
        Y[rows],
        settings=settings.model_copy(update={"learning_rate": head.learning_rate}),
        validation=(VALIDATION[0][counted], VALIDATION[1][counted]),
        seed=head.seed,
        on_epoch=states.append,
    )
    return model, states


def assert_same(first: HeadsState, second: HeadsState) -> None:
    for name, array in first.to_arrays().items():
        np.testing.assert_array_equal(array, second.to_arrays()[name], err_msg=name)


def assert_equal_to_fit(state: HeadsState, heads: list[Head], settings: Any) -> None:
    for index, head in enumerate(heads):
        model, states = fit_alone(head, settings)
        alone = states[-1]
        assert state.best_epoch[index] == alone.best_epoch
        for name, values in state.history.items():
            mine = values[: alone.epoch, index]
            np.testing.assert_allclose(mine, alone.history[name], rtol=1e-4, atol=1e-6)
            assert np.isnan(values[alone.epoch :, index]).all()
        kernel, bias = model.get_layer("head").get_weights()
        np.testing.assert_allclose(state.kernels[index], kernel, atol=1e-4)
        np.testing.assert_allclose(state.biases[index], bias, atol=1e-4)


# --- Equal to training alone ---


@pytest.mark.slow
def test_heads_end_where_fit_leads_each_alone() -> None:
    state = train(HEADS, X, Y)
    assert_equal_to_fit(state, HEADS, SETTINGS)
    # Some stop early and some late.
    assert state.best_epoch.min() < 20 < state.best_epoch.max()


@wet_and_dry
def test_heads_without_partial_batches_end_there_too(heads: list[Head]) -> None:
    heads = [replace(head, rows=np.arange(64)) for head in heads[1:3]]
    assert_equal_to_fit(train(heads, X, Y), heads, SETTINGS)


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_every_rule_and_schedule_is_that_of_keras(optimizer: str, schedule: str) -> None:
    changes = {"optimizer": optimizer, "momentum": 0.8, "schedule": schedule, "decay_steps": 5}
    settings = FineTune(**changes)
    keras_rule = build_optimizer(settings)
    variable = keras.Variable(RANDOM.normal(size=(2, 3)).astype(np.float32))
    keras_rule.build([variable])
    weights = tf.constant([variable.numpy()])
    moments = tuple(tf.unstack(tf.constant(start_slots(settings, (1, 2, 3))), axis=1))
    for step in range(8):
        gradient = RANDOM.normal(size=(2, 3)).astype(np.float32)
        keras_rule.apply([tf.constant(gradient)], [variable])
        rate = choose_rate(settings, tf.constant([0.01]), tf.constant([step]))
        weights, moments = update(settings, weights, moments, gradient[None], rate, step)
        np.testing.assert_allclose(weights[0], variable.numpy(), rtol=1e-5, atol=1e-6)


def test_first_weights_are_those_of_a_head_built_alone() -> None:
    drawn = draw_head_kernels(UNITS, CLASSES, [1, 2])
    for seed, kernel in zip((1, 2), drawn, strict=True):
        np.testing.assert_array_equal(kernel, build_head(UNITS, CLASSES, seed).get_weights()[0])


def test_best_head_becomes_a_model() -> None:
    state = train(HEADS, X, Y)
    model = build_best_head(state, HEADS, 1)
    likely = predict(model, VALIDATION[0])[np.arange(40), VALIDATION[1]]
    penalty = 0.01 * np.sum(state.kernels[1] ** 2)
    assert -np.log(likely).mean() + penalty == pytest.approx(state.best_loss[1], rel=1e-5)


# --- Folds ---


def test_folds_of_one_cache_validate_on_what_they_did_not_see() -> None:
    folds = np.array_split(np.arange(70), 5)
    heads = [
        Head(seed=1, rows=np.setdiff1d(np.arange(70), fold), validation_rows=fold) for fold in folds
    ]
    state = train(heads, X, Y, validation=(X, Y))
    for index, fold in enumerate(folds):
        model = build_best_head(state, heads, index)
        right = predict(model, X[fold]).argmax(axis=1) == Y[fold]
        best = state.best_epoch[index] - 1
        assert state.history["val_accuracy"][best, index] == pytest.approx(right.mean(), rel=1e-6)


# --- Stopping ---


def test_stopped_head_no_longer_changes() -> None:
    states: list[HeadsState] = []
    train(HEADS, X, Y, on_epoch=states.append)
    final = states[-1]
    for index in range(len(HEADS)):
        stopped = final.best_epoch[index] + SETTINGS.patience + 1
        for state in states[stopped:]:
            before = states[stopped - 1]
            np.testing.assert_array_equal(state.weights[index], before.weights[index])
            np.testing.assert_array_equal(state.best[index], before.best[index])
            assert state.steps[index] == before.steps[index]


def test_diverged_head_disturbs_no_other() -> None:
    settings = SETTINGS.model_copy(update={"optimizer": "sgd", "max_epochs": 5})
    wild = [HEADS[0], Head(seed=9, learning_rate=1e38, l2=1.0), HEADS[1]]
    state = train(wild, X, Y, settings=settings)
    calm = train([HEADS[0], HEADS[2], HEADS[1]], X, Y, settings=settings)
    assert state.diverged.tolist() == [False, True, False]
    assert np.isfinite(state.best).all()
    np.testing.assert_allclose(state.best[[0, 2]], calm.best[[0, 2]], atol=1e-6)


# --- Going on from a saved state, and the same bits ---


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@wet_and_dry
def test_resumed_run_ends_bit_identical(
    monkeypatch: pytest.MonkeyPatch, heads: list[Head], optimizer: str
) -> None:
    # Two tiles, in one of which a head is repeated.
    monkeypatch.setattr(heads_module, "TILE", 3)
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    states: list[HeadsState] = []
    whole = train(heads, X, Y, settings=settings, on_epoch=states.append)
    saved = HeadsState.from_arrays(states[10].to_arrays())
    later: list[HeadsState] = []
    again = train(heads, X, Y, settings=settings, saved=saved, on_epoch=later.append)
    assert_same(again, whole)
    assert len(later) == len(states) - 11


def test_finished_heads_train_no_further() -> None:
    state = train(HEADS[:1], X, Y)
    later: list[HeadsState] = []
    assert_same(train(HEADS[:1], X, Y, saved=state, on_epoch=later.append), state)
    assert later == []


@wet_and_dry
def test_head_is_the_same_among_many(monkeypatch: pytest.MonkeyPatch, heads: list[Head]) -> None:
    together = train(heads, X, Y)
    monkeypatch.setattr(heads_module, "TILE", 2)
    apart = train(heads, X, Y)
    np.testing.assert_array_equal(apart.best_epoch, together.best_epoch)
    np.testing.assert_allclose(apart.best, together.best, atol=1e-5)


def test_validation_rows_beyond_a_block_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(HEADS[:2], X, Y)
    monkeypatch.setattr(heads_module, "_VALIDATION_ROWS", 7)
    blocks = train(HEADS[:2], X, Y)
    np.testing.assert_allclose(
        blocks.history["val_accuracy"], whole.history["val_accuracy"], rtol=1e-6
    )


# --- Wrong arguments ---


def test_all_that_is_wrong_is_said_at_once() -> None:
    heads = [Head(seed=1, dropout=1.0), Head(seed=1, rows=np.array([70]))]
    with pytest.raises(
        ValueError, match="Head 0: learning_rate 0.01, l2 0.0, dropout 1.0"
    ) as error:
        fit_heads(heads, X, Y[1:], classes=2, settings=SETTINGS, validation=VALIDATION)
    for text in (
        "Training: 70 rows and 69 labels",
        "Validation: labels from 0 to 2",
        "Head 1: rows must be numbers from 0 to 69",
    ):
        assert text in str(error.value)


def test_state_of_other_heads_is_refused() -> None:
    state = train(HEADS[:2], X, Y)
    with pytest.raises(ValueError, match=r"other heads: \(2, 3, 9\), not \(3, 3, 9\)"):
        train(HEADS[:3], X, Y, saved=state)
    with pytest.raises(ValueError, match="no weights and no slots"):
        HeadsState.from_arrays({"epoch": np.array(1), "steps": np.zeros(2)})

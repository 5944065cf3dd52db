import csv
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import programs
from models.config import Network, OptimizerName, Training
from models.feeding import Array, draw_order
from models.networks import build_classifier, build_head, build_trunk
from models.optimizers import build_optimizer
from models.programs import predict, predict_blocks
from models.training import ACCURACY, State, TrainingDiverged, fit

COLUMNS, CLASSES = 6, 3
# Of the 50 rows below three batches of 16 and one of 2.
SETTINGS = Training(batch_size=16, max_epochs=3, learning_rate=0.01, decay_steps=8)
Rows = tuple[Array, Array]


def draw_rows(rows: int, seed: int = 0) -> Rows:
    """Draws three overlapping clouds, so that training has something to find."""
    random = np.random.default_rng(seed)
    y = random.integers(0, CLASSES, rows)
    centres = np.random.default_rng(99).normal(size=(CLASSES, COLUMNS))
    x = centres[y] + random.normal(size=(rows, COLUMNS))
    return x.astype(np.float32), y.astype(np.int32)


TRAIN, VALIDATION = draw_rows(50), draw_rows(30, seed=1)
train = partial(fit, validation=VALIDATION, seed=7)


def build(seed: int = 1, *, units: int = 5, batch_norm: bool = False, dropout: float = 0.0) -> Any:
    network = Network(hidden_layers=1, units=units, batch_norm=batch_norm, dropout=dropout)
    return build_classifier(build_trunk(network, COLUMNS, seed), CLASSES, seed)


def build_with(**options: Any) -> Any:
    """A network of one hidden layer with options of Dense."""
    inputs = keras.Input((COLUMNS,))
    hidden = keras.layers.Dense(5, activation="tanh", **options)(inputs)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(hidden))


def assert_same(first: Any, second: Any) -> None:
    """Asserts that two models, or two tuples of arrays, are equal to the bit."""
    first, second = (
        [v.numpy() for v in each.variables] if isinstance(each, keras.Model) else each
        for each in (first, second)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def through_a_file(state: State) -> State:
    buffer = io.BytesIO()
    np.savez(buffer, **state.to_arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as arrays:
        return State.from_arrays(arrays)


# --- The arithmetic is that of keras.Model.fit ---

CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    **{
        name: (build, partial(build_optimizer, SETTINGS.model_copy(update={"optimizer": name})))
        for name in get_args(OptimizerName)
    },
    "l1_and_l2": (
        partial(build_with, kernel_regularizer="l2", activity_regularizer="l1"),
        keras.optimizers.Adam,
    ),
    "max_norm": (
        partial(build_with, kernel_constraint=keras.constraints.MaxNorm(0.5)),
        partial(keras.optimizers.SGD, 0.1),
    ),
    "clipnorm": (build, partial(keras.optimizers.SGD, 0.1, clipnorm=0.1)),
    "weight_decay": (build, partial(keras.optimizers.AdamW, weight_decay=0.1)),
    "batch_norm": (partial(build, batch_norm=True), partial(keras.optimizers.SGD, 0.1)),
}


@pytest.mark.parametrize("case", CASES)
def test_fit_agrees_with_keras_on_the_same_batches(case: str) -> None:
    build_model, build_update = CASES[case]
    ours, theirs = build_model(), build_model()
    theirs.set_weights(ours.get_weights())
    states: list[State] = []
    history = train(
        ours, *TRAIN, settings=SETTINGS, optimizer=build_update(), on_epoch=states.append
    ).history

    theirs.compile(
        build_update(),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=True,  # The same numbers, and nothing to compile.
    )
    for epoch in range(SETTINGS.max_epochs):
        order = draw_order(len(TRAIN[0]), 7, epoch)
        logs = theirs.fit(
            TRAIN[0][order],
            TRAIN[1][order],
            batch_size=SETTINGS.batch_size,
            shuffle=False,
            validation_data=VALIDATION,
            verbose=0,
        ).history
        for name, values in logs.items():
            assert history[name][epoch] == pytest.approx(values[0], rel=1e-4), name
    for mine, keras_variable in zip(states[-1].variables, theirs.variables, strict=True):
        np.testing.assert_allclose(mine, keras_variable.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("adam", "Adam", {}),
        ("sgd", "SGD", {"momentum": 0.0, "nesterov": False}),
        ("momentum", "SGD", {"momentum": 0.8, "nesterov": False}),
        ("nesterov", "SGD", {"momentum": 0.8, "nesterov": True}),
        ("rmsprop", "RMSprop", {"momentum": 0.8}),
        ("adagrad", "Adagrad", {}),
    ],
)
def test_optimizer_is_the_one_in_the_settings(
    name: str, kind: str, expected: dict[str, Any]
) -> None:
    settings = SETTINGS.model_copy(update={"optimizer": name, "momentum": 0.8})
    optimizer = build_optimizer(settings)
    config = optimizer.get_config()
    assert type(optimizer).__name__ == kind
    assert {**expected, "learning_rate": pytest.approx(0.01)}.items() <= config.items()


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.01, 0.01, 0.01]),
        ("exponential", [0.01 * 0.1**0.5, 0.01 * 0.1, 0.01 * 0.1**1.5]),
        ("cosine", [0.005, 0, 0]),
    ],
)
def test_learning_rate_falls_with_the_steps(schedule: str, rates: list[float]) -> None:
    settings = SETTINGS.model_copy(update={"schedule": schedule})
    rate = train(build(), *TRAIN, settings=settings).history["learning_rate"]
    assert rate == pytest.approx(rates, rel=1e-4, abs=1e-9)  # 4 of 8 decay steps an epoch.


def test_own_metrics_and_loss_are_those_of_keras() -> None:
    labels = [keras.utils.to_categorical(y, CLASSES) for y in (TRAIN[1], VALIDATION[1])]
    model = build()
    history = fit(
        model,
        TRAIN[0],
        labels[0],
        settings=SETTINGS,
        validation=(VALIDATION[0], labels[1]),
        seed=7,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics={"error": keras.metrics.mean_squared_error},
    ).history
    best = int(np.argmin(history["val_loss"]))
    error = np.mean((predict(model, VALIDATION[0]) - labels[1]) ** 2)
    assert history["val_error"][best] == pytest.approx(error, rel=1e-5)
    assert set(history) == {"loss", "error", "val_loss", "val_error", "learning_rate"}


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    states: list[State] = []
    settings = SETTINGS.model_copy(update={"batch_size": 1000})
    train(build(), *TRAIN, settings=settings, on_epoch=states.append)
    assert int(states[-1].optimizer[0]) == 3  # Steps: one an epoch.


# In three steps of ten, and in four of seven and what is left.
@pytest.mark.parametrize("rows", [30, 29])
def test_validation_rows_beyond_a_step_count_once(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    some: Any = {"settings": SETTINGS, "validation": [part[:rows] for part in VALIDATION]}
    whole = train(build(), *TRAIN, **some).history
    monkeypatch.setattr(programs, "_VALIDATION_ROWS", 7)
    blocks = train(build(), *TRAIN, **some, optimizer=build_optimizer(SETTINGS)).history
    assert blocks["val_accuracy"] == whole["val_accuracy"]
    np.testing.assert_allclose(blocks["val_loss"], whole["val_loss"], rtol=1e-6)


def test_frozen_layers_keep_their_weights() -> None:
    model = build()
    model.get_layer("hidden1_dense").trainable = False
    before = model.get_weights()
    train(model, *TRAIN, settings=SETTINGS)
    kept = [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert kept == [True, True, False, False]


# --- Stopping ---


def test_stops_after_patience_and_one_epochs_and_keeps_the_best_weights() -> None:
    settings = SETTINGS.model_copy(
        update={"learning_rate": 0.3, "patience": 2, "max_epochs": 40, "optimizer": "momentum"}
    )
    model = build()
    losses = train(model, *TRAIN, settings=settings).history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 40
    likely = predict(model, VALIDATION[0])[np.arange(30), VALIDATION[1]]
    assert -np.log(likely).mean() == pytest.approx(min(losses), rel=1e-5)


def test_diverged_training_names_the_epoch() -> None:
    states: list[State] = []
    # An epoch has 4 steps.
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.01, 1e30])
    optimizer = keras.optimizers.SGD(rate)
    with pytest.raises(TrainingDiverged, match="after epoch 2") as error:
        train(build(), *TRAIN, settings=SETTINGS, optimizer=optimizer, on_epoch=states.append)
    assert error.value.epoch == 2
    assert [state.epoch for state in states] == [1]


# --- Going on from a saved state ---

RESUMED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sgd": ({"optimizer": "sgd"}, {}),
    "momentum_cosine": ({"optimizer": "momentum", "schedule": "cosine"}, {"batch_norm": True}),
    "adam_exponential_dropout": ({"schedule": "exponential"}, {"dropout": 0.3}),
    "adam_dropout_batch_norm": ({}, {"dropout": 0.3, "batch_norm": True}),
}


@pytest.mark.parametrize("case", RESUMED)
def test_resumed_run_ends_bit_identical(case: str) -> None:
    changes, network = RESUMED[case]
    settings = SETTINGS.model_copy(update=changes)
    undisturbed, resumed = build(1, **network), build(2, **network)
    states: list[State] = []
    whole = train(undisturbed, *TRAIN, settings=settings, on_epoch=states.append)
    after: list[State] = []
    saved = through_a_file(states[0])
    rest = train(resumed, *TRAIN, settings=settings, saved=saved, on_epoch=after.append)
    assert rest.history == whole.history
    assert rest.epoch == whole.epoch == [0, 1, 2]
    assert_same(resumed, undisturbed)
    assert_same(after[-1].variables, states[-1].variables)
    assert_same(after[-1].optimizer, states[-1].optimizer)


def test_run_resumed_half_way_through_its_patience_stops_at_the_same_epoch() -> None:
    settings = SETTINGS.model_copy(
        update={"learning_rate": 0.3, "patience": 2, "max_epochs": 40, "optimizer": "momentum"}
    )
    undisturbed, resumed = build(1), build(2)
    states: list[State] = []
    whole = train(undisturbed, *TRAIN, settings=settings, on_epoch=states.append)
    saved = through_a_file(states[-2])
    assert saved.waited == 2
    assert train(resumed, *TRAIN, settings=settings, saved=saved).history == whole.history
    assert_same(resumed, undisturbed)


def test_finished_run_trains_no_further() -> None:
    model, states = build(1), []
    whole = train(model, *TRAIN, settings=SETTINGS, on_epoch=states.append)
    again, more = build(2), []
    same = train(again, *TRAIN, settings=SETTINGS, saved=states[-1], on_epoch=more.append)
    assert more == []
    assert same.history == whole.history
    assert_same(again, model)


def test_state_of_another_model_is_refused() -> None:
    states: list[State] = []
    train(build(), *TRAIN, settings=SETTINGS, on_epoch=states.append)
    with pytest.raises(ValueError, match=r"of another model .* \(6, 4\), in the state \(6, 5\)"):
        train(build(units=4), *TRAIN, settings=SETTINGS, saved=states[-1])


def test_arrays_that_are_no_state_are_refused() -> None:
    with pytest.raises(ValueError, match="no best_epoch and no epoch among its arrays"):
        State.from_arrays({"variables/00000": np.zeros(3)})


# --- The same arguments give the same bits ---


def digest() -> str:
    model = build(dropout=0.3, batch_norm=True)
    train(model, *TRAIN, settings=SETTINGS)
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.variables)).hexdigest()


def test_fresh_process_gives_the_same_bits(request: pytest.FixtureRequest) -> None:
    code = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('again', {__file__!r});"
        "again = importlib.util.module_from_spec(spec); spec.loader.exec_module(again);"
        "sys.stdout.write(again.digest())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == digest()


def test_dropout_draws_from_the_seed() -> None:
    # One batch of equal rows: their order, which also follows the seed, changes nothing.
    x, y = np.ones((50, COLUMNS), np.float32), np.zeros(50, np.int32)
    settings = SETTINGS.model_copy(update={"batch_size": 50, "max_epochs": 1})
    losses = [
        fit(build(dropout=0.5), x, y, settings=settings, validation=(x, y), seed=seed).history
        for seed in (1, 1, 2)
    ]
    assert losses[0]["loss"] == losses[1]["loss"]
    assert losses[0]["loss"] != losses[2]["loss"]


def test_epochs_run_beside_the_main_thread_which_heeds_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, run = [], programs.Program.run
    monkeypatch.setattr(
        programs.Program,
        "run",
        lambda *args: (threads.append(threading.current_thread()), run(*args))[1],
    )
    train(build(), *TRAIN, settings=SETTINGS)
    assert len(threads) == SETTINGS.max_epochs
    assert threading.main_thread() not in threads


def test_an_interrupt_while_an_epoch_reads_comes_out_as_one() -> None:
    class Rows:
        """The last block of the second epoch takes long, and somebody loses patience."""

        read = 0

        def __len__(self) -> int:
            return len(TRAIN[0])

        def __getitem__(self, where: slice) -> Array:
            last = where.stop == len(self)
            self.read += last
            if last and self.read == 2:
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.5)
            return TRAIN[0][where]

    settings = SETTINGS.model_copy(update={"order": "sequential"})
    with pytest.raises(KeyboardInterrupt):
        train(build(), Rows(), TRAIN[1], settings=settings, block_rows=16)


# --- Equal models share one program ---


def test_equal_models_are_compiled_once_and_trained_apart() -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 0.02})
    before = programs._build_twin_program.cache_info().misses
    for seed in (1, 2):
        shared, alone = build_head(COLUMNS, CLASSES, seed), build_head(COLUMNS, CLASSES, seed)
        train(shared, *TRAIN, settings=settings)
        train(alone, *TRAIN, settings=settings, optimizer=build_optimizer(settings))
        assert_same(shared, alone)
    assert programs._build_twin_program.cache_info().misses == before + 1


def test_fits_of_different_models_in_threads_give_the_same_bits_as_alone() -> None:
    def run(units: int) -> Any:
        network = Network(hidden_layers=1, units=units, batch_norm=True, dropout=0.2)
        model = build_classifier(build_trunk(network, COLUMNS, 1), CLASSES, 1)
        train(model, *TRAIN, settings=SETTINGS)
        return model

    alone = list(map(run, (5, 6)))
    with ThreadPoolExecutor(2) as pool:
        for first, second in zip(alone, pool.map(run, (5, 6)), strict=True):
            assert_same(first, second)


def test_threads_that_share_a_program_do_not_disturb_each_other() -> None:
    alone, together = ([build_head(COLUMNS, CLASSES, seed) for seed in range(4)] for _ in range(2))
    settings = SETTINGS.model_copy(update={"max_epochs": 20})
    for model in alone:
        train(model, *TRAIN, settings=settings)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda model: train(model, *TRAIN, settings=settings), together))
    for first, second in zip(alone, together, strict=True):
        assert_same(first, second)


def build_other(kind: str) -> Any:
    """A model that looks like one of Keras's and computes something else."""

    def tanh(x: Any) -> Any:
        return tf.cos(x)

    class Doubled(keras.Model):
        def call(self, inputs: Any, **options: Any) -> Any:
            return super().call(2 * inputs, **options)

    activation = tanh if kind == "activation" else "tanh"
    initializer = keras.initializers.HeNormal(seed=1)
    inputs = keras.Input((COLUMNS,))
    first = keras.layers.Dense(4, activation, kernel_initializer=initializer, name="first")
    last = keras.layers.Dense(CLASSES, "softmax", kernel_initializer=initializer, name="last")
    doubled = 2 * inputs if kind == "operation" else inputs
    model_class = Doubled if kind == "subclass" else keras.Model
    model = model_class(inputs, last(first(doubled)))
    last.bias.trainable = kind != "variable"
    return model


@pytest.mark.parametrize(
    ("kind", "shares"),
    [("plain", True)]
    + [(kind, False) for kind in ("activation", "operation", "subclass", "variable")],
)
def test_models_that_only_look_alike_share_no_program(kind: str, shares: bool) -> None:
    program = programs.find_shared_program(build_other(kind), SETTINGS, "mse", ACCURACY, {})
    assert (program is not None) is shares


# --- Callbacks ---


class Recorder(keras.callbacks.Callback):
    """Records what it is called with, and asks to stop after two epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append(("begin", self.params["epochs"], type(self.model.optimizer).__name__))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch", epoch))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append((epoch, logs))
        self.model.stop_training = epoch == 1

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append("end")


def test_callbacks_see_the_usual_logs_and_may_stop() -> None:
    recorder = Recorder()
    model = build()
    history = train(model, *TRAIN, settings=SETTINGS, callbacks=[recorder]).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    logs = [{name: values[epoch] for name, values in history.items()} for epoch in range(2)]
    assert recorder.calls == [
        ("begin", 3, "Adam"),
        ("epoch", 0),
        (0, logs[0]),
        ("epoch", 1),
        (1, logs[1]),
        "end",
    ]
    assert not model.optimizer


# Keras 3.15 reads the rate by np.array(), whose copy keyword its variables do not take.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_callbacks_may_change_the_learning_rate() -> None:
    states: list[State] = []
    falling = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 if epoch == 0 else 0.0)
    settings = SETTINGS.model_copy(update={"optimizer": "sgd"})
    train(build(), *TRAIN, settings=settings, callbacks=[falling], on_epoch=states.append)
    assert_same(states[1].variables, states[0].variables)
    assert states[2].history["learning_rate"] == pytest.approx((0.01, 0, 0))


def test_early_stopping_of_keras_stops_and_restores_what_it_thinks_best() -> None:
    # The first epoch has the highest loss: by this measure it is the best one.
    stop = keras.callbacks.EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True)
    states: list[State] = []
    model = build()
    history = train(
        model, *TRAIN, settings=SETTINGS, callbacks=[stop], on_epoch=states.append
    ).history
    assert len(history["loss"]) == 2
    assert_same(model, states[0].variables)


def test_checkpoint_callback_keeps_the_best_model(tmp_path: Path) -> None:
    path = tmp_path / "best.keras"
    keep = keras.callbacks.ModelCheckpoint(path, "val_loss", save_best_only=True)
    model = build()
    train(model, *TRAIN, settings=SETTINGS, callbacks=[keep])
    # Not the model itself, whose optimizer the file has too.
    np.testing.assert_array_equal(
        keras.models.load_model(path, compile=False)(TRAIN[0]), model(TRAIN[0])
    )


def test_csv_logger_writes_every_epoch(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    logger = keras.callbacks.CSVLogger(path)
    history = train(build(), *TRAIN, settings=SETTINGS, callbacks=[logger]).history
    with path.open() as file:
        written = list(csv.DictReader(file))
    for name, values in history.items():
        assert [float(row[name]) for row in written] == values


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_plateau_callback_lowers_the_rate() -> None:
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=10)
    states: list[State] = []
    train(build(), *TRAIN, settings=SETTINGS, callbacks=[plateau], on_epoch=states.append)
    rates = [float(state.optimizer[1]) for state in states]
    assert rates == pytest.approx([0.01, 0.005, 0.0025])


def test_tensorboard_writes_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(tmp_path)
    train(build(), *TRAIN, settings=SETTINGS, callbacks=[board])
    assert list((tmp_path / "validation").glob("events*"))


# --- Where XLA cannot go ---


class Rounds(keras.layers.Layer):
    """A layer of Python code, which XLA cannot compile."""

    def call(self, inputs: Any) -> Any:
        outputs = tf.numpy_function(lambda x: np.round(x, 1), [inputs], inputs.dtype)
        return tf.ensure_shape(outputs, inputs.shape)


def test_model_that_xla_cannot_compile_is_trained_with_one_warning() -> None:
    inputs = keras.Input((COLUMNS,))
    outputs = keras.layers.Dense(CLASSES, activation="softmax")(Rounds()(inputs))
    model = keras.Model(inputs, outputs)
    with pytest.warns(RuntimeWarning, match="XLA cannot compile this model") as warned:
        losses = train(model, *TRAIN, settings=SETTINGS).history["loss"]
    assert len(warned) == 1
    assert losses[2] < losses[0]


# --- Wrong arguments ---


def test_rows_without_labels_are_refused() -> None:
    x, y = TRAIN
    with pytest.raises(ValueError, match="Training: 50 rows and 49 labels") as error:
        fit(build(), x, y[1:], settings=SETTINGS, validation=(x[:0], y[:0]), seed=1)
    assert "Validation: 0 rows and 0 labels" in str(error.value)


# --- Prediction ---


@pytest.mark.parametrize("rows", [1, 4, 5, 8])
def test_prediction_is_the_model_on_any_number_of_rows(rows: int) -> None:
    model = build(dropout=0.5)
    x = TRAIN[0][:rows]
    expected = model(x, training=False).numpy()
    np.testing.assert_allclose(predict(model, x, batch_size=4), expected, rtol=1e-5)


def test_prediction_of_no_rows_is_empty() -> None:
    assert predict(build(), TRAIN[0][:0]).shape == (0, CLASSES)


def test_prediction_of_a_row_depends_on_no_other() -> None:
    model = build()
    np.testing.assert_array_equal(predict(model, TRAIN[0])[:3], predict(model, TRAIN[0][:3]))


def test_equal_models_share_one_program_of_prediction(monkeypatch: Any) -> None:
    made = []

    class Counted(programs.Compiled):
        def __init__(self, *arguments: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(programs, "Compiled", Counted)
    models = [build(seed=seed, units=11, batch_norm=True) for seed in (1, 2)]
    answers = [predict(model, TRAIN[0]) for model in (*models, *models)]
    assert len(made) == 1
    for model, answer in zip((*models, *models), answers, strict=True):
        np.testing.assert_allclose(answer, model(TRAIN[0], training=False), rtol=1e-5)


@pytest.mark.parametrize("kind", ["activation", "operation", "subclass", "variable"])
def test_a_model_that_only_looks_like_another_predicts_by_itself(kind: str) -> None:
    model = build_other(kind)
    np.testing.assert_allclose(predict(model, TRAIN[0]), model(TRAIN[0], training=False), rtol=1e-4)


def test_prediction_follows_the_weights_and_is_traced_once() -> None:
    traced = []

    class Counts(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            traced.append(inputs.shape)
            return inputs

    model = keras.Sequential([keras.Input((COLUMNS,)), keras.layers.Dense(2), Counts()])
    first = predict(model, TRAIN[0], batch_size=20)
    traced.clear()
    model.set_weights([2 * weights for weights in model.get_weights()])
    for rows in (50, 7, 20):
        np.testing.assert_allclose(
            predict(model, TRAIN[0][:rows], batch_size=20), 2 * first[:rows], rtol=1e-5
        )
    assert traced == []


def test_blocks_hold_every_output_of_their_rows() -> None:
    inputs = keras.Input((COLUMNS,))
    model = keras.Model(inputs, [inputs * 2, inputs[:, :1]])
    blocks = list(predict_blocks(model, TRAIN[0], batch_size=20))
    assert [[len(output) for output in block] for block in blocks] == [[20, 20], [20, 20], [10, 10]]
    np.testing.assert_array_equal(np.concatenate([b[0] for b in blocks]), TRAIN[0] * 2)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in blocks]), TRAIN[0][:, :1])


# --- Mixed precision ---


def test_mixed_precision_trains_to_about_the_same_accuracy() -> None:
    rows, validation = draw_rows(500), draw_rows(500, seed=1)
    accuracies = []
    for mixed in (False, True):
        network = Network(hidden_layers=2, units=16, batch_norm=False, mixed_precision=mixed)
        model = build_classifier(build_trunk(network, COLUMNS, 1), CLASSES, 1)
        settings = SETTINGS.model_copy(update={"max_epochs": 8})
        history = fit(model, *rows, settings=settings, validation=validation, seed=7).history
        accuracies.append(max(history["val_accuracy"]))
        assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert accuracies[0] > 0.8
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.03)


# --- Where training ends, in which order, with which weights ---


def test_the_last_weights_are_kept_if_asked_for() -> None:
    settings = SETTINGS.model_copy(update={"max_epochs": 6, "learning_rate": 0.5})
    best, last, cut_short = build(), build(), build()
    history = train(best, *TRAIN, settings=settings).history["val_loss"]
    place = history.index(min(history)) + 1
    assert place < 6
    train(last, *TRAIN, settings=settings.model_copy(update={"keep": "last"}))
    train(cut_short, *TRAIN, settings=settings.model_copy(update={"max_epochs": place}))
    assert_same(best, cut_short)
    assert not np.array_equal(best.get_weights()[0], last.get_weights()[0])


@pytest.mark.parametrize("block_rows", [0, 16])
@pytest.mark.parametrize(("steps", "epochs"), [(4, 1), (6, 2), (7, 2), (8, 2), (9, 3)])
def test_training_stops_after_so_many_steps(steps: int, epochs: int, block_rows: int) -> None:
    settings = SETTINGS.model_copy(update={"max_steps": steps, "max_epochs": 100, "patience": 100})
    counted = build_optimizer(settings.over(50))
    history = train(
        build(), *TRAIN, settings=settings, optimizer=counted, block_rows=block_rows
    ).history
    assert int(counted.iterations) == steps
    assert len(history["loss"]) == epochs
    # The means are over the rows trained on, of which the last epoch may have fewer.
    assert 0 < history["loss"][-1] < 3


def test_a_schedule_over_all_steps_ends_with_the_last_one() -> None:
    settings = Training(schedule="cosine", batch_size=16, max_steps=6, learning_rate=0.1)
    assert settings.over(50).decay_steps == 6
    assert settings.over(50).max_epochs == 2
    assert settings.model_copy(update={"max_epochs": 1}).over(50).max_epochs == 1


def test_rows_may_come_as_they_lie() -> None:
    settings = SETTINGS.model_copy(update={"order": "sequential", "max_epochs": 2})
    first, second = build(), build()
    train(first, *TRAIN, settings=settings)
    fit(second, *TRAIN, settings=settings, validation=VALIDATION, seed=99)
    assert_same([w for w in first.get_weights()], [w for w in second.get_weights()])
    blocks = build()
    train(blocks, *TRAIN, settings=settings, block_rows=16)
    for one, other in zip(first.get_weights(), blocks.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_fall_too_small_counts_as_none() -> None:
    settings = SETTINGS.model_copy(update={"patience": 1, "max_epochs": 50, "learning_rate": 1e-6})
    patient = train(build(), *TRAIN, settings=settings).history
    strict = train(build(), *TRAIN, settings=settings.model_copy(update={"min_delta": 0.1})).history
    assert len(strict["loss"]) == 3
    assert len(patient["loss"]) > 3


def test_gradients_are_clipped_by_value() -> None:
    settings = Training(optimizer="sgd", learning_rate=1.0, batch_size=50, max_epochs=1)
    model, clipped = build(), build()
    before = [w.copy() for w in model.get_weights()]
    train(model, *TRAIN, settings=settings)
    train(clipped, *TRAIN, settings=settings.model_copy(update={"clip_value": 0.01}))
    moves = [b - a for a, b in zip(before, model.get_weights(), strict=True)]
    expected = [np.clip(move, -0.01, 0.01) for move in moves]
    assert max(np.abs(move).max() for move in moves) > 0.01
    for start, move, weights in zip(before, expected, clipped.get_weights(), strict=True):
        np.testing.assert_allclose(weights - start, move, atol=1e-6)


def test_a_run_of_convolutions_resumed_ends_bit_identical() -> None:
    network = Network(filters=(3, 4), widths=(5,), activation="relu")
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 36)).astype(np.float32), random.integers(0, CLASSES, 40)
    settings = Training(batch_size=16, max_epochs=4)
    states: list[State] = []

    def run(seed: int, **more: Any) -> Any:
        model = build_classifier(build_trunk(network, 36, seed), CLASSES, seed, network)
        fit(model, *rows, settings=settings, validation=rows, seed=7, **more)
        return model

    undisturbed = run(1, on_epoch=states.append)
    assert_same(run(2, saved=states[1]), undisturbed)

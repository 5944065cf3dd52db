"""Seconds of one pretraining epoch: this project's engine, ``keras.Model.fit``, bare products.

    python -m benchmarks.training

Rows are random numbers in the shapes of MNIST's classes 0 to 4; time does not depend on their
values. The contenders take turns, so a busy machine slows all of them alike: read the ratios.
"""

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import keras
import numpy as np
import tensorflow as tf

from models.config import Network, Pretrain, Run
from models.networks import build_classifier, build_trunk
from models.training import Array, build_optimizer, fit

ROWS, VALIDATION_ROWS, COLUMNS, CLASSES = 28_038, 2_558, 784, 5
TURNS, EPOCHS = 5, 3
SETTINGS = Pretrain(max_epochs=EPOCHS)

Data = tuple[Array, Array]


def main() -> None:
    """Times every contender and prints the table."""
    tf.config.threading.set_intra_op_parallelism_threads(Run().threads)
    rows, validation = _draw_rows(ROWS), _draw_rows(VALIDATION_ROWS)
    contenders = {
        "headstart fit": _time_headstart(rows, validation),
        "keras fit": _time_keras(rows, validation),
        "keras fit, steps_per_execution=100, jit_compile": _time_keras(
            rows, validation, steps_per_execution=100, jit_compile=True
        ),
        "matrix products alone (NumPy sgemm)": _time_products(),
    }
    seconds = _take_turns(contenders)
    ours = seconds["headstart fit"]
    print(
        f"One epoch of {ROWS} x {COLUMNS} rows in batches of {SETTINGS.batch_size}, "
        f"5 x 100 ELU, Adam,\n"
        f"{VALIDATION_ROWS} validation rows; median of {TURNS} turns of {EPOCHS} epochs."
    )
    print(f"{'':<50}{'seconds':>9}{'times headstart':>18}")
    for name, median in seconds.items():
        print(f"{name:<50}{median:>9.3f}{median / ours:>18.2f}")


def _draw_rows(rows: int) -> Data:
    random = np.random.default_rng(rows)
    x = random.random((rows, COLUMNS), dtype=np.float32)
    return x, random.integers(0, CLASSES, rows).astype(np.int32)


def _build_model() -> keras.Model:
    return build_classifier(build_trunk(Network(), COLUMNS, seed=1), CLASSES, seed=1)


def _time_headstart(rows: Data, validation: Data) -> Callable[[], object]:
    model = _build_model()
    return lambda: fit(model, *rows, settings=SETTINGS, validation=validation, seed=1)


def _time_keras(rows: Data, validation: Data, **options: object) -> Callable[[], object]:
    model = _build_model()
    model.compile(
        build_optimizer(SETTINGS),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **options,
    )
    return lambda: model.fit(
        *rows,
        batch_size=SETTINGS.batch_size,
        epochs=EPOCHS,
        validation_data=validation,
        verbose=0,
    )


def _time_products() -> Callable[[], object]:
    """The products of forward and backward pass, of every step: no epoch can be quicker."""
    random = np.random.default_rng(0)
    size, units = SETTINGS.batch_size, [COLUMNS, *[Network().units] * 5, CLASSES]
    layers = [
        (random.random((size, i), np.float32), random.random((i, o), np.float32))
        for i, o in pairwise(units)
    ]

    def multiply() -> None:
        for _ in range(EPOCHS * ROWS // size):
            for level, (inputs, kernel) in enumerate(layers):
                outputs = inputs @ kernel
                inputs.T @ outputs
                if level:  # The pixels need no gradient.
                    outputs @ kernel.T

    return multiply


def _take_turns(contenders: dict[str, Callable[[], object]]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(TURNS + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn:  # The first turn compiles.
                seconds[name].append((time.perf_counter() - start) / EPOCHS)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()

"""The same training, 5 x 100 ELU with Adam, by each library: a function that runs some epochs.

Each trains and then validates. What is not installed says so by an ImportError.
"""

import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from models.config import Pretrain, Run, load_config
from models.feeding import Array
from models.images import as_float
from models.networks import build_classifier, build_trunk
from models.training import fit

ROWS, VALIDATION_ROWS, COLUMNS, CLASSES = 28_038, 2_558, 784, 5
# By batch size. What a run begins with, such as copying the rows, is shared out among them.
EPOCHS = {20: 5, 200: 5, 2_000: 5}
# What every library can do alike: no batch norm, a constant rate.
PROTOCOL = load_config(preset="published")
WIDTHS = [COLUMNS, *PROTOCOL.network.sizes, CLASSES]
RATE = PROTOCOL.pretrain.learning_rate

Rows = tuple[Array, Array]
Contender = Callable[[Rows, Rows, int], Callable[[], object]]


def draw_rows(rows: int, columns: int = COLUMNS) -> Rows:
    """Random rows, as the pipeline's stages get them, and labels; time depends on no value."""
    random = np.random.default_rng(rows)
    x = as_float(random.integers(0, 256, (rows, columns), np.uint8))
    return x, random.integers(0, CLASSES, rows).astype(np.int32)


def build_model() -> keras.Model:
    """The classifier that all contenders train."""
    return build_classifier(build_trunk(PROTOCOL.network, COLUMNS, seed=1), CLASSES, seed=1)


def settings_of(batch: int, decay_steps: int = 0) -> Pretrain:
    """How this project's engine trains; other steps make another program that does the same."""
    changed = {"max_epochs": EPOCHS[batch], "batch_size": batch, "decay_steps": decay_steps}
    return PROTOCOL.pretrain.model_copy(update=changed)


def train_headstart(rows: Rows, validation: Rows, batch: int) -> Callable[[], object]:
    """This project's engine."""
    model, settings = build_model(), settings_of(batch)
    return lambda: fit(model, *rows, settings=settings, validation=validation, seed=1)


def train_keras(
    rows: Rows, validation: Rows, batch: int, **options: object
) -> Callable[[], object]:
    """``keras.Model.fit``."""
    model = build_model()
    loss = "sparse_categorical_crossentropy"
    # Not the project's, which is quicker.
    model.compile(keras.optimizers.Adam(RATE), loss, metrics=["accuracy"], **options)
    return lambda: model.fit(
        *rows, batch_size=batch, epochs=EPOCHS[batch], validation_data=validation, verbose=0
    )


def train_keras_jitted(rows: Rows, validation: Rows, batch: int) -> Callable[[], object]:
    """``keras.Model.fit`` with up to 100 steps a call, compiled by XLA."""
    steps = min(100, ROWS // batch)
    return train_keras(rows, validation, batch, steps_per_execution=steps, jit_compile=True)


def train_torch(
    rows: Rows, validation: Rows, batch: int, compiled: bool = False
) -> Callable[[], object]:
    """A plain PyTorch loop."""
    import torch
    from torch import nn

    # Products of so few rows are quicker on one thread.
    torch.set_num_threads(Run().threads if batch >= 1000 else 1)
    hidden = [[nn.Linear(i, o), nn.ELU()] for i, o in pairwise(WIDTHS[:-1])]
    model: Any = nn.Sequential(*sum(hidden, []), nn.Linear(*WIDTHS[-2:]))
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    x, y, x_val, y_val = (torch.from_numpy(part) for part in (*rows, *validation))
    y, y_val = y.long(), y_val.long()
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        for _ in range(EPOCHS[batch]):
            for chosen in torch.randperm(ROWS).split(batch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(forward(x[chosen]), y[chosen]).backward()
                optimizer.step()
            with torch.no_grad():
                (model(x_val).argmax(dim=1) == y_val).float().mean().item()

    return run


def train_torch_compiled(rows: Rows, validation: Rows, batch: int) -> Callable[[], object]:
    """The same loop with ``torch.compile`` on the model."""
    return train_torch(rows, validation, batch, compiled=True)


def train_jax(rows: Rows, validation: Rows, batch: int) -> Callable[[], object]:
    """One ``jax.lax.scan`` an epoch, Adam written out; measures what the others measure."""
    import jax
    from jax import numpy as jnp

    random = np.random.default_rng(0)
    kernels = [random.normal(0, (2 / i) ** 0.5, (i, o)) for i, o in pairwise(WIDTHS)]
    weights = [(jnp.asarray(k, jnp.float32), jnp.zeros(k.shape[1])) for k in kernels]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [weights, zeros, zeros, jnp.zeros(())]
    x, y, x_val, y_val = map(jnp.asarray, (*rows, *validation))

    def predict(weights: Any, inputs: Any) -> Any:
        for kernel, bias in weights[:-1]:
            inputs = jax.nn.elu(inputs @ kernel + bias)
        return inputs @ weights[-1][0] + weights[-1][1]

    def measure(weights: Any, inputs: Any, labels: Any) -> Any:
        outputs = predict(weights, inputs)
        likely = jax.nn.log_softmax(outputs)
        losses = -jnp.take_along_axis(likely, labels[:, None], axis=1)
        return losses.mean(), (outputs.argmax(axis=1) == labels).sum()

    def step(state: Any, chosen: Any) -> Any:
        weights, mean, square, steps = state
        (loss, right), gradient = jax.value_and_grad(measure, has_aux=True)(
            weights, x[chosen], y[chosen]
        )
        mean = jax.tree.map(lambda m, g: m + 0.1 * (g - m), mean, gradient)
        square = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), square, gradient)
        rate = RATE * jnp.sqrt(1 - 0.999 ** (steps + 1)) / (1 - 0.9 ** (steps + 1))
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, mean, square
        )
        return [weights, mean, square, steps + 1], jnp.stack([loss * len(chosen), right])

    @jax.jit
    def run_epoch(state: Any, order: Any, rest: Any) -> Any:
        state, sums = jax.lax.scan(step, state, order)
        state, last = step(state, rest)
        return state, (sums.sum(axis=0) + last) / ROWS, measure(state[0], x_val, y_val)

    def run() -> None:
        nonlocal state
        whole = ROWS // batch * batch
        for _ in range(EPOCHS[batch]):
            order = random.permutation(ROWS)
            state, trained, validated = run_epoch(
                state, order[:whole].reshape(-1, batch), order[whole:]
            )
            jax.block_until_ready((trained, validated))

    return run


def train_sklearn(rows: Rows, validation: Rows, batch: int) -> Callable[[], object]:
    """scikit-learn's ``MLPClassifier``; it has no ELU, so ReLU."""
    from sklearn.neural_network import MLPClassifier

    def run() -> None:
        model = MLPClassifier(
            WIDTHS[1:-1], batch_size=batch, max_iter=EPOCHS[batch], learning_rate_init=RATE
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # So few epochs do not converge.
            model.fit(*rows)
        model.score(*validation)

    return run


def multiply(rows: Rows, validation: Rows, batch: int) -> Callable[[], object]:
    """The products of forward and backward pass alone, by NumPy's library."""
    random = np.random.default_rng(0)
    layers = [
        (random.random((batch, i), np.float32), random.random((i, o), np.float32))
        for i, o in pairwise(WIDTHS)
    ]

    def run() -> None:
        for _ in range(EPOCHS[batch] * ROWS // batch):
            for level, (inputs, kernel) in enumerate(layers):
                outputs = inputs @ kernel
                inputs.T @ outputs
                if level:  # The pixels need no gradient.
                    outputs @ kernel.T

    return run


CONTENDERS: Mapping[str, Contender] = {
    "headstart": train_headstart,
    "keras.fit": train_keras,
    "keras.fit on one thread": train_keras,
    "keras.fit, 100 steps a call, jit_compile": train_keras_jitted,
    "PyTorch": train_torch,
    "PyTorch, torch.compile": train_torch_compiled,
    "JAX, lax.scan": train_jax,
    "scikit-learn": train_sklearn,
    "matrix products alone (sgemm on one core)": multiply,
}


def threads_for(batch: int) -> int:
    """Threads for this project's engine: one, as the preset has it, where steps are too short."""
    return PROTOCOL.run.threads if batch <= PROTOCOL.pretrain.batch_size else Run().threads


# Of TensorFlow, for each batch size, where it is not left to choose.
THREADS: Mapping[str, Callable[[int], int]] = {
    "headstart": threads_for,
    "keras.fit on one thread": lambda _: 1,
}

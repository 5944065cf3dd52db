import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from models.alignment import align
from models.augmentation import augment
from models.config import Augmentation, Network, Training
from models.feeding import (
    Array,
    Feed,
    choose_block_rows,
    draw_blocks,
    draw_order,
    draw_orders,
    lend,
    to_array,
)
from models.networks import build_classifier, build_trunk
from models.programs import predict
from models.training import State, fit

SETTINGS = Training(batch_size=16, max_epochs=3, learning_rate=0.01)
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.random((230, 6), np.float32), RANDOM.integers(0, 3, 230).astype(np.int32)
VALIDATION = X[:50], Y[:50]
train = partial(fit, settings=SETTINGS, validation=VALIDATION, seed=7)


def build(seed: int = 1) -> Any:
    network = Network(hidden_layers=1, units=5, batch_norm=True, dropout=0.2)
    return build_classifier(build_trunk(network, 6, seed), 3, seed)


def weights_of(model: Any) -> list[Array]:
    return [variable.numpy() for variable in model.variables]


def map_file(folder: Path, name: str, array: Array) -> Array:
    np.save(folder / name, array)
    mapped: Array = np.load(folder / name, mmap_mode="r")
    return mapped


# --- The blocks of an epoch ---


@pytest.mark.parametrize(("rows", "size"), [(230, 64), (1000, 64), (64, 64), (65, 64), (7, 2)])
def test_every_row_is_in_one_block_of_the_size(rows: int, size: int) -> None:
    blocks = list(draw_blocks(rows, size, seed=1, epoch=0))
    numbers = [np.concatenate([np.arange(rows)[piece] for piece in block]) for block, _ in blocks]
    assert sorted(np.concatenate(numbers)) == list(range(rows))
    assert [len(block) for block in numbers] == [size] * (rows // size) + [rows % size] * (
        rows % size > 0
    )
    for block, (_, order) in zip(numbers, blocks, strict=True):
        assert sorted(order) == list(range(len(block)))


def test_blocks_are_drawn_from_seed_and_epoch() -> None:
    first, again, *others = (
        repr(list(draw_blocks(1000, 64, seed, epoch)))
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (0, 0))
    )
    assert first == again
    assert first not in others


def test_other_rows_meet_in_every_epoch() -> None:
    shared = []
    for epoch in (0, 1):
        pieces, _ = next(draw_blocks(64_000, 6400, seed=1, epoch=epoch))
        shared.append({row for piece in pieces for row in range(piece.start, piece.stop)})
    # A tenth of a tenth by chance.
    assert len(shared[0] & shared[1]) < 2000


@pytest.mark.parametrize(
    ("wished", "rows"), [(0, 2**28 // 24 // 16 * 16), (100, 96), (16, 16), (1, 16)]
)
def test_blocks_are_whole_batches(wished: int, rows: int) -> None:
    assert choose_block_rows(X, 16, wished) == rows


def test_blocks_hold_their_rows_and_labels() -> None:
    numbers = np.arange(230)
    feed = Feed(numbers * 2.0, numbers, size=64)
    (blocks,) = map(list, feed.epochs(seed=1, first=0, last=1))
    assert [len(order) for *_, order in blocks] == [64, 64, 64, 38]
    for x, y, order in blocks:
        np.testing.assert_array_equal(x, 2 * y.numpy())
        assert len(order) == len(y)
    in_turn = np.concatenate([y for _, y in feed.in_turn()])
    np.testing.assert_array_equal(in_turn, numbers)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool])
@pytest.mark.parametrize("size", [16, 64, 230])
def test_blocks_are_tensors_whatever_the_rows_and_outlive_them(size: int, dtype: type) -> None:
    rows = align((100 * X).astype(dtype))
    before = rows.copy()
    (blocks,) = map(list, Feed(rows, Y, size).epochs(seed=1, first=0, last=1))
    del rows
    for x, y, _ in blocks:
        assert x.dtype == (np.float32 if before.dtype.kind == "f" else dtype)
        # TensorFlow's own operations take them to lie as its tensors do.
        assert np.asarray(memoryview(x)).ctypes.data % 64 == 0
        assert len(x) == len(y)
    seen = np.concatenate([x.numpy().reshape(-1, 6) for x, _, _ in blocks])
    np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(before, axis=0).astype(seen.dtype))


@pytest.mark.parametrize("convert", [list, pd.Series, tf.constant])
@pytest.mark.parametrize("size", [64, 230])
def test_labels_may_be_of_any_kind_that_can_be_sliced(convert: Any, size: int) -> None:
    (blocks,) = map(list, Feed(X, convert(Y), size).epochs(seed=1, first=0, last=1))
    seen = np.concatenate([y.numpy() for _, y, _ in blocks])
    np.testing.assert_array_equal(np.sort(seen), np.sort(Y))


def test_rows_of_one_block_are_read_once() -> None:
    feed = Feed(X, Y, size=230)
    (first,), (second,) = map(list, feed.epochs(seed=1, first=0, last=2))
    assert first[0] is second[0]
    np.testing.assert_array_equal(first[2], draw_order(230, 1, 0))


# --- The order of rows ---


def test_an_order_is_a_permutation_drawn_from_seed_and_epoch() -> None:
    order = draw_order(100, 1, 0)
    assert sorted(order) == list(range(100))
    np.testing.assert_array_equal(order, draw_order(100, 1, 0))
    for other in (draw_order(100, 1, 1), draw_order(100, 0, 1), draw_order(100, 2**64 - 1, 0)):
        assert not np.array_equal(order, other)


def test_orders_drawn_together_are_those_drawn_alone() -> None:
    lengths, seeds = [7, 40, 1, 40], [3, 3, 2**70, 0]
    orders = draw_orders(lengths, seeds, 5)
    assert orders.shape == (4, 40)
    for order, length, seed in zip(orders, lengths, seeds, strict=True):
        np.testing.assert_array_equal(order[:length], draw_order(length, seed, 5))


@pytest.mark.parametrize("neighbours", ["seeds", "epochs"])
def test_each_row_comes_at_each_place_equally_often(neighbours: str) -> None:
    draws, rows = 20_000, 8
    if neighbours == "seeds":
        orders = draw_orders([rows] * draws, range(draws), 0)
    else:
        orders = np.array([draw_order(rows, 42, epoch) for epoch in range(draws)])
    counts = np.array([np.bincount(column, minlength=rows) for column in orders.T])
    expected = draws / rows
    # 49 degrees of freedom: above 94.6 by chance once in ten thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 94.6
    # One order says nothing of the next: the same row stands first once in eight.
    same = (orders[1:, 0] == orders[:-1, 0]).sum()
    assert abs(same - expected) < 4 * np.sqrt(expected * (1 - 1 / rows))


# --- Training on blocks ---


@pytest.mark.parametrize("block_rows", [0, 32])
def test_rows_in_memory_and_in_a_file_give_the_same_bits(tmp_path: Path, block_rows: int) -> None:
    in_memory, mapped = build(), build()
    train(in_memory, X, Y, block_rows=block_rows)
    files = map_file(tmp_path, "x.npy", X), map_file(tmp_path, "y.npy", Y)
    train(mapped, *files, block_rows=block_rows)
    for first, second in zip(weights_of(in_memory), weights_of(mapped), strict=True):
        np.testing.assert_array_equal(first, second)


def test_blocks_that_hold_all_rows_change_nothing() -> None:
    assert train(build(), X, Y, block_rows=240).history == train(build(), X, Y).history


def test_training_on_blocks_takes_the_steps_of_one_epoch_and_learns_as_well() -> None:
    steps: dict[int, list[State]] = {0: [], 32: []}
    for block_rows, states in steps.items():
        train(build(), X, Y, block_rows=block_rows, on_epoch=states.append)
    whole, blocks = steps[0][-1], steps[32][-1]
    assert int(blocks.optimizer[0]) == int(whole.optimizer[0]) == 3 * 15
    assert blocks.history["val_loss"] == pytest.approx(whole.history["val_loss"], rel=0.1)


def test_validation_in_blocks_counts_every_row_once() -> None:
    model = build()
    history = train(model, X, Y, block_rows=32).history
    likely = predict(model, VALIDATION[0])[np.arange(50), VALIDATION[1]]
    assert -np.log(likely).mean() == pytest.approx(min(history["val_loss"]), rel=1e-5)


def test_run_on_blocks_resumed_ends_bit_identical() -> None:
    states: list[State] = []
    undisturbed, resumed = build(1), build(2)
    whole = train(undisturbed, X, Y, block_rows=32, on_epoch=states.append)
    saved = State.from_arrays(states[0].to_arrays())
    rest = train(resumed, X, Y, block_rows=32, saved=saved)
    assert rest.history == whole.history
    for first, second in zip(weights_of(undisturbed), weights_of(resumed), strict=True):
        np.testing.assert_array_equal(first, second)


# --- Rows changed anew in every epoch ---


def add_noise(rows: Array, numbers: Array, epoch: int) -> Array:
    """As an augmentation does: noise from nothing but the number of each row and the epoch."""
    noise = [np.random.default_rng([epoch, n]).random(rows.shape[1]) for n in numbers]
    return (rows + noise).astype(np.float32)


@pytest.mark.parametrize("size", [690, 64])
def test_every_copy_is_changed_by_its_own_number_and_epoch(size: int) -> None:
    numbers = np.arange(230, dtype=np.float64)
    asked: list[tuple[int, float, float]] = []

    def change(rows: Array, numbers: Array, epoch: int) -> Array:
        asked.extend((epoch, *pair) for pair in zip(numbers.tolist(), rows.tolist(), strict=True))
        return -rows

    feed = Feed(numbers, numbers, size, copies=3, change=change)
    epochs = [list(epoch) for epoch in feed.epochs(seed=1, first=0, last=2)]
    assert sorted(asked) == [(e, n, n % 230) for e in range(2) for n in range(690)]
    for x, y, order in epochs[0] + epochs[1]:
        np.testing.assert_array_equal(-x, y)
        assert sorted(order) == list(range(len(y)))


def test_changed_rows_are_those_of_an_epoch_whatever_the_block() -> None:
    def rows_of(size: int) -> Array:
        feed = Feed(X, Y, size, copies=2, change=add_noise)
        (rows,) = ([x.numpy() for x, *_ in blocks] for blocks in feed.epochs(1, first=4, last=5))
        return np.sort(np.concatenate(rows), axis=0)

    np.testing.assert_array_equal(rows_of(460), rows_of(32))


@pytest.mark.parametrize("block_rows", [0, 32])
def test_run_on_changed_rows_resumed_ends_bit_identical(block_rows: int) -> None:
    options: Any = {"block_rows": block_rows, "change": add_noise, "copies": 2}
    states: list[State] = []
    undisturbed, repeated, resumed = build(1), build(1), build(2)
    whole = train(undisturbed, X, Y, **options, on_epoch=states.append)
    assert train(repeated, X, Y, **options).history == whole.history
    assert int(states[0].optimizer[0]) == 29  # Batches of 16 from 460 rows.
    rest = train(resumed, X, Y, **options, saved=State.from_arrays(states[0].to_arrays()))
    assert rest.history == whole.history
    for model in (repeated, resumed):
        for first, second in zip(weights_of(undisturbed), weights_of(model), strict=True):
            np.testing.assert_array_equal(first, second)


def test_training_on_changed_rows_is_training_on_those_rows() -> None:
    once = SETTINGS.model_copy(update={"max_epochs": 1})
    changed = train(build(), X, Y, settings=once, change=add_noise).history
    assert changed == train(build(), add_noise(X, np.arange(230), 0), Y, settings=once).history


def test_images_are_augmented_while_training() -> None:
    change = partial(
        augment,
        settings=Augmentation(shift=1, rotation=0, scale=0, shear=0, elastic=0),
        shape=(2, 3),
        seed=1,
    )
    plain, changed = train(build(), X, Y), train(build(), X, Y, change=change)
    again = train(build(), X, Y, change=change)
    assert plain.history != changed.history == again.history


def test_change_that_fails_says_so() -> None:
    def change(rows: Array, numbers: Array, epoch: int) -> Array:
        msg = "no such image"
        raise OSError(msg)

    with pytest.raises(OSError, match="no such image"):
        train(build(), X, Y, change=change)


def test_a_tensor_is_read_where_it_lies() -> None:
    tensor = tf.constant([[1.5, -2.0], [0.0, 3.0]])
    first, second = to_array(tensor), to_array(tensor)
    np.testing.assert_array_equal(first, tensor.numpy())
    assert first.ctypes.data == second.ctypes.data != tensor.numpy().ctypes.data
    assert not first.flags.writeable


def test_an_array_is_lent_in_its_own_type() -> None:
    for kind in (np.float32, np.float64, np.uint32):
        array = np.arange(6, dtype=kind).reshape(2, 3)
        assert to_array(lend(array)).dtype == kind
        np.testing.assert_array_equal(to_array(lend(array)), array)


GROWTH = """
import resource
import numpy as np
from models import feeding
from models.config import Training
from models.networks import build_head
from models.training import fit

class Zeros:
    def __len__(self):
        return 100_000

    def __getitem__(self, where):
        return np.zeros((len(range(100_000)[where]), 1000), np.float32)

def train(x):
    labels = np.zeros(len(x), np.int32)
    settings = Training(batch_size=1000, max_epochs=1)
    fit(build_head(1000, 3, 1), x, labels, settings=settings, validation=(few, few_labels), seed=1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few, few_labels = np.zeros((10, 1000), np.float32), np.zeros(10, np.int32)
feeding.BLOCK_BYTES = 16 * 2**20
before = train(few)
print((train(Zeros()) - before) / 1024)
"""


@pytest.mark.slow
def test_training_on_400_megabytes_takes_the_memory_of_some_blocks() -> None:
    process = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True
    )
    # Three blocks of 16 MB, and another program.
    assert float(process.stdout) < 150

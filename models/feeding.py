"""Rows for training, a block at a time: how many, in what order, read ahead."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")

# Three blocks are in memory at most: the one in use, and the next as read and as converted.
BLOCK_BYTES = 2**28
# Long enough to be read quickly from a disk, short enough for a block to hold many.
_PIECE_ROWS = 512
_PIECES = 16


class Sliceable(Protocol):
    """Rows that need not be in memory."""

    def __len__(self) -> int:
        """How many rows there are."""

    def __getitem__(self, where: slice, /) -> Array:
        """The rows of a slice, ``(rows, ...)``."""


@dataclass(frozen=True, eq=False)
class Feed:
    """Rows and their labels, handed out in blocks.

    Attributes:
        x: Rows, ``(rows, ...)``.
        y: Labels, one for each row.
        size: Rows of a block; the last one may have fewer.
    """

    x: Sliceable
    y: Sliceable
    size: int

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.x)

    @cached_property
    def whole(self) -> tuple[Any, Any] | None:
        """All rows and labels as tensors, if they are one block; it is read once."""
        return self._read([slice(0, len(self))]) if len(self) <= self.size else None

    def shuffled(self, seed: int, epoch: int) -> Iterator[tuple[Any, Any, Array]]:
        """Yields the blocks of an epoch: rows, labels, and the order to train on them."""
        if self.whole:
            yield *self.whole, draw_order(len(self), seed, epoch)
            return
        cuts = draw_blocks(len(self), self.size, seed, epoch)
        for (x, y), order in _read_ahead(
            (partial(self._read, pieces), order) for pieces, order in cuts
        ):
            yield x, y, order

    def in_turn(self) -> Iterator[tuple[Any, Any]]:
        """Yields rows and labels of all blocks as they lie."""
        if self.whole:
            yield self.whole
            return
        cuts = (slice(i, i + self.size) for i in range(0, len(self), self.size))
        for block, _ in _read_ahead((partial(self._read, [cut]), None) for cut in cuts):
            yield block

    def _read(self, pieces: list[slice]) -> tuple[Any, Any]:
        return _gather(self.x, pieces), _gather(self.y, pieces)


def choose_block_rows(x: Sliceable, batch_size: int, block_rows: int = 0) -> int:
    """How many rows a block has: whole batches, at least one.

    Args:
        x: Rows; one is read to see how large it is.
        batch_size: Rows of a training step.
        block_rows: Rows wished for; 0 is what ``BLOCK_BYTES`` hold.
    """
    wished = block_rows or BLOCK_BYTES // max(1, to_tensor(x[:1]).numpy().nbytes)
    return max(1, wished // batch_size) * batch_size


def draw_order(rows: int, seed: int, epoch: int) -> Array:
    """Draws the order of one epoch's rows, from nothing but the seed and the epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return order.astype(np.int32)


def draw_blocks(rows: int, size: int, seed: int, epoch: int) -> Iterator[tuple[list[slice], Array]]:
    """Draws one epoch's blocks from nothing but the seed and the epoch.

    The rows are cut into pieces of neighbours. The pieces are shuffled and laid end to end, and
    every ``size`` rows of that line are a block: other pieces meet in every epoch. Within a
    block all rows are shuffled. So one row may come at any place of an epoch, but neighbours
    come in the same block, or the next.

    Yields:
        For each block its pieces of the rows, as they lie, and the order of training on the
        rows so read, ``(size,)``.
    """
    random = np.random.default_rng([seed, epoch])
    length = max(1, min(_PIECE_ROWS, size // _PIECES))
    starts = random.permutation(math.ceil(rows / length)) * length
    pieces = (slice(int(start), min(int(start) + length, rows)) for start in starts)
    for block in _cut(pieces, size):
        here = sum(piece.stop - piece.start for piece in block)
        # Read from first to last, which disks like; the order of training shuffles them.
        yield (
            sorted(block, key=lambda piece: piece.start),
            random.permutation(here).astype(np.int32),
        )


def _cut(pieces: Iterable[slice], size: int) -> Iterator[list[slice]]:
    """Cuts pieces laid end to end into blocks of ``size`` rows, through a piece if need be."""
    block: list[slice] = []
    room = size
    for piece in pieces:
        start = piece.start
        while start < piece.stop:
            stop = min(piece.stop, start + room)
            block.append(slice(start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield block
                block, room = [], size
    if block:
        yield block


def _gather(rows: Sliceable, pieces: list[slice]) -> Any:
    if len(pieces) == 1:
        return to_tensor(rows[pieces[0]])
    first = rows[pieces[0]]
    count = sum(piece.stop - piece.start for piece in pieces)
    gathered = np.empty((count, *first.shape[1:]), first.dtype)
    done = 0
    for piece in pieces:
        part = rows[piece]
        gathered[done : done + len(part)] = part
        done += len(part)
    return to_tensor(gathered)


def to_tensor(rows: Array) -> Any:
    """Converts rows to a tensor, floats to Keras's float type."""
    tensor = tf.convert_to_tensor(rows)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def _read_ahead(
    reads: Iterable[tuple[Callable[[], Result], Any]],
) -> Iterator[tuple[Result, Any]]:
    """Calls each function in a thread while the result of the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        ahead: tuple[Future[Result], Any] | None = None
        for read, tag in reads:
            ready, ahead = ahead, (pool.submit(read), tag)
            if ready:
                yield ready[0].result(), ready[1]
        if ahead:
            yield ahead[0].result(), ahead[1]

"""Rows for training, a block at a time: how many, in what order, read ahead."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf

from models.alignment import align, allocate

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")
# Rows, labels, and the order to train on them.
Block = tuple[Any, Any, Array]
# Of rows ``(rows, ...)``, their numbers ``(rows,)`` and the epoch. A number beyond those of the
# rows there are is that of a further copy: copy 2 of row 3 of 500 is 1003.
Change = Callable[[Array, Array, int], Array]

# A few blocks are in memory at once: the one in use, and the next as read and as converted.
BLOCK_BYTES = 2**28
# Long enough to be read quickly from a disk, short enough for a block to hold many.
_PIECE_ROWS = 512
_PIECES = 16
# The step of SplitMix64, and what of a key is hash: the rest is a row's number.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_HASH = np.uint64(0xFFFFFFFF00000000)


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
        copies: How often each row comes in an epoch.
        change: Makes of the rows of a block those to train on; see ``Change``.
        shuffled: Whether each epoch has its own order; else rows come as they lie.
        last: Rows in all epochs together, after which training ends; 0 is no limit.
    """

    x: Sliceable
    y: Sliceable
    size: int
    copies: int = 1
    change: Change | None = None
    shuffled: bool = True
    last: int = 0

    def __len__(self) -> int:
        """How many rows an epoch has."""
        return len(self.x) * self.copies

    @property
    def blocks(self) -> int:
        """How many blocks an epoch has."""
        return math.ceil(len(self) / self.size)

    @cached_property
    def whole(self) -> tuple[Any, Any] | None:
        """All rows and labels as they are, if they are one block; it is read once."""
        return self._read([slice(0, len(self))]) if self.blocks == 1 else None

    def epochs(self, seed: int, first: int, last: int) -> Generator[Iterator[Block]]:
        """Yields the blocks of each epoch from ``first`` to before ``last``.

        The next block is read and changed in a thread while one is in use, across epochs too.
        """
        reads = chain.from_iterable(self._plan(seed, epoch) for epoch in range(first, last))
        with closing(_read_ahead(reads)) as blocks:
            for epoch in range(first, last):
                of_epoch = islice(blocks, self.blocks)
                yield _trim(of_epoch, self.last - epoch * len(self)) if self.last else of_epoch

    def in_turn(self) -> Iterator[tuple[Any, Any]]:
        """Yields rows and labels of all blocks as they lie."""
        if self.whole:
            yield self.whole
            return
        yield from _read_ahead(partial(self._read, [cut]) for cut in self._cuts())

    def _cuts(self) -> Iterator[slice]:
        for start in range(0, len(self), self.size):
            yield slice(start, min(start + self.size, len(self)))

    def _plan(self, seed: int, epoch: int) -> Iterator[Callable[[], Block]]:
        if not self.shuffled:
            for cut in self._cuts():
                order = np.arange(cut.stop - cut.start, dtype=np.int32)
                yield partial(self._read_block, [cut], order, epoch)
            return
        if self.blocks == 1:
            order = draw_order(len(self), seed, epoch)
            yield partial(self._read_block, [slice(0, len(self))], order, epoch)
            return
        for pieces, order in draw_blocks(len(self), self.size, seed, epoch):
            yield partial(self._read_block, pieces, order, epoch)

    def _read_block(self, pieces: list[slice], order: Array, epoch: int) -> Block:
        if self.whole and not self.change:
            return *self.whole, order
        return *self._read(pieces, epoch), order

    def _read(self, pieces: list[slice], epoch: int | None = None) -> tuple[Any, Any]:
        places = list(_wrap(pieces, len(self.x)))
        x, y = _gather(self.x, places), to_tensor(_gather(self.y, places))
        if self.change and epoch is not None:
            numbers = np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces])
            x = self.change(x, numbers, epoch)
        return to_tensor(x), y


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
    order: Array = draw_orders([rows], [seed], epoch)[0]
    return order


def draw_orders(lengths: Sequence[int] | Array, seeds: Sequence[int], epoch: int) -> Array:
    """Draws the orders of one epoch's rows for several trainings at once.

    Rows are sorted by a hash of the seed, the epoch and the row's number: the mixing function
    of SplitMix64 (Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators).

    Args:
        lengths: How many rows each training has.
        seeds: The seed of each.
        epoch: The first is 0.

    Returns:
        Row numbers, ``(trainings, longest)``; beyond a training's length they mean nothing.
    """
    rows = np.arange(max(lengths), dtype=np.uint64)
    starts = _mix(_mix(np.array([seed % 2**64 for seed in seeds], np.uint64)) + np.uint64(epoch))
    keys = _mix(starts[:, None] + rows * _STEP)
    # The row's number is part of its key, so sorting the keys sorts the rows.
    keys &= _HASH
    keys |= rows
    if min(lengths) < len(rows):
        keys |= np.where(rows < np.array(lengths)[:, None], np.uint64(0), _HASH)
    keys.sort(axis=1)
    order = allocate(keys.shape, np.int32)
    np.copyto(order, keys, casting="unsafe")
    return order


def _mix(state: Array) -> Array:
    """SplitMix64's, of numbers of 64 bits."""
    mixed = state + _STEP
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


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


def _trim(blocks: Iterable[Block], rows: int) -> Iterator[Block]:
    """Blocks up to so many rows of them all together."""
    for x, y, order in blocks:
        if rows > 0:
            yield x, y, order[:rows]
        rows -= len(order)


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


def _wrap(pieces: Iterable[slice], rows: int) -> Iterator[slice]:
    """Where pieces of copies laid end to end lie among the rows themselves."""
    for piece in pieces:
        start = piece.start
        while start < piece.stop:
            place = start % rows
            length = min(piece.stop - start, rows - place)
            yield slice(place, place + length)
            start += length


def _gather(rows: Sliceable, pieces: list[slice]) -> Array:
    # Rows may be in a list, or labels a column of a table.
    first = np.asarray(rows[pieces[0]])
    if len(pieces) == 1:
        return first
    count = sum(piece.stop - piece.start for piece in pieces)
    gathered = allocate((count, *first.shape[1:]), first.dtype)
    done = 0
    for piece in pieces:
        part = rows[piece]
        gathered[done : done + len(part)] = part
        done += len(part)
    return gathered


def to_tensor(rows: Array) -> Any:
    """Makes a tensor of rows where TensorFlow computes, floats of Keras's float type.

    It may be in the memory of the rows, which must not change as long as it is in use.
    """
    tensor = lend(rows)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def lend(array: Array) -> Any:
    """Makes a tensor of an array's own type, as ``to_tensor`` does."""
    # Copied, if at all, by NumPy: it asks for large pages of memory, so TensorFlow would take five
    # times as long.
    aligned = align(np.asarray(array))
    return tf.identity(tf.experimental.dlpack.from_dlpack(aligned.__dlpack__()))


def to_array(tensor: Any) -> Array:
    """The numbers of a tensor where they lie, not to be written to; its ``numpy()`` copies them."""
    # From a GPU they have to be copied.
    return np.from_dlpack(tensor) if "CPU" in tensor.device else np.asarray(tensor.numpy())


def _read_ahead(reads: Iterable[Callable[[], Result]]) -> Generator[Result]:
    """Calls each function in a thread while the result of the one before is in use."""
    ahead: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(1)
    try:
        for read in reads:
            ahead.append(pool.submit(read))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        # Whoever stops early does not wait for what it no longer wants.
        pool.shutdown(wait=False, cancel_futures=True)

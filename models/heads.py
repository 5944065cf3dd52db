"""Many softmax heads on one cache of activations, trained together by one XLA program.

Each head has its own seed, learning rate, L2, dropout, rows and early stopping, and ends where
``training.fit`` would have led it alone, to rounding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from models.config import HeadTraining
from models.feeding import Array, draw_orders, lend, to_array
from models.networks import build_head, draw_head_kernels
from models.optimizers import choose_rate, start_slots, update
from models.programs import Compiled, is_on_gpu, repeat

# More heads take less time each, until their weights, moments and batches outgrow the cache.
TILE = 256
# So few that two halves in two threads take longer than all in one.
_FEW = 64
_VALIDATION_ROWS = 1000
# Columns come in fours: products of rows of whole 16 bytes take a twentieth off an epoch.
_EVEN = 4
_LOGS = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True, eq=False)
class Head:
    """How one of many heads is trained.

    Attributes:
        seed: Of its first weights, the order of its rows and its dropout.
        learning_rate: Learning rate (at step 0).
        l2: Factor of the sum of its squared weights in the loss; the biases are free.
        dropout: Share of its inputs set to 0 in training.
        rows: Numbers of the rows it trains on; None is all of them.
        validation_rows: Numbers of the validation rows that count for it; None is all of them.
    """

    seed: int
    learning_rate: float = 0.01
    l2: float = 0.0
    dropout: float = 0.0
    rows: Array | None = None
    validation_rows: Array | None = None


@dataclass(frozen=True, eq=False)
class HeadsState:
    """All that training needs to go on after an epoch as if it had never stopped.

    Attributes:
        epoch: Epochs done by the heads that have not stopped.
        weights: ``(heads, classes, units + 1)``; the last column is the bias.
        slots: The update rule's moments, ``(heads, slots, classes, units + 1)``.
        steps: Updates done, ``(heads,)``.
        best_epoch: The epoch of the lowest validation loss, ``(heads,)``; 0 before the first.
        best: The weights after that epoch, as ``weights``.
        diverged: Whether a loss was not finite, ``(heads,)``; such a head has stopped.
        history: loss, accuracy, val_loss and val_accuracy, ``(epochs, heads)`` each; NaN after
            a head has stopped.
    """

    epoch: int
    weights: Array
    slots: Array
    steps: Array
    best_epoch: Array
    best: Array
    diverged: Array
    history: Mapping[str, Array]

    @property
    def kernels(self) -> Array:
        """The best weights of every head, ``(heads, units, classes)``."""
        return self.best[..., :-1].transpose(0, 2, 1)

    @property
    def biases(self) -> Array:
        """The best biases of every head, ``(heads, classes)``."""
        return self.best[..., -1]

    @property
    def best_loss(self) -> Array:
        """The lowest validation losses so far, ``(heads,)``; infinite before the first epoch."""
        none = np.full((1, len(self.steps)), np.inf)
        losses = np.concatenate([none, self.history["val_loss"]])
        return losses[self.best_epoch, np.arange(len(self.steps))]

    def is_training(self, settings: HeadTraining) -> Array:
        """Tells which heads have not stopped, ``(heads,)``."""
        waited = self.epoch - self.best_epoch
        going = (waited <= settings.patience) & ~self.diverged
        return going & (self.epoch < settings.max_epochs)

    def to_arrays(self) -> dict[str, Array]:
        """Flattens the state to named arrays, as ``numpy.savez`` takes them."""
        arrays = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
        return arrays | {f"history/{name}": values for name, values in self.history.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Rebuilds a state from what ``to_arrays`` gave.

        Raises:
            ValueError: If arrays are missing.
        """
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            msg = f"Not a state of heads: no {' and no '.join(missing)} among its arrays."
            raise ValueError(msg)
        history = {name: arrays[f"history/{name}"] for name in _LOGS}
        fields = {name: arrays[name] for name in _ARRAYS if name != "epoch"}
        return cls(epoch=int(arrays["epoch"]), history=history, **fields)


_ARRAYS = ("epoch", "weights", "slots", "steps", "best_epoch", "best", "diverged")


def fit_heads(
    heads: Sequence[Head],
    x: Array,
    y: Array,
    *,
    classes: int,
    settings: HeadTraining,
    validation: tuple[Array, Array],
    saved: HeadsState | None = None,
    on_epoch: Callable[[HeadsState], None] | None = None,
) -> HeadsState:
    """Trains many heads on the same activations, each as if it were alone.

    A head stops by the rule of ``training.fit`` and does not change after. One that diverges
    stops too, and disturbs no other.

    The heads still training are packed into tiles of equal size, so that one compiled program
    serves them all, heads that have stopped cost nothing, and a tile fits a core's cache. The
    tiles of an epoch run in parallel; none depends on another.

    Args:
        heads: What each head differs in; its learning rate is used, not the one in settings.
        x: Activations, ``(rows, units)``.
        y: Labels from 0, ``(rows,)``.
        classes: Outputs of a head.
        settings: What the heads share: update rule, schedule, batch size, epochs and patience.
        validation: Rows and labels that decide which epoch is a head's best. For folds give
            x and y again, and the rows of each part to each head.
        saved: The state to go on from.
        on_epoch: Called with the state after each epoch, to save it.

    Returns:
        The state after the last epoch; ``build_best_head`` makes a model of one of its heads.

    Raises:
        ValueError: If rows, labels or settings make no sense, or ``saved`` is of other heads.
    """
    _check(heads, x, y, classes, validation)
    settings = settings.over(max(len(x if head.rows is None else head.rows) for head in heads))
    trainer = _Trainer(heads, x, y, classes, settings, validation)
    state = saved or trainer.begin()
    if state.weights.shape != trainer.shape:
        msg = f"The saved state is of other heads: {state.weights.shape}, not {trainer.shape}."
        raise ValueError(msg)
    with ThreadPoolExecutor(2) as pool:
        while (active := np.flatnonzero(state.is_training(settings))).size:
            tiles = trainer.pack(active)
            after = _begin_epoch(state, len(active))
            orders = [tile.order or pool.submit(trainer.draw, tile, state.epoch) for tile in tiles]
            runs = pool.map(partial(trainer.run, state, after), tiles, orders)
            # The thread that is left without a tile to train goes on with the next epoch's orders.
            if state.epoch + 1 < settings.max_epochs:
                for tile in tiles:
                    tile.order = pool.submit(trainer.draw, tile, state.epoch + 1)
            logs = np.concatenate([*runs])
            state = _end_epoch(state, after, active, logs)
            if on_epoch:
                on_epoch(state)
    return state


def build_best_head(state: HeadsState, heads: Sequence[Head], index: int) -> keras.Model:
    """Builds a model with one head's best weights, as ``networks.build_head`` does."""
    head = heads[index]
    classes, columns = state.best.shape[1:]
    model = build_head(columns - 1, classes, head.seed, l2=head.l2, dropout=head.dropout)
    model.get_layer("head").set_weights([state.kernels[index], state.biases[index]])
    return model


@dataclass
class _Tile:
    """Heads trained together, and what of theirs TensorFlow has already.

    Attributes:
        heads: Their numbers, ``(heads,)``.
        padded: As many as the program takes; one is repeated.
        constants: What the program is told of them in every epoch alike.
        order: What ``_Trainer.draw`` gives for the next epoch, once it has been asked.
        left: Their weights, slots and steps, as the epoch before has left them.
    """

    heads: Array
    padded: Array
    constants: Sequence[Any]
    order: Future[Array] | None = None
    left: Sequence[Any] = ()


class _Trainer:
    """What stays the same from epoch to epoch: rows, settings, and the program."""

    def __init__(
        self,
        heads: Sequence[Head],
        x: Array,
        y: Array,
        classes: int,
        settings: HeadTraining,
        validation: tuple[Array, Array],
    ) -> None:
        self.heads = heads
        self.settings = settings
        self.shape = (len(heads), classes, x.shape[1] + 1)
        self.tile = _choose_tile(len(heads))
        self.lengths = np.array([len(_all_or(head.rows, len(x))) for head in heads], np.int32)
        longest = int(self.lengths.max())
        self.rows = _stack_rows(heads, len(x), longest)
        self.batch = min(settings.batch_size, longest)
        self.batches = math.ceil(longest / self.batch)
        needs = _Needs(
            dropout=any(head.dropout for head in heads),
            l2=any(head.l2 for head in heads),
            ragged=bool((self.lengths != self.batches * self.batch).any()),
        )
        # Columns of zeros at the front, but where dropout is drawn for each, as `fit` draws it.
        self.zeros = 0 if needs.dropout else -self.shape[-1] % _EVEN
        self.data = [*map(tf.constant, (self._widen(_with_ones(x)), y.astype(np.int32)))]
        self.validation = _block_up(self._widen(_with_ones(validation[0])), validation[1])
        self.shares, self.kinds = _share_out(heads, len(validation[0]), self.validation[1].shape)
        self.own = _settings_of(heads)
        self.program = _compile_epoch(settings, needs)
        self.tiles: list[_Tile] = []

    def begin(self) -> HeadsState:
        """The state before the first epoch."""
        count, classes, columns = self.shape
        kernels = draw_head_kernels(columns - 1, classes, [head.seed for head in self.heads])
        weights = np.zeros(self.shape, np.float32)
        weights[..., :-1] = kernels.transpose(0, 2, 1)
        return HeadsState(
            epoch=0,
            weights=weights,
            slots=start_slots(self.settings, self.shape),
            steps=np.zeros(count, np.int32),
            best_epoch=np.zeros(count, np.int32),
            best=weights,
            diverged=np.zeros(count, bool),
            history={name: np.empty((0, count)) for name in _LOGS},
        )

    def pack(self, active: Array) -> list[_Tile]:
        """The tiles of an epoch.

        Args:
            active: Numbers of the heads still training, never more than the epoch before.
        """
        self.tiles = [
            self._pack_tile(place, active[start : start + self.tile])
            for place, start in enumerate(range(0, len(active), self.tile))
        ]
        return self.tiles

    def _pack_tile(self, place: int, heads: Array) -> _Tile:
        before = self.tiles[place] if self.tiles else None
        if before and np.array_equal(before.heads, heads):
            return before
        padded = np.pad(heads, (0, self.tile - len(heads)), mode="edge")
        starts = self.batch * np.arange(self.batches, dtype=np.int32)[:, None]
        counts = np.clip(self.lengths[padded] - starts, 0, self.batch)
        own = (values[padded] for values in self.own)
        constants = [*map(lend, (counts, self.shares[:, self.kinds[padded]], *own))]
        return _Tile(heads, padded, constants)

    def draw(self, tile: _Tile, epoch: int) -> Array:
        """Draws the row numbers of an epoch's batches, ``(heads, batches, batch)``."""
        seeds = [self.heads[head].seed for head in tile.padded]
        order = draw_orders(self.lengths[tile.padded], seeds, epoch)
        if self.rows is not None:
            order = np.take_along_axis(self.rows[tile.padded], order, axis=1)
        if missing := self.batches * self.batch - order.shape[1]:
            order = np.pad(order, [(0, 0), (0, missing)])
        return order.reshape(len(tile.padded), self.batches, self.batch)

    def run(self, state: HeadsState, after: HeadsState, tile: _Tile, order: Future[Array]) -> Array:
        """Trains the heads of a tile for an epoch and validates them.

        Args:
            state: Before the epoch.
            after: Into which their weights, slots and steps are written.
            tile: Which heads.
            order: What ``draw`` gives for the epoch.

        Returns:
            Their logs, ``(heads, 4)``.
        """
        results = self.program(
            *self.data,
            *self.validation,
            lend(order.result()),
            *tile.constants,
            *(tile.left or self._lend(state, tile.padded)),
        )
        heads, tile.left = tile.heads, results[:3]
        weights, slots, steps, trained, validated = (
            to_array(part)[: len(heads)] for part in results
        )
        after.weights[heads] = weights[..., self.zeros :]
        after.slots[heads] = slots[..., self.zeros :]
        after.steps[heads] = steps
        return np.hstack([trained / self.lengths[heads, None], validated])

    def _lend(self, state: HeadsState, heads: Array) -> list[Any]:
        wide = (self._widen(part[heads]) for part in (state.weights, state.slots))
        return [*map(lend, (*wide, state.steps[heads]))]

    def _widen(self, part: Array) -> Array:
        """Gives rows, weights or moments the columns of zeros."""
        return np.pad(part, [(0, 0)] * (part.ndim - 1) + [(self.zeros, 0)])


def _begin_epoch(state: HeadsState, active: int) -> HeadsState:
    """A copy of a state to write the weights, slots and steps of some heads into."""
    new = np.empty_like if active == len(state.steps) else np.copy
    return replace(
        state, weights=new(state.weights), slots=new(state.slots), steps=new(state.steps)
    )


def _end_epoch(state: HeadsState, after: HeadsState, active: Array, logs: Array) -> HeadsState:
    """The state after an epoch of the active heads; the others stay as they are."""
    finite = np.isfinite(logs[:, [0, 2]]).all(axis=1)
    better = active[finite & (logs[:, 2] < state.best_loss[active])]
    return replace(
        after,
        epoch=state.epoch + 1,
        best_epoch=_put(state.best_epoch, better, state.epoch + 1),
        best=_put(state.best, better, after.weights[better]),
        diverged=_put(state.diverged, active, ~finite),
        history={
            name: np.vstack([state.history[name], _put(np.full(len(state.steps), np.nan), *pair)])
            for name, pair in zip(_LOGS, ((active, log) for log in logs.T), strict=True)
        },
    )


def _put(array: Array, where: Array, values: Any) -> Array:
    changed = array.copy()
    changed[where] = values
    return changed


def _settings_of(heads: Sequence[Head]) -> list[Array]:
    """Learning rates, L2, dropout rates and seeds of dropout, ``(heads,)`` each."""
    numbers = [[head.learning_rate, head.l2, head.dropout] for head in heads]
    # The seed that `fit` gives to the one layer that draws.
    seeds = [np.random.SeedSequence(head.seed).generate_state(1)[0] >> 1 for head in heads]
    return [*np.array(numbers, np.float32).T, np.array(seeds, np.int32)]


def _choose_tile(count: int) -> int:
    """Heads of a tile: all if they are few, else so that two threads have as many tiles each."""
    if count <= min(_FEW, TILE):
        return count
    return math.ceil(count / (2 * math.ceil(count / (2 * TILE))))


def _all_or(rows: Array | None, count: int) -> Array:
    return np.arange(count) if rows is None else rows


def _stack_rows(heads: Sequence[Head], count: int, longest: int) -> Array | None:
    """The numbers of each head's rows, ``(heads, longest)``; None if each trains on all."""
    if all(head.rows is None for head in heads):
        return None
    stacked = np.zeros((len(heads), longest), np.int32)
    for place, head in enumerate(heads):
        rows = _all_or(head.rows, count)
        stacked[place, : len(rows)] = rows
    return stacked


def _with_ones(x: Array) -> Array:
    """Rows with a column of ones, so that the bias is one more weight."""
    return np.hstack([x, np.ones((len(x), 1), x.dtype)]).astype(np.float32)


def _block_up(x: Array, y: Array) -> list[Any]:
    """Rows and labels in equal blocks, the last padded."""
    size = min(_VALIDATION_ROWS, len(x))
    blocks = math.ceil(len(x) / size)
    padding = blocks * size - len(x)
    rows = np.pad(x, [(0, padding), (0, 0)]).reshape(blocks, size, -1)
    labels = np.pad(y, (0, padding)).reshape(blocks, size)
    return [tf.constant(rows), tf.constant(labels.astype(np.int32))]


def _share_out(heads: Sequence[Head], count: int, blocked: Sequence[int]) -> tuple[Array, Array]:
    """What each validation row counts in the mean of a head: the rows of a fold equally, no other.

    Args:
        heads: Say which rows count for them.
        count: Validation rows there are.
        blocked: Blocks of them, and rows of a block.

    Returns:
        Shares ``(blocks, kinds, rows)``, and which kind is each head's ``(heads,)``.
    """
    blocks, size = blocked
    numbers: dict[bytes, int] = {}
    kinds: list[int] = []
    shares: list[Array] = []
    for head in heads:
        rows = _all_or(head.validation_rows, count)
        kinds.append(numbers.setdefault(rows.tobytes(), len(shares)))
        if kinds[-1] == len(shares):
            shares.append(np.zeros(blocks * size, np.float32))
            shares[-1][rows] = 1 / len(rows)
    return np.reshape(shares, (-1, blocks, size)).swapaxes(0, 1), np.array(kinds)


# --- The program ---


@dataclass(frozen=True)
class _Needs:
    """What costs time in every step, and that most heads can do without.

    Attributes:
        dropout: Whether any head has dropout.
        l2: Whether any head has L2.
        ragged: Whether any batch of any head is not full.
    """

    dropout: bool
    l2: bool
    ragged: bool


@lru_cache(maxsize=8)
def _compile_epoch(settings: HeadTraining, needs: _Needs) -> Compiled:
    """Compiles the epoch of a tile."""
    # With dropout as ``fit``: XLA draws other numbers from the same seed.
    xla = is_on_gpu() or not needs.dropout

    def train_and_validate(*arguments: Any) -> Any:
        return _train_and_validate(settings, needs, xla, *arguments)

    return Compiled(train_and_validate, xla)


def _train_and_validate(
    settings: HeadTraining,
    needs: _Needs,
    in_xla: bool,
    x: Any,
    y: Any,
    x_val: Any,
    y_val: Any,
    order: Any,
    counts: Any,
    shares: Any,
    rates: Any,
    l2: Any,
    dropouts: Any,
    seeds: Any,
    weights: Any,
    slots: Any,
    steps: Any,
) -> Any:
    """One epoch of a tile of heads; see ``_Trainer.run`` for what it is given."""
    factors = l2 if needs.l2 else None

    def step(batch: Any, weights: Any, moments: Any, steps: Any, sums: Any) -> tuple[Any, ...]:
        rows = order[:, batch]
        inputs, labels = tf.gather(x, rows), tf.gather(y, rows)
        if needs.dropout:
            inputs *= _draw_kept(inputs.shape, dropouts, seeds, steps)
        # A constant, of which the compiler makes nothing.
        count = counts[batch] if needs.ragged else tf.fill(steps.shape, order.shape[2])
        gradient, losses, right = _differentiate(weights, inputs, labels, count, factors)
        new, new_moments = update(
            settings,
            weights,
            moments,
            gradient,
            choose_rate(settings, rates, steps)[:, None, None],
            steps[:, None, None],
            in_xla,
        )
        # A head whose rows are used up waits for the others.
        has = (count > 0)[:, None, None]
        weights = tf.where(has, new, weights)
        moments = tuple(tf.where(has, a, b) for a, b in zip(new_moments, moments, strict=True))
        steps += tf.cast(count > 0, steps.dtype)
        return weights, moments, steps, sums + tf.stack([losses, right], axis=1)

    sums = tf.zeros((weights.shape[0], 2))
    moments = tuple(tf.unstack(slots, axis=1)) if slots.shape[1] else ()
    weights, moments, steps, sums = repeat(order.shape[1], step, weights, moments, steps, sums)
    slots = tf.stack(moments, axis=1) if moments else slots
    return weights, slots, steps, sums, _validate(weights, x_val, y_val, shares, factors)


def _differentiate(weights: Any, inputs: Any, labels: Any, count: Any, l2: Any) -> Any:
    """The gradient of the mean loss of each head's batch, and the sums over its rows.

    Args:
        weights: ``(heads, classes, units + 1)``.
        inputs: ``(heads, batch, units + 1)``.
        labels: ``(heads, batch)``.
        count: How many rows of the batch are real, ``(heads,)``.
        l2: ``(heads,)``, or None if no head has any.

    Returns:
        Gradient as ``weights``, losses with penalty and right answers, ``(heads,)`` each.
    """
    heads, classes, _ = weights.shape
    real = tf.sequence_mask(count, labels.shape[1], tf.float32)
    rows = tf.cast(count, tf.float32)
    # Classes first: then the rest runs along the rows of all heads together.
    logits = tf.einsum("hcu,hbu->chb", weights, inputs)
    flat = tf.reshape(labels, [-1])
    losses, right, likely = _judge(tf.reshape(logits, (classes, -1)), flat)
    targets = tf.one_hot(flat, classes, axis=0)
    each = (likely - targets) * tf.reshape(real / tf.maximum(rows, 1)[:, None], [-1])
    gradient = tf.einsum("chb,hbu->hcu", tf.reshape(each, (classes, heads, -1)), inputs)
    penalties, slope = _penalise(weights, l2)
    return (
        gradient + slope,
        tf.reduce_sum(tf.reshape(losses, real.shape) * real, axis=1) + penalties * rows,
        tf.reduce_sum(tf.reshape(right, real.shape) * real, axis=1),
    )


def _validate(weights: Any, x: Any, y: Any, shares: Any, l2: Any) -> Any:
    """Mean loss with penalty and accuracy of each head, ``(heads, 2)``."""
    heads, classes, _ = weights.shape

    def add(block: Any, losses: Any, right: Any) -> tuple[Any, Any]:
        logits = tf.einsum("hcu,ru->chr", weights, x[block])
        judged = _judge(tf.reshape(logits, (classes, -1)), tf.tile(y[block], [heads]))
        losses += tf.reduce_sum(tf.reshape(judged[0], (heads, -1)) * shares[block], axis=1)
        right += tf.reduce_sum(tf.reshape(judged[1], (heads, -1)) * shares[block], axis=1)
        return losses, right

    losses, right = repeat(x.shape[0], add, tf.zeros(heads), tf.zeros(heads))
    return tf.stack([losses + _penalise(weights, l2)[0], right], axis=1)


def _judge(logits: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Loss of each row, 1 where the likeliest class is right, and the softmax.

    Args:
        logits: ``(classes, rows)``.
        labels: ``(rows,)``.
    """
    classes = tf.range(logits.shape[0])[:, None]
    highest = tf.reduce_max(logits, axis=0)
    powers = tf.exp(logits - highest)
    total = tf.reduce_sum(powers, axis=0)
    own = tf.reduce_sum(tf.where(labels == classes, logits - highest, 0.0), axis=0)
    # The first of equals, as argmax has it.
    likeliest = tf.reduce_min(tf.where(logits == highest, classes, logits.shape[0]), axis=0)
    right = tf.cast(likeliest == labels, tf.float32)
    return tf.math.log(total) - own, right, powers / total


def _penalise(weights: Any, l2: Any) -> tuple[Any, Any]:
    """The penalty of each head's squared weights but the biases, and its gradient."""
    if l2 is None:
        return 0.0, 0.0
    units = weights.shape[-1] - 1
    kernels = weights * tf.one_hot(units, units + 1, on_value=0.0, off_value=1.0)
    return l2 * tf.reduce_sum(kernels**2, axis=(1, 2)), 2 * l2[:, None, None] * kernels


def _draw_kept(shape: Any, dropouts: Any, seeds: Any, steps: Any) -> Any:
    """Factors of the inputs, 0 where dropped, drawn as ``keras.layers.Dropout`` draws them."""
    heads, batch, columns = shape
    drawn = tf.map_fn(
        lambda seed: tf.random.stateless_uniform((batch, columns - 1), seed),
        tf.stack([seeds, steps], axis=1),
        fn_output_signature=tf.float32,
    )
    dropouts = dropouts[:, None, None]
    kept = tf.where(drawn >= dropouts, 1 / (1 - dropouts), 0.0)
    return tf.concat([kept, tf.ones((heads, batch, 1))], axis=-1)


# --- Wrong arguments ---


def _check(
    heads: Sequence[Head], x: Array, y: Array, classes: int, validation: tuple[Array, Array]
) -> None:
    """Raises ValueError with everything that is wrong."""
    problems = [] if heads else ["There must be a head."]
    for name, rows, labels in (("Training", x, y), ("Validation", *validation)):
        if len(rows) != len(labels) or not len(rows):
            problems.append(f"{name}: {len(rows)} rows and {len(labels)} labels.")
        elif labels.min() < 0 or labels.max() >= classes:
            problems.append(f"{name}: labels from {labels.min()} to {labels.max()}.")
    for number, head in enumerate(heads):
        problems += [f"Head {number}: {text}" for text in _complain(head, x, validation[0])]
    if problems:
        msg = f"Heads of {classes} classes cannot be trained. {' '.join(problems)}"
        raise ValueError(msg)


def _complain(head: Head, x: Array, x_val: Array) -> list[str]:
    problems = []
    if not (head.learning_rate > 0 and head.l2 >= 0 and 0 <= head.dropout < 1):
        rates = f"learning_rate {head.learning_rate}, l2 {head.l2}, dropout {head.dropout}"
        problems.append(f"{rates}; expected above 0, at least 0, and from 0 to below 1.")
    for name, rows, count in (
        ("rows", head.rows, len(x)),
        ("validation_rows", head.validation_rows, len(x_val)),
    ):
        if rows is not None and not (len(rows) and 0 <= rows.min() and rows.max() < count):
            problems.append(f"{name} must be numbers from 0 to {count - 1}, at least one.")
    return problems

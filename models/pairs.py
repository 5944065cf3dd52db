"""Same/different pairs: how pairs of images are drawn, and the network that tells them apart.

A trunk can be pretrained so where labels say no more than which images belong together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from models.config import Network
from models.feeding import Array
from models.networks import Statistics, build_trunk
from models.programs import RowLoss
from models.strategies import draw_seeds

PAIR_ACCURACY: Mapping[str, RowLoss] = {"accuracy": keras.metrics.binary_accuracy}

# Keeps the draws apart from those of the order of training, which have seed and epoch alone.
_STREAM = 1


@dataclass(frozen=True, eq=False)
class PairMaker:
    """Draws pairs of images, half of them of the same class.

    A pair is a function of the seed, the epoch and its own number: those with an even number are
    of one class, those with an odd number of two. The only image of a class is paired with itself.

    Attributes:
        images: ``(rows, columns)``.
        labels: Their classes, ``(rows,)``.
        seed: Of all draws.

    Raises:
        ValueError: If there are not at least two classes.
    """

    images: Array
    labels: Array
    seed: int

    def __post_init__(self) -> None:
        classes = len(np.unique(self.labels))
        if classes < 2:
            msg = (
                f"Different images cannot be paired: {len(self.labels)} images of {classes} "
                "classes; there must be two classes in each of training, validation and test."
            )
            raise ValueError(msg)

    def draw(self, numbers: Array, epoch: int) -> Array:
        """Draws which images are paired.

        Args:
            numbers: Of the pairs, ``(pairs,)``.
            epoch: Another epoch pairs other images.

        Returns:
            The rows of both images of each pair, ``(pairs, 2)``.
        """
        random = np.random.default_rng([self.seed, epoch, _STREAM])
        # From pair 0 on: which others are asked for makes no difference to a pair.
        drawn = random.random((numbers.max() + 1, 2))[numbers]
        order, starts, sizes = self._by_class
        first = (drawn[:, 0] * len(order)).astype(int)
        start, size = starts[first], sizes[first]
        # Classes lie end to end. Both steps begin behind the image or its class, and go round.
        within = 1 + (drawn[:, 1] * (size - 1)).astype(int)
        beyond = (drawn[:, 1] * (len(order) - size)).astype(int)
        same = start + (first - start + within) % size
        different = (start + size + beyond) % len(order)
        second = np.where(numbers % 2 == 0, same, different)
        paired: Array = order[np.stack([first, second], axis=1)]
        return paired

    def make(self, numbers: Array, epoch: int) -> Array:
        """The images of each pair, ``(pairs, 2, columns)``; arguments as for ``draw``."""
        return self.images[self.draw(numbers, epoch)]

    def change(self, rows: Array, numbers: Array, epoch: int) -> Array:
        """Puts fresh pairs in the place of any rows: a ``feeding.Change`` for ``training.fit``."""
        return self.make(numbers, epoch)

    @cached_property
    def _by_class(self) -> tuple[Array, Array, Array]:
        """The rows class by class, and where in that line the class of each begins, how long."""
        order = np.argsort(self.labels, kind="stable")
        _, starts, place, sizes = np.unique(
            self.labels[order], return_index=True, return_inverse=True, return_counts=True
        )
        return order, starts[place], sizes[place]


@dataclass(frozen=True, eq=False)
class FixedPairs:
    """As many pairs, always the same, made when they are read; a ``feeding.Sliceable``."""

    maker: PairMaker
    pairs: int

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, where: slice) -> Array:
        """The images of a slice of pairs, ``(pairs, 2, columns)``."""
        return self.maker.make(np.arange(self.pairs)[where], epoch=0)


def same_or_not(pairs: int) -> Array:
    """The labels of so many pairs, ``(pairs, 1)``: 1 for two images of the same class."""
    return (1 - np.arange(pairs) % 2)[:, None]


def build_pair_network(
    network: Network,
    columns: int,
    joint_units: int,
    seed: int,
    statistics: Statistics | None = None,
) -> keras.Model:
    """Builds two separate stacks of hidden layers, one for each image, and what compares them.

    The layers of the first stack are named as a trunk's, so that it can be transferred as one.

    Args:
        network: The hidden layers of each stack.
        columns: Columns of an image.
        joint_units: Units of the one layer on top of both stacks.
        seed: The same seed gives the same weights; the first stack has those of its trunk.
        statistics: Of the training images' pixels, for standardized inputs.

    Returns:
        A model from ``(pairs, 2, columns)`` to the probability that both images are of the same
        class, ``(pairs, 1)``.
    """
    first_seed, second_seed, joint_seed, answer_seed = draw_seeds(seed, 4)
    pairs = keras.Input((2, columns), name="pairs")
    outputs = []
    for place, (prefix, stack_seed) in enumerate((("", first_seed), ("other_", second_seed))):
        image = keras.layers.Cropping1D((place, 1 - place), name=f"{prefix}image")(pairs)
        pixels = keras.layers.Reshape((columns,), name=f"{prefix}pixels")(image)
        stack = build_trunk(network, columns, stack_seed, statistics)
        outputs.append(_graft(stack, pixels, prefix))
    both = keras.layers.Concatenate(name="both")(outputs)
    joint = Network(
        hidden_layers=1,
        units=joint_units,
        activation=network.activation,
        slope=network.slope,
        initializer=network.initializer,
        initial_scale=network.initial_scale,
        batch_norm=False,
    )
    joined = _graft(build_trunk(joint, both.shape[1], joint_seed), both, "joint_")
    answer = keras.layers.Dense(
        1,
        activation="sigmoid",
        kernel_initializer=keras.initializers.GlorotUniform(seed=answer_seed),
        name="same",
    )
    return keras.Model(pairs, answer(joined), name="pairs")


def _graft(trunk: keras.Model, inputs: keras.KerasTensor, prefix: str) -> keras.KerasTensor:
    """Repeats a trunk's layers, new and with a prefix to their names, on other inputs."""
    # A trunk is one layer after the other. Its own layers would stay part of two graphs.
    for layer in trunk.layers[1:]:
        config = layer.get_config() | {"name": f"{prefix}{layer.name}"}
        inputs = type(layer).from_config(config)(inputs)
    return inputs

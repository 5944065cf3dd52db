"""Random search with cross-validation: what is tried, on which rows, and what counts as best."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from models.config import (
    ConfigError,
    Network,
    Pretrain,
    Search,
    Section,
    split_activation,
)

Array = npt.NDArray[Any]

# So that candidates and folds of one seed share no random numbers.
_CANDIDATES, _FOLDS = 1, 2


class Candidate(Section):
    """One point of the search space; what is None stays as the settings say.

    Attributes:
        units: Of each hidden layer.
        activation: With the slope of a leaky ReLU: ``leaky_relu:0.01``.
        batch_size: Images in a step.
        learning_rate: At step 0.
        norm_momentum: Of batch norm's running statistics.
        dropout: Rate after each hidden layer.
    """

    units: int
    activation: str
    batch_size: int
    learning_rate: float
    norm_momentum: float | None = None
    dropout: float | None = None

    def change_network(self, network: Network) -> Network:
        """The network with what the candidate varies."""
        name, slope = split_activation(self.activation)
        changed: dict[str, Any] = {
            "units": self.units,
            # Layers of other widths would not have the candidate's.
            "hidden_layers": len(network.sizes),
            "widths": (),
            "activation": name,
        }
        if slope:
            changed["slope"] = slope
        if self.norm_momentum is not None:
            changed["norm_momentum"] = self.norm_momentum
        if self.dropout is not None:
            changed |= {"dropout": self.dropout, "dropouts": ()}
        return network.model_copy(update=changed)

    def change_training(self, training: Pretrain) -> Pretrain:
        """The training with what the candidate varies."""
        changed = {"batch_size": self.batch_size, "learning_rate": self.learning_rate}
        return training.model_copy(update=changed)


class Drawn(Section):
    """The candidates of a search, in the order they were drawn."""

    candidates: tuple[Candidate, ...]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.candidates)


def draw_candidates(search: Search, network: Network, seed: int) -> Drawn:
    """Draws different points of the search space, each as likely as any other.

    A candidate depends on the space, the seed and its number: more trials add to the same ones.

    Args:
        search: The space and the number of trials.
        network: Says whether batch norm and dropout are on, and so varied.
        seed: Of the draws.
    """
    space = _space(search, network)
    size = tuple(map(len, space.values()))
    draws = np.random.default_rng([seed, _CANDIDATES])
    found: dict[tuple[int, ...], Candidate] = {}
    while len(found) < min(search.trials, int(np.prod(size))):
        point = tuple(map(int, draws.integers(size)))
        values = {name: choices[i] for (name, choices), i in zip(space.items(), point, strict=True)}
        found.setdefault(point, Candidate(**values))
    return Drawn(candidates=tuple(found.values()))


def _space(search: Search, network: Network) -> dict[str, tuple[Any, ...]]:
    """The choices for each field of a candidate that is varied."""
    space: dict[str, tuple[Any, ...]] = {
        "units": search.units,
        "activation": search.activations,
        "batch_size": search.batch_sizes,
        "learning_rate": search.learning_rates,
    }
    if network.batch_norm and search.momentums:
        space["norm_momentum"] = search.momentums
    if any(network.dropout_rates) and search.dropouts:
        space["dropout"] = search.dropouts
    return space


def split_folds(rows: int, folds: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Deals rows out to folds at random, as evenly as can be; each fold is held out once.

    Yields:
        For each fold the positions to train on and those held out, both rising.

    Raises:
        ConfigError: If there are fewer rows than folds.
    """
    if rows < folds:
        raise ConfigError([f"search.folds = {folds}: there are only {rows} training images"])
    order = np.random.default_rng([seed, _FOLDS]).permutation(rows)
    parts = [np.sort(part) for part in np.array_split(order, folds)]
    for held_out in parts:
        yield np.setdiff1d(order, held_out), held_out


@dataclass(frozen=True)
class Score:
    """How a candidate did.

    Attributes:
        number: Its place among those drawn, from 1.
        candidate: Its settings.
        accuracies: On the held-out rows of each fold, up to the one that failed.
        losses: Likewise, in nats.
        failure: Why a fold failed; empty if none did.
    """

    number: int
    candidate: Candidate
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    failure: str = ""

    @property
    def accuracy(self) -> float:
        """The mean over the folds; 0 if one failed."""
        return 0.0 if self.failure else mean(self.accuracies)

    @property
    def loss(self) -> float:
        """The mean over the folds; infinite if one failed."""
        return float("inf") if self.failure else mean(self.losses)


def rank_scores(scores: Iterable[Score]) -> list[Score]:
    """The candidates, best first: by accuracy, then by loss, then as they were drawn.

    Accuracy comes first because it is what the search is for, and tens of thousands of held-out
    images rarely tie. A candidate that failed in one fold comes after all that did not.
    """
    return sorted(scores, key=lambda s: (bool(s.failure), -s.accuracy, s.loss, s.number))

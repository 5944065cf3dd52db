"""The ways to train a network on the target classes, as plain values: what, when, how fast."""

import numpy as np

from models.config import BaselineName, Section, StrategyName, Training, Transfer

MOST_LAYERS = 100
BASELINES: tuple[BaselineName, ...] = ("pixels", "scratch")


class Phase(Section):
    """One training of a network of which some layers may be frozen.

    Attributes:
        name: Of the phase.
        layers: How many hidden layers are trained with the head, from the top.
        epochs: At the most.
    """

    name: str
    layers: int
    epochs: int


class Strategy(Section):
    """How one network, or an ensemble of them, comes to know the target classes.

    Attributes:
        name: Such as one of ``StrategyName`` or ``BaselineName``.
        title: The same in words.
        pretrained: Whether hidden layers begin with the trunk's weights.
        reused: How many of them do, the lowest; convolutions below do too.
        head: Whether the head does.
        above: Leave out so many of the lowest hidden layers: what is trained on is their cached
            activations.
        phases: Trainings one after the other.
        rate_decay: Each layer's rate is that of the layer above divided by this.
        anchor: Factor of the squared distance from the pretrained kernels in the loss.
        adapt_statistics: Whether batch norm's statistics are taken from the target images first.
        ensemble: How many networks are trained, each with its own seed.
        training: What the phases share.
        epoch_images: Few images come in so many copies that an epoch has about as many; 0: one.
    """

    name: str
    title: str
    pretrained: bool
    reused: int = MOST_LAYERS
    head: bool = False
    above: int = 0
    phases: tuple[Phase, ...]
    rate_decay: float = 1.0
    anchor: float = 0.0
    adapt_statistics: bool = False
    ensemble: int
    training: Training
    epoch_images: int

    def copies(self, rows: int) -> int:
        """How often each of so many images comes in an epoch."""
        return max(1, round(self.epoch_images / rows))

    def training_of(self, phase: Phase) -> Training:
        """How one phase is trained."""
        return self.training.model_copy(update={"max_epochs": phase.epochs})


def make_strategy(name: StrategyName | BaselineName, transfer: Transfer, depth: int) -> Strategy:
    """Works out a strategy from the settings.

    Args:
        name: Which.
        transfer: The settings.
        depth: Hidden layers of the network.

    Returns:
        Only what the strategy depends on: a setting of another one makes no difference.

    References:
        probe-then-tune: Kumar et al. (2022), Fine-tuning can distort pretrained features and
        underperform out-of-distribution. gradual, discriminative: Howard, Ruder (2018), Universal
        language model fine-tuning for text classification. l2-sp: Li, Grandvalet, Davoine (2018),
        Explicit inductive bias for transfer learning with convolutional networks.
    """
    slower_below = name in ("gradual", "discriminative")
    baseline = name in BASELINES
    return Strategy(
        name=name,
        title=describe(name, transfer),
        pretrained=not baseline,
        phases=_phases(name, transfer, depth),
        rate_decay=transfer.rate_decay if slower_below else 1.0,
        anchor=transfer.anchor if name == "l2-sp" else 0.0,
        adapt_statistics=transfer.adapt_statistics and not baseline,
        ensemble=transfer.ensemble,
        training=Training.model_validate(transfer.model_dump(include=set(Training.model_fields))),
        epoch_images=transfer.epoch_images if transfer.augment else 0,
    )


def describe(name: StrategyName | BaselineName, transfer: Transfer) -> str:
    """A strategy as results call it: ``full fine-tuning``."""
    titles: dict[StrategyName | BaselineName, str] = {
        "pixels": "softmax on pixels",
        "scratch": "from scratch",
        "probe": "linear probe",
        "top": f"top {transfer.top} layers fine-tuned",
        "full": "full fine-tuning",
        "probe-then-tune": "linear probe, then fine-tuning",
        "gradual": "gradual unfreezing",
        "discriminative": "discriminative rates",
        "l2-sp": "L2-SP",
    }
    # All but the pixels have the layers below the cut alone, also what starts from scratch.
    cut = f", cut at {transfer.cut}" if transfer.cut and name != "pixels" else ""
    return f"{titles[name]}{cut}"


def _phases(name: str, transfer: Transfer, depth: int) -> tuple[Phase, ...]:
    match name:
        case "pixels" | "probe":
            steps = [("probe", 0)]
        case "top":
            steps = [("tune", min(transfer.top, depth))]
        case "probe-then-tune":
            steps = [("probe", 0), ("tune", depth)]
        case "gradual":
            steps = [(f"unfreeze-{layers}", layers) for layers in range(depth + 1)]
        case _:
            steps = [("tune", depth)]
    shares = split_epochs(transfer.max_epochs, len(steps), _LAST_SHARE.get(name, 1))
    return tuple(
        Phase(name=step, layers=layers, epochs=epochs)
        for (step, layers), epochs in zip(steps, shares, strict=True)
    )


# How many times as long as the phases before it the last one lasts.
_LAST_SHARE = {"probe-then-tune": 4, "gradual": 4}


def split_epochs(epochs: int, phases: int, last: int) -> tuple[int, ...]:
    """Shares epochs out: the last phase has ``last`` times those of each other, all at least 1."""
    each = max(1, epochs // (phases - 1 + last))
    return (*[each] * (phases - 1), max(1, epochs - each * (phases - 1)))


def draw_seeds(seed: int, count: int) -> list[int]:
    """The seeds of the networks of an ensemble; the first is the run's own."""
    further = np.random.SeedSequence([seed, 1]).generate_state(count) >> 1
    return [seed, *map(int, further[1:])]

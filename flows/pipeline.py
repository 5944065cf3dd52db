"""The pipeline as a plain function: which stage takes what from which.

The flow calls it with a runner that runs each stage as a Prefect task; ``flows.plan`` calls it
with one that only looks into the store. So the order is written once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from artifacts.reference import Ref
from models.config import BaselineName, Config, StrategyName
from models.sources import Source
from models.strategies import BASELINES, make_strategy
from tasks.cache_activations import cache_activations
from tasks.evaluate import evaluate
from tasks.export_checkpoint import export_checkpoint
from tasks.fine_tune import fine_tune
from tasks.load_dataset import load_dataset
from tasks.pretrain import pretrain
from tasks.pretrain_pairs import pretrain_pairs
from tasks.publish import publish
from tasks.split import split_source, split_target
from tasks.stage import Stage, Untracked
from tasks.train import train


class Runner(Protocol):
    """Takes care of one stage with its arguments and gives a reference to its result."""

    def __call__(self, stage: Stage, /, **arguments: Any) -> Ref:
        """Runs, looks up or records the stage."""


# Calls some stages and gives their results.
Stages = Callable[[], tuple[Ref, ...]]


@runtime_checkable
class SideRunner(Runner, Protocol):
    """A runner that can go through some stages beside others."""

    def beside(self, stages: Stages, /) -> Stages:
        """Begins stages beside those called next; what it gives waits for their results."""


Job = Callable[[Config, Source, Runner], Ref]


@dataclass(frozen=True)
class Measured:
    """What a transfer leaves behind.

    Attributes:
        pretrained: The trunk and its source head.
        heads: Heads on cached activations.
        networks: Whole networks, one for each strategy.
        baselines: What they have to beat.
        evaluation: All of them on the test images.
    """

    pretrained: Ref
    heads: Ref
    networks: tuple[Ref, ...]
    baselines: tuple[Ref, ...]
    evaluation: Ref


def pipeline(config: Config, source: Source, call: Runner) -> Ref:
    """Pretrains on the source classes, transfers to the target classes, shows what came of it.

    Args:
        config: All settings.
        source: What the dataset's bytes are.
        call: What is done with each stage.

    Returns:
        The evaluation.
    """
    measured = transfer(config, source, call)
    call(
        publish,
        pretrained=measured.pretrained,
        heads=measured.heads,
        trained=measured.networks + measured.baselines,
        evaluation=measured.evaluation,
        tensorboard=config.run.tensorboard,
    )
    return measured.evaluation


def take_source(config: Config, source: Source, call: Runner) -> tuple[Ref, Ref]:
    """Reads the dataset and finds the rows of the source classes: what any pretraining needs."""
    data = config.data
    dataset = call(load_dataset, source=source, location=Untracked(data.dataset), limit=data.limit)
    split = call(
        split_source,
        dataset=dataset,
        source_classes=data.source_classes,
        validation_rows=data.validation_rows,
    )
    return dataset, split


def transfer(config: Config, source: Source, call: Runner) -> Measured:
    """Pretrains on the source classes, transfers to the target classes, evaluates both."""
    data, computing = config.data, config.run
    dataset, source_split = take_source(config, source, call)
    target_split = call(
        split_target,
        dataset=dataset,
        target_classes=data.target_classes,
        validation_rows=data.validation_rows,
        few_shot=data.few_shot,
        few_shot_validation=data.few_shot_validation,
    )

    def train_on(name: StrategyName | BaselineName, checkpoint: Ref | None = None) -> Ref:
        network = config.target_network
        return call(
            train.named(name),
            checkpoint=checkpoint,
            dataset=dataset,
            split=target_split,
            network=None if name == "pixels" else network,
            strategy=make_strategy(name, config.transfer, len(network.sizes)),
            augmentation=config.augmentation if config.transfer.augment else None,
            run=computing,
            activations=None,
        )

    # They need nothing of the trunk.
    train_baselines = _begin_beside(call, lambda: tuple(map(train_on, BASELINES)))
    trunk = None
    if config.pretrain.task == "pairs":
        trunk = call(
            pretrain_pairs,
            dataset=dataset,
            split=source_split,
            network=config.network,
            pairs=config.pairs,
            run=computing,
        )
    pretrained = call(
        pretrain,
        dataset=dataset,
        split=source_split,
        trunk=trunk,
        network=config.network,
        pretrain=config.pretrain,
        augmentation=config.augmentation if config.pretrain.augment else None,
        run=computing,
    )
    checkpoint = call(export_checkpoint, pretrained=pretrained, threads=computing.threads)
    activations = call(
        cache_activations,
        checkpoint=checkpoint,
        dataset=dataset,
        split=target_split,
        layers=config.cuts,
        threads=computing.threads,
    )
    heads = call(
        fine_tune,
        activations=activations,
        split=target_split,
        fine_tune=config.fine_tune,
        run=computing,
    )

    networks = tuple(train_on(name, checkpoint) for name in config.transfer.strategies)
    baselines = train_baselines()
    evaluation = call(
        evaluate,
        checkpoint=checkpoint,
        dataset=dataset,
        source_split=source_split,
        target_split=target_split,
        activations=activations,
        heads=heads,
        networks=networks,
        baselines=baselines,
        augmentation=config.augmentation if config.evaluate.views else None,
        evaluate=config.evaluate,
        published=config.follows_published_protocol,
        threads=computing.threads,
    )
    return Measured(pretrained, heads, networks, baselines, evaluation)


def _begin_beside(call: Runner, stages: Stages) -> Stages:
    """Begins stages beside those called next, or leaves them for when they are waited for."""
    return call.beside(stages) if isinstance(call, SideRunner) else stages

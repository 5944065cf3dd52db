"""The pipeline as a plain function: which stage takes what from which.

The flow calls it with a runner that runs each stage as a Prefect task; ``flows.plan`` calls it
with one that only looks into the store. So the order is written once.
"""

from typing import Any, Protocol

from artifacts.reference import Ref
from models.config import BaselineName, Config, StrategyName
from models.datasets import Source
from models.strategies import BASELINES, make_strategy
from tasks.cache_activations import cache_activations
from tasks.evaluate import evaluate
from tasks.export_checkpoint import export_checkpoint
from tasks.fine_tune import fine_tune
from tasks.load_dataset import load_dataset
from tasks.pretrain import pretrain
from tasks.publish import publish
from tasks.split import split_source, split_target
from tasks.stage import Stage, Untracked
from tasks.train import train


class Runner(Protocol):
    """Takes care of one stage with its arguments and gives a reference to its result."""

    def __call__(self, stage: Stage, /, **arguments: Any) -> Ref:
        """Runs, looks up or records the stage."""


def pipeline(config: Config, source: Source, call: Runner) -> Ref:
    """Pretrains on the source classes, transfers to the target classes, evaluates both.

    Args:
        config: All settings.
        source: What the dataset's bytes are.
        call: What is done with each stage.

    Returns:
        The evaluation.
    """
    data, computing = config.data, config.run
    dataset = call(load_dataset, source=source, location=Untracked(data.dataset), limit=data.limit)
    source_split = call(
        split_source,
        dataset=dataset,
        source_classes=data.source_classes,
        validation_rows=data.validation_rows,
    )
    target_split = call(
        split_target,
        dataset=dataset,
        target_classes=data.target_classes,
        validation_rows=data.validation_rows,
        few_shot=data.few_shot,
        few_shot_validation=data.few_shot_validation,
    )
    pretrained = call(
        pretrain,
        dataset=dataset,
        split=source_split,
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

    def train_on(name: StrategyName | BaselineName) -> Ref:
        network = config.target_network
        strategy = make_strategy(name, config.transfer, network.hidden_layers)
        return call(
            train.named(name),
            checkpoint=checkpoint if strategy.pretrained else None,
            dataset=dataset,
            split=target_split,
            network=None if name == "pixels" else network,
            strategy=strategy,
            augmentation=config.augmentation if config.transfer.augment else None,
            run=computing,
        )

    networks = tuple(map(train_on, config.transfer.strategies))
    baselines = tuple(map(train_on, BASELINES))
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
    call(
        publish,
        pretrained=pretrained,
        heads=heads,
        trained=networks + baselines,
        evaluation=evaluation,
        tensorboard=computing.tensorboard,
    )
    return evaluation

"""The search as a plain function: which candidates there are, and what is made of the best."""

from artifacts.reference import Ref
from flows.pipeline import Runner, take_source
from models.config import Config, ConfigError, Search
from models.published import Range, published_search
from models.search import draw_candidates
from models.sources import Source
from tasks.cross_validate import cross_validate
from tasks.export_checkpoint import export_checkpoint
from tasks.measure import measure
from tasks.rank import choose, rank
from tasks.refit import refit
from tasks.stage import Untracked


def search(config: Config, source: Source, call: Runner) -> Ref:
    """Cross-validates random candidates, trains the trunk with the best one's settings.

    Returns:
        What that trunk makes of the test images.

    Raises:
        ConfigError: If the trunk is to learn from pairs; candidates are measured by the classes.
    """
    if config.pretrain.task != "classes":
        problem = f"pretrain.task = {config.pretrain.task}: a search tries trunks that learn from"
        raise ConfigError([f"{problem} the classes; leave it at classes"])
    dataset, split = take_source(config, source, call)
    trunk = find_best(config, dataset, split, call)
    checkpoint = call(export_checkpoint, pretrained=trunk, threads=config.run.threads)
    return call(
        measure,
        name="pretrained, searched",
        checkpoint=checkpoint,
        dataset=dataset,
        split=split,
        published=_published(config),
        confidence=config.evaluate.confidence,
        threads=config.run.threads,
    )


def find_best(config: Config, dataset: Ref, split: Ref, call: Runner) -> Ref:
    """Cross-validates random candidates and trains the best one's settings on all images.

    Args:
        config: Sections search, network and pretrain say what is tried.
        dataset: The images.
        split: Which of them are for training, and which say when to stop.
        call: What is done with each stage.

    Returns:
        The trunk with its source head.
    """
    drawn = draw_candidates(config.search, config.network, config.run.seed)
    training = config.pretrain.model_copy(
        update={"max_epochs": config.search.max_epochs, "patience": config.search.patience}
    )
    augmentation = config.augmentation if config.pretrain.augment else None
    scores = tuple(
        call(
            cross_validate,
            number=Untracked(f"{number} of {drawn.size}"),
            dataset=dataset,
            split=split,
            network=candidate.change_network(config.network),
            pretrain=candidate.change_training(training),
            augmentation=augmentation,
            folds=config.search.folds,
            run=config.run,
        )
        for number, candidate in enumerate(drawn.candidates, start=1)
    )
    call(rank, scores=scores, drawn=drawn)
    chosen = call(
        choose, scores=scores, drawn=drawn, network=config.network, pretrain=config.pretrain
    )
    return call(
        refit,
        chosen=chosen,
        dataset=dataset,
        split=split,
        augmentation=augmentation,
        run=config.run,
    )


def _published(config: Config) -> Range | None:
    """What was printed for such a search; None if the space or the images are others."""
    space = set(Search.model_fields) - {"trials", "folds", "max_epochs", "patience"}
    as_published = Search().model_dump(include=space) == config.search.model_dump(include=space)
    plain = not config.pretrain.augment and not config.pretrain.forged
    if as_published and plain and config.network.hidden_layers == 5:
        return published_search(config.network)
    return None

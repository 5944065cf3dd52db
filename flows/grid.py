"""The study as a plain function: which cells there are, and what is made of them."""

from collections.abc import Iterator

from artifacts.reference import Ref
from flows.pipeline import Runner, transfer
from models.config import Config
from models.sources import Source
from tasks.tabulate import tabulate


def study(config: Config, source: Source, call: Runner) -> Ref:
    """Transfers once for every seed, number of labels and cut, and tabulates what came of it.

    A cell is the very run that ``headstart run`` makes of the same settings, so they share what
    is in the store.
    """
    evaluations: list[Ref] = []
    trained: dict[str, Ref] = {}
    grid: list[tuple[int, int]] = []
    for cell in cells(config):
        measured = transfer(cell, source, call)
        evaluations.append(measured.evaluation)
        grid.append((cell.run.seed, cell.data.few_shot))
        for ref in (measured.heads, *measured.networks, *measured.baselines):
            # Cuts share heads and baselines.
            trained[f"{ref.stage}/{ref.key or len(trained)}"] = ref
    return call(
        tabulate,
        evaluations=tuple(evaluations),
        trained=tuple(trained.values()),
        grid=tuple(grid),
        confidence=config.evaluate.confidence,
    )


def cells(config: Config) -> Iterator[Config]:
    """The settings of each cell, one seed after the other."""
    for seed in config.study.seeds:
        for labels in config.study.labels:
            for cut in (config.transfer.cut, *config.study.cuts):
                yield config.model_copy(
                    update={
                        "run": config.run.model_copy(update={"seed": seed}),
                        "data": config.data.model_copy(update=_images(config, labels)),
                        "transfer": config.transfer.model_copy(update={"cut": cut}),
                    }
                )


def _images(config: Config, labels: int) -> dict[str, int]:
    # Who has all images of the target classes has all of their validation images too.
    return {"few_shot": labels, **({} if labels else {"few_shot_validation": 0})}

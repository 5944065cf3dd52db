"""Stages choose and rank: what a search settles on, and all its candidates as a table."""

from collections.abc import Iterator
from typing import Any

from artifacts import figures
from artifacts.reference import Ref
from models.config import Config, Network, Pretrain, to_toml
from models.search import Drawn, Score, rank_scores
from tasks.stage import StageError, Work, stage

BEST = "best.toml"


# Apart from the table, so that a further candidate that is no better leaves what was chosen, and
# all that is made of it, as it is.
@stage("choose", label="choose among {drawn.size} candidates")
def choose(
    work: Work, *, scores: tuple[Ref, ...], drawn: Drawn, network: Network, pretrain: Pretrain
) -> dict[str, Any]:
    """Takes the best candidate's settings and writes them as TOML that --config reads.

    Raises:
        StageError: If every candidate failed.
    """
    best = rank_scores(_read_scores(scores, drawn))[0]
    if best.failure:
        msg = (
            f"all {drawn.size} candidates failed, the first with {best.failure} "
            "Widen the search: search.learning_rates, search.activations, search.trials"
        )
        raise StageError(msg)
    network = best.candidate.change_network(network)
    pretrain = best.candidate.change_training(pretrain)
    chosen = Config(network=network, pretrain=pretrain)
    work.save_bytes(BEST, to_toml(chosen, ("network", "pretrain")).encode())
    return {
        "network": network.model_dump(mode="json"),
        "pretrain": pretrain.model_dump(mode="json"),
    }


@stage("rank", label="rank {drawn.size} candidates", libraries=("matplotlib", "pandas"))
def rank(work: Work, *, scores: tuple[Ref, ...], drawn: Drawn) -> dict[str, Any]:
    """Writes the candidates, best first, as CSV and Parquet, and draws what each setting does."""
    import pandas as pd

    ranked = rank_scores(_read_scores(scores, drawn))
    rows = [_row(score) for score in ranked]
    table = pd.DataFrame(
        {
            **{name: value for name, value in row.items() if name != "settings"},
            **row["settings"],
            "seconds": _seconds(work, scores[row["number"] - 1]),
        }
        for row in rows
    )
    table.to_csv(work.path("candidates.csv"), index=False)
    table.to_parquet(work.path("candidates.parquet"), index=False)
    # How long it took is no part of what was found.
    work.draft.volatile = ("candidates.csv", "candidates.parquet")
    figure = figures.error_by_setting(list(_panels(ranked)))
    for kind in ("png", "svg"):
        work.save_bytes(f"error-by-setting.{kind}", figures.render(figure, kind))
    failed = sum(bool(score.failure) for score in ranked)
    about = {
        "name": "error-by-setting",
        "title": "Error by setting",
        "alt": "Error on held-out images of each candidate that did not fail, by its settings.",
    }
    return {"candidates": rows, "failed": failed, "figures": [about]}


def _read_scores(scores: tuple[Ref, ...], drawn: Drawn) -> Iterator[Score]:
    for number, (ref, candidate) in enumerate(zip(scores, drawn.candidates, strict=True), start=1):
        found = ref.metrics
        yield Score(
            number,
            candidate,
            accuracies=tuple(found["accuracies"]),
            losses=tuple(found["losses"]),
            failure=found["failure"],
        )


def _row(score: Score) -> dict[str, Any]:
    """What is told of a candidate; of one that failed no accuracy."""
    finished = not score.failure
    return {
        "number": score.number,
        "accuracy": score.accuracy if finished else None,
        "low": min(score.accuracies) if finished else None,
        "high": max(score.accuracies) if finished else None,
        "loss": score.loss if finished else None,
        "failure": score.failure,
        "settings": score.candidate.model_dump(exclude_none=True),
    }


def _seconds(work: Work, ref: Ref) -> float | None:
    """How long a candidate took when it was computed."""
    manifest = work.store.manifest(ref.stage, ref.key)
    return manifest.seconds if manifest else None


def _panels(ranked: list[Score]) -> Iterator[figures.Panel]:
    """For each setting that was varied the candidates' accuracies, by its value."""
    finished = [score for score in ranked if not score.failure]
    settings = [score.candidate.model_dump(exclude_none=True) for score in finished]
    for name in dict.fromkeys(name for values in settings for name in values):
        values = [each[name] for each in settings]
        yield figures.Panel(name.replace("_", " "), values, [score.accuracy for score in finished])

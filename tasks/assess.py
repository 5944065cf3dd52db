"""Stages assess-...: how good one recipe's networks are, over its seeds."""

from typing import Any

import numpy as np

from artifacts.reference import Ref
from models.strategies import Strategy
from tasks.rows import Part
from tasks.stage import Work, stage
from tasks.train import read_inputs
from tasks.trained import load_classifier

# Of a large training part the first rows say how well it was learnt.
MOST_ROWS = 10_000
# Asked for one at a time, as one document does: batch norm must not need a batch.
SINGLE_ROWS = 100


@stage("assess", label="assess {recipe}")
def assess(
    work: Work,
    *,
    recipe: str,
    trained: tuple[Ref, ...],
    activations: tuple[Ref, ...],
    dataset: Ref,
    split: Ref,
    strategy: Strategy | None,
    threads: int,
) -> dict[str, Any]:
    """Finds each network's accuracy on training, validation and test images."""
    from models.runtime import use_threads

    use_threads(threads)
    found, histories = [], {}
    for number, ref in enumerate(trained):
        cached = activations[number] if activations else None
        history = _history(work, ref)
        histories[str(number)] = history
        found.append(
            {
                "final": history["val_accuracy"][-1],
                "best": max(history["val_accuracy"]),
                "epochs": len(history["loss"]),
                **_accuracies(work, ref, dataset, split, strategy, cached),
            }
        )
        work.progress(recipe, number + 1, len(trained))
    work.save_json("histories.json", histories)
    return {
        "recipe": recipe,
        "networks": found,
        "rows": split.metrics["rows"],
        "note": dataset.metrics["note"],
    }


def _history(work: Work, ref: Ref) -> dict[str, list[float]]:
    """One value an epoch for each quantity, of the last phase."""
    told: dict[str, Any] = work.json(ref, "history.json")
    history: dict[str, list[float]] = told if "loss" in told else list(told.values())[-1]
    return history


def _accuracies(
    work: Work,
    ref: Ref,
    dataset: Ref,
    split: Ref,
    strategy: Strategy | None,
    activations: Ref | None,
) -> dict[str, float]:
    if "test_accuracy" in ref.metrics:
        # A network for pairs, which has no classes to be asked for.
        return {"test": ref.metrics["test_accuracy"]}
    from models.programs import predict_labels

    model = load_classifier(work, ref)

    def share_right(part: Part, most: int, batch: int = 2000) -> float:
        rows, labels = read_inputs(work, dataset, split, part, strategy, activations)
        answers = predict_labels(model, rows[:most], batch)
        return float(np.mean(answers == labels[:most]))

    return {
        "train": share_right("train", MOST_ROWS),
        "test": share_right("test", split.metrics["rows"]["test"]),
        "first 100": share_right("test", SINGLE_ROWS, batch=1),
    }

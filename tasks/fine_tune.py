"""Stage fine-tune: new heads for the target classes, one for each cached layer."""

from typing import Any

from artifacts.reference import Ref
from models.config import FineTune, Run
from tasks.fitting import best_epoch, fit_resumably, save_history_table
from tasks.rows import read_labels
from tasks.stage import Work, stage
from tasks.trained import save_model


@stage("fine-tune", label="fine-tune heads, seed {run.seed}")
def fine_tune(
    work: Work, *, activations: Ref, split: Ref, fine_tune: FineTune, run: Run
) -> dict[str, Any]:
    """Trains a head, linear or deeper, on each layer's activations; validation picks the best."""
    from models.networks import build_head
    from models.runtime import use_threads

    use_threads(run.threads)
    labels = {part: read_labels(work, split, part) for part in ("train", "validation")}
    heads, histories = [], {}
    for layer in activations.metrics["layers"]:
        train, validation = (
            (work.array(activations, f"{layer}/{part}.npy"), labels[part])
            for part in ("train", "validation")
        )
        model = build_head(
            train[0].shape[1],
            len(split.metrics["classes"]),
            run.seed,
            hidden=fine_tune.hidden,
            activation=fine_tune.activation,
        )
        history = fit_resumably(
            work, layer, model, train, validation, fine_tune, run.seed, keep_every=1.0
        )
        best = best_epoch(history)
        save_model(work, layer, model)
        histories[layer] = history
        heads.append(
            {
                "layer": layer,
                "epochs": len(history["loss"]),
                "validation_loss": history["val_loss"][best],
                "validation_accuracy": history["val_accuracy"][best],
            }
        )
    work.save_json("history.json", histories)
    save_history_table(work, histories)
    layers = activations.metrics["layers"]
    return {"layers": layers, "heads": heads, "best": best_head(heads)}


def best_head(heads: list[dict[str, Any]]) -> str:
    """The layer whose head has the lowest validation loss.

    With a few dozen validation images accuracies tie; the loss tells such heads apart.
    """
    return str(min(heads, key=lambda head: head["validation_loss"])["layer"])

"""Stage pretrain: the trunk and a source head, trained on the source classes."""

from typing import TYPE_CHECKING, Any

from artifacts.reference import Ref
from models.config import Augmentation, Network, Pretrain, Run
from tasks.fitting import best_epoch, fit_resumably, image_changer, save_history_table
from tasks.rows import Array, read_rows
from tasks.stage import Work, stage
from tasks.trained import load_model, save_model

if TYPE_CHECKING:
    import keras


@stage(
    "pretrain",
    label="pretrain {network.shape} {network.activation}, seed {run.seed}",
)
def pretrain(
    work: Work,
    *,
    dataset: Ref,
    split: Ref,
    network: Network,
    pretrain: Pretrain,
    augmentation: Augmentation | None,
    run: Run,
    trunk: Ref | None,
) -> dict[str, Any]:
    """Trains the trunk on the source classes, or a head alone on a trunk trained on pairs."""
    return train_trunk(work, dataset, split, network, pretrain, augmentation, run, trunk)


def train_trunk(
    work: Work,
    dataset: Ref,
    split: Ref,
    network: Network,
    pretrain: Pretrain,
    augmentation: Augmentation | None,
    run: Run,
    trunk: Ref | None = None,
) -> dict[str, Any]:
    """Trains a trunk and its source head, saves both and gives the metrics; see ``pretrain``."""
    from models.networks import choose_loss
    from models.runtime import use_threads
    from models.transfer import adopt_trunk

    use_threads(run.threads)
    train = read_rows(work, dataset, split, "train")
    validation = read_rows(work, dataset, split, "validation")
    classes = split.metrics["classes"]
    model = build_source_classifier(network, train[0], len(classes), run.seed)
    if trunk:
        adopt_trunk(model, load_model(work, trunk, "classifier"))
    change = image_changer(dataset, augmentation, run.seed) if augmentation else None
    history = fit_resumably(
        work,
        "trunk",
        model,
        train,
        validation,
        pretrain,
        run.seed,
        change=change,
        loss=choose_loss(network),
    )
    save_model(work, "classifier", model)
    work.save_json("history.json", history)
    save_history_table(work, {"trunk": history})
    best = best_epoch(history)
    # Here, because the checkpoint and its card know no earlier stage.
    before = {"pair_accuracy": trunk.metrics["validation_accuracy"]} if trunk else {}
    return {
        **before,
        "classes": classes,
        "parameters": model.count_params(),
        "epochs": len(history["loss"]),
        "best_epoch": best + 1,
        "validation_loss": history["val_loss"][best],
        "validation_accuracy": history["val_accuracy"][best],
    }


def build_source_classifier(
    network: Network, rows: Array, classes: int, seed: int
) -> "keras.Model":
    """The trunk with its source head, not yet trained.

    Args:
        network: What its layers are.
        rows: Pixels it will be trained on, (rows, columns).
        classes: Columns of its output.
        seed: The same seed gives the same weights.
    """
    from models.networks import build_classifier, build_trunk, measure_pixels

    trunk = build_trunk(network, rows.shape[1], seed, measure_pixels(rows))
    return build_classifier(trunk, classes, seed, network)

"""Stage pretrain: the trunk and a source head, trained on the source classes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.reference import Ref
from models.config import Augmentation, Network, Pretrain, Run
from tasks.fitting import (
    best_epoch,
    fit_resumably,
    image_changer,
    image_shape,
    save_history_table,
)
from tasks.rows import Array, read_rows
from tasks.stage import Work, stage
from tasks.trained import load_model, save_model

if TYPE_CHECKING:
    import keras

# Pixels (rows, columns) and labels (rows,).
Labelled = tuple[Array, Array]


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
    from models.metrics import measure_loss
    from models.programs import predict
    from models.runtime import use_threads

    use_threads(run.threads)
    if trunk:
        # Its hidden layers are frozen: a head alone has nothing to learn from forged classes.
        pretrain = pretrain.model_copy(update={"forged": 0.0})
    validation = read_rows(work, dataset, split, "validation")
    model, history = train_source_classifier(
        work,
        "trunk",
        read_rows(work, dataset, split, "train"),
        validation,
        dataset=dataset,
        split=split,
        network=network,
        pretrain=pretrain,
        augmentation=augmentation,
        seed=run.seed,
        trunk=load_model(work, trunk, "classifier") if trunk else None,
    )
    save_model(work, "classifier", model)
    work.save_json("history.json", history)
    save_history_table(work, {"trunk": history})
    # Of the classifier itself: while it was trained it had forged classes to tell apart as well.
    loss, accuracy = measure_loss(validation[1], predict(model, validation[0]))
    # Here, because the checkpoint and its card know no earlier stage.
    before = {"pair_accuracy": trunk.metrics["validation_accuracy"]} if trunk else {}
    return {
        **before,
        "classes": split.metrics["classes"],
        "forged_classes": count_further(dataset, split, pretrain),
        "parameters": model.count_params(),
        "epochs": len(history["loss"]),
        "best_epoch": best_epoch(history) + 1,
        "validation_loss": loss,
        "validation_accuracy": accuracy,
    }


def train_source_classifier(
    work: Work,
    name: str,
    train: Labelled,
    validation: Labelled,
    *,
    dataset: Ref,
    split: Ref,
    network: Network,
    pretrain: Pretrain,
    augmentation: Augmentation | None,
    seed: int,
    trunk: "keras.Model | None" = None,
    keep_every: float = 0.0,
) -> tuple["keras.Model", dict[str, list[float]]]:
    """Trains a trunk and its source head, on forged classes too if the settings say so.

    Args:
        work: Of the stage that trains.
        name: What is trained, unique in the stage.
        train: What to train on.
        validation: What decides when to stop and which epoch was best.
        dataset: Says how pixels are laid out.
        split: Says which classes there are.
        network: What the layers are.
        pretrain: How to train.
        augmentation: How images are changed; None leaves them as they are.
        seed: Of weights, order, changes and what is forged.
        trunk: A model whose hidden layers are taken and frozen.
        keep_every: As for ``fit_resumably``.

    Returns:
        The classifier, which tells the split's classes apart and no forged ones, and the history.
    """
    from models.forging import forge
    from models.networks import choose_loss
    from models.transfer import adopt_trunk, keep_classes

    classes, shape = len(split.metrics["classes"]), image_shape(dataset)
    further = count_further(dataset, split, pretrain)
    model = build_source_classifier(network, train[0], classes + further, seed)
    if trunk:
        adopt_trunk(model, trunk)
    rows, labels = train
    if further and shape:
        forged = forge(*train, pretrain.forged, shape=shape, classes=classes, seed=seed)
        rows, labels = np.concatenate([rows, forged[0]]), np.concatenate([labels, forged[1]])
    history = fit_resumably(
        work,
        name,
        model,
        (rows, labels),
        validation,
        pretrain,
        seed,
        keep_every=keep_every,
        change=image_changer(dataset, augmentation, seed) if augmentation else None,
        loss=choose_loss(network),
    )
    if further:
        wide, model = model, build_source_classifier(network, train[0], classes, seed)
        keep_classes(wide, model)
    return model, history


def count_further(dataset: Ref, split: Ref, pretrain: Pretrain) -> int:
    """How many forged classes the trunk learns besides its own; rows that are no images have none.

    Args:
        dataset: Says how pixels are laid out.
        split: Says which classes there are.
        pretrain: Says whether any are wanted.
    """
    from models.forging import count_forged

    wanted = pretrain.forged and image_shape(dataset)
    return count_forged(len(split.metrics["classes"])) if wanted else 0


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

"""Stage pretrain: the trunk and a source head, trained on the source classes."""

from typing import Any

from artifacts.reference import Ref
from models.config import Augmentation, Network, Pretrain, Run
from tasks.fitting import best_epoch, fit_resumably, image_changer, save_history_table
from tasks.rows import read_rows
from tasks.stage import Work, stage
from tasks.trained import load_model, save_model


@stage(
    "pretrain",
    label="pretrain {network.shape} {network.activation}, seed {run.seed}",
)
def pretrain(
    work: Work,
    *,
    dataset: Ref,
    split: Ref,
    trunk: Ref | None,
    network: Network,
    pretrain: Pretrain,
    augmentation: Augmentation | None,
    run: Run,
) -> dict[str, Any]:
    """Trains the trunk on the source classes, or a head alone on a trunk trained on pairs."""
    from models.networks import build_classifier, build_trunk, choose_loss, measure_pixels
    from models.runtime import use_threads
    from models.transfer import adopt_trunk

    use_threads(run.threads)
    train = read_rows(work, dataset, split, "train")
    validation = read_rows(work, dataset, split, "validation")
    classes = split.metrics["classes"]
    hidden = build_trunk(network, train[0].shape[1], run.seed, measure_pixels(train[0]))
    model = build_classifier(hidden, len(classes), run.seed, network)
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

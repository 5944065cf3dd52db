"""Stage cross-validate: how well the trunk does with some settings on images it was not shown."""

from typing import TYPE_CHECKING, Any

from artifacts.reference import Ref
from models.config import Augmentation, Network, Pretrain, Run
from models.search import split_folds
from tasks.fitting import fit_resumably, image_changer, save_history_table
from tasks.rows import read_rows
from tasks.stage import Untracked, Work, stage

if TYPE_CHECKING:
    import keras


@stage(
    "cross-validate",
    label="candidate {number}: {network.units} {network.activation} units, "
    "batches of {pretrain.batch_size}, rate {pretrain.learning_rate}",
)
def cross_validate(
    work: Work,
    *,
    number: Untracked,  # For the label alone.
    dataset: Ref,
    split: Ref,
    network: Network,
    pretrain: Pretrain,
    augmentation: Augmentation | None,
    folds: int,
    run: Run,
) -> dict[str, Any]:
    """Trains once for each fold without its images, and measures on them."""
    from models.metrics import measure_loss
    from models.programs import predict
    from models.runtime import use_threads
    from models.training import TrainingDiverged

    use_threads(run.threads)
    rows, labels = read_rows(work, dataset, split, "train")
    # These decide when to stop, so that the held-out images decide nothing but the score.
    validation = read_rows(work, dataset, split, "validation")
    change = image_changer(dataset, augmentation, run.seed) if augmentation else None
    histories: dict[str, dict[str, list[float]]] = {}
    losses, accuracies, failure = [], [], ""
    for place, (kept, held_out) in enumerate(split_folds(len(rows), folds, run.seed), start=1):
        model = _build(network, rows.shape[1], len(split.metrics["classes"]), run.seed)
        name, train = f"fold{place}", (rows[kept], labels[kept])
        try:
            histories[name] = fit_resumably(
                work, name, model, train, validation, pretrain, run.seed, 1.0, change=change
            )
        except TrainingDiverged as error:
            # Nothing can bring the candidate back: the folds left are not worth their time.
            failure = f"{name}: {error}"
            break
        loss, accuracy = measure_loss(labels[held_out], predict(model, rows[held_out]))
        losses.append(loss)
        accuracies.append(accuracy)
    save_history_table(work, histories)
    return {
        "accuracies": accuracies,
        "losses": losses,
        "epochs": [len(history["loss"]) for history in histories.values()],
        "failure": failure,
    }


def _build(network: Network, columns: int, classes: int, seed: int) -> "keras.Model":
    from models.networks import build_classifier, build_trunk

    return build_classifier(build_trunk(network, columns, seed), classes, seed)

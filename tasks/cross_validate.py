"""Stage cross-validate: how well the trunk does with some settings on images it was not shown."""

from typing import Any

from artifacts.reference import Ref
from models.config import Augmentation, Network, Pretrain, Run
from models.search import split_folds
from tasks.fitting import save_history_table
from tasks.pretrain import train_source_classifier
from tasks.rows import read_rows
from tasks.stage import Untracked, Work, stage


@stage(
    "cross-validate",
    label="candidate {number}: {network.shape} {network.activation}, "
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
    histories: dict[str, dict[str, list[float]]] = {}
    losses, accuracies, failure = [], [], ""
    for place, (kept, held_out) in enumerate(split_folds(len(rows), folds, run.seed), start=1):
        name, train = f"fold{place}", (rows[kept], labels[kept])
        try:
            model, histories[name] = train_source_classifier(
                work,
                name,
                train,
                validation,
                dataset=dataset,
                split=split,
                network=network,
                pretrain=pretrain,
                augmentation=augmentation,
                seed=run.seed,
                keep_every=1.0,
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

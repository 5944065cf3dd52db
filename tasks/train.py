"""Stages train-...: whole networks trained on the target images, from the trunk or from scratch."""

from typing import Any

from artifacts.reference import Ref
from models.config import Augmentation, Network, Run
from models.strategies import Strategy, draw_seeds
from tasks.fitting import fit_resumably, image_changer, save_history_table
from tasks.rows import Array, Part, open_activations, read_labels, read_rows
from tasks.stage import Work, stage
from tasks.trained import load_classifier, save_model


# A stage for each strategy and baseline, under a name of its own: train-full, train-scratch.
@stage("train", label="{strategy.title}, seed {run.seed}")
def train(
    work: Work,
    *,
    checkpoint: Ref | None,
    dataset: Ref,
    split: Ref,
    network: Network | None,
    strategy: Strategy,
    augmentation: Augmentation | None,
    run: Run,
    activations: Ref | None,
) -> dict[str, Any]:
    """Trains a network, or an ensemble, by one strategy, and measures it on validation data."""
    from models.metrics import average_answers, measure_loss
    from models.programs import predict
    from models.runtime import use_threads
    from models.transfer import build_network, freeze_below, layer_rules

    use_threads(run.threads)
    rows, labels = read_inputs(work, dataset, split, "train", strategy, activations)
    validation = read_inputs(work, dataset, split, "validation", strategy, activations)
    trunk = load_classifier(work, checkpoint) if checkpoint else None
    histories, answers = {}, []
    for name, seed in zip(
        network_names(strategy.ensemble), draw_seeds(run.seed, strategy.ensemble), strict=True
    ):
        model = build_network(strategy, trunk, network, rows, len(split.metrics["classes"]), seed)
        change = image_changer(dataset, augmentation, seed) if augmentation else None
        for phase in strategy.phases:
            step = f"{name}-{phase.name}"
            freeze_below(model, phase.layers)
            histories[step] = fit_resumably(
                work,
                step,
                model,
                (rows, labels),
                validation,
                strategy.training_of(phase),
                seed,
                keep_every=1.0,
                change=change,
                copies=strategy.copies(len(rows)),
                rules=layer_rules(model, strategy.rate_decay, strategy.anchor),
            )
        save_model(work, name, model)
        answers.append(predict(model, validation[0]))
    work.save_json("history.json", histories)
    save_history_table(work, histories)
    loss, accuracy = measure_loss(validation[1], average_answers(answers))
    return {
        "name": strategy.name,
        "title": strategy.title,
        "ensemble": strategy.ensemble,
        "epochs": sum(len(history["loss"]) for history in histories.values()),
        "validation_loss": loss,
        "validation_accuracy": accuracy,
    }


def read_inputs(
    work: Work,
    dataset: Ref,
    split: Ref,
    part: Part,
    strategy: Strategy | None,
    activations: Ref | None,
) -> tuple[Array, Array]:
    """What the networks of a strategy see of a part of the split, and its labels."""
    if strategy and activations:
        layer = f"hidden{strategy.above}"
        rows = open_activations(work, activations, layer, part)[:]
        return rows, read_labels(work, split, part)
    return read_rows(work, dataset, split, part)


def network_names(ensemble: int) -> list[str]:
    """Folders of the networks in an entry of this stage."""
    return [f"network{number}" for number in range(1, ensemble + 1)]

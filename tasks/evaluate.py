"""Stage evaluate: what was gained, by test images that nothing was trained on or chosen by."""

from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.reference import Ref
from models.config import Augmentation, Evaluate
from models.published import published_ranges
from tasks.answers import BLOCK_ROWS, Candidate, head_candidates, network_candidate
from tasks.rows import Array, open_rows, read_labels
from tasks.stage import Work, stage

if TYPE_CHECKING:
    from models.calibration import Calibration

MISTAKES = 24


@stage("evaluate", label="evaluate on the test images")
def evaluate(
    work: Work,
    *,
    checkpoint: Ref,
    dataset: Ref,
    source_split: Ref,
    target_split: Ref,
    activations: Ref,
    heads: Ref,
    networks: tuple[Ref, ...],
    baselines: tuple[Ref, ...],
    augmentation: Augmentation | None,
    evaluate: Evaluate,
    published: bool,
    threads: int,
) -> dict[str, Any]:
    """Measures the trunk on the source classes; heads, networks, baselines on the target's."""
    from models.checkpoints import load_keras
    from models.metrics import count_confusion, measure_accuracy, score_classes
    from models.programs import predict_labels
    from models.runtime import use_threads

    use_threads(threads)
    classifier = load_keras(work.content(checkpoint, "model.keras"))
    pretrained = predict_labels(classifier, open_rows(work, dataset, source_split, "test"))
    source = measure_accuracy(
        read_labels(work, source_split, "test"), pretrained, evaluate.confidence
    )

    trained, rivals = (
        [
            network_candidate(work, ref, dataset, target_split, augmentation, evaluate.views)
            for ref in refs
        ]
        for refs in (networks, baselines)
    )
    on_activations = head_candidates(work, activations, heads)
    candidates = [*on_activations, *trained]
    seen = read_labels(work, target_split, "validation")
    chosen = choose(on_activations, trained, seen, evaluate.confidence)
    labels = read_labels(work, target_split, "test")
    answers = {each.title: each.labels("test") for each in (*candidates, *rivals)}
    scores = {"pretrained": source} | {
        title: measure_accuracy(labels, given, evaluate.confidence)
        for title, given in answers.items()
    }
    classes = target_split.metrics["classes"]
    confusion = count_confusion(labels, answers[chosen.title], len(classes))
    ranges = published_ranges(
        source_split.metrics["classes"],
        source_split.metrics["rows"]["train"],
        classes,
        target_split.metrics["few_shot"],
    )
    evaluation = {
        "results": [
            {"name": name, **score.to_json(), **_published(ranges if published else {}, name)}
            for name, score in scores.items()
        ],
        "note": dataset.metrics["note"],
        "chosen": chosen.title,
        "baselines": [rival.title for rival in rivals],
        "gain": _gain(labels, answers, chosen.title, rivals, evaluate.confidence),
        "source_classes": source_split.metrics["classes"],
        "target_classes": classes,
        "few_shot": target_split.metrics["few_shot"],
        "train_rows": target_split.metrics["rows"]["train"],
        "confidence": evaluate.confidence,
        "confusion": confusion.tolist(),
        "per_class": score_classes(confusion, classes),
        **_look_closer(work, chosen, dataset, target_split),
    }
    work.save_json("evaluation.json", evaluation)
    return evaluation


def choose(
    heads: list[Candidate], networks: list[Candidate], labels: Array, confidence: float
) -> Candidate:
    """The candidate with the lowest validation loss; test images have no say.

    With a few dozen validation images accuracies tie; the loss tells candidates apart. That of a
    head is flattered, since the same images said at which epoch to stop. So a head is chosen
    before all whole networks only if its loss is lower by more than chance.

    Args:
        heads: On cached activations, at least one.
        networks: Whole ones.
        labels: Of the validation images, (rows,).
        confidence: Of the interval around the difference that must lie above 0.
    """
    from models.intervals import is_clearly_positive
    from models.metrics import row_losses

    def losses(candidate: Candidate) -> Array:
        return row_losses(labels, np.concatenate(list(candidate.answers("validation"))))

    best, *others = (
        min(group, key=lambda each: each.validation_loss) for group in (networks, heads) if group
    )
    for other in others:
        if is_clearly_positive(losses(best) - losses(other), confidence):
            best = other
    return best


def _gain(
    labels: Array,
    answers: dict[str, Array],
    chosen: str,
    rivals: list[Candidate],
    confidence: float,
) -> dict[str, Any]:
    """The gain over the baseline that does better on the very test images: the harder one."""
    from models.gain import measure_gain

    right = {title: given == labels for title, given in answers.items()}
    best = max((rival.title for rival in rivals), key=lambda title: int(right[title].sum()))
    gain = measure_gain(right[chosen], right[best], confidence)
    return {
        "baseline": best,
        **gain.to_json(),
        "method": "paired bootstrap; McNemar's exact test",
        "sentence": gain.describe(chosen, best),
    }


def _look_closer(work: Work, chosen: Candidate, dataset: Ref, split: Ref) -> dict[str, Any]:
    """Calibration and worst mistakes of the chosen one; the mistakes' images become a file."""
    from models.calibration import Calibration, Mistakes, find_temperature, soften

    seen = read_labels(work, split, "validation")
    temperature = find_temperature(seen, np.concatenate(list(chosen.answers("validation"))))
    before, after, mistakes = Calibration(), Calibration(), Mistakes(MISTAKES)
    labels = read_labels(work, split, "test")
    for number, block in enumerate(chosen.answers("test")):
        first = number * BLOCK_ROWS
        truth = labels[first : first + len(block)]
        softened = soften(block, temperature)
        before.add(truth, block)
        after.add(truth, softened)
        mistakes.add(first, truth, softened)
    images = open_rows(work, dataset, split, "test")
    shown = [images[each["row"] : each["row"] + 1] for each in mistakes.worst]
    work.save_array("mistakes.npy", np.concatenate(shown or [images[:0]]))
    return {
        "calibration": _calibration(temperature, before, after),
        "mistakes": mistakes.worst,
        "image_shape": dataset.metrics["image_shape"],
    }


def _calibration(temperature: float, before: "Calibration", after: "Calibration") -> dict[str, Any]:
    return {
        "temperature": temperature,
        "ece_before": before.error,
        "ece_after": after.error,
        "bins": after.bins,
    }


def _published(ranges: dict[str, tuple[float, float]], name: str) -> dict[str, float]:
    if name not in ranges:
        return {}
    low, high = ranges[name]
    return {"published_low": low, "published_high": high}

"""Stage evaluate: test accuracies with intervals, beside baselines and published figures."""

from typing import Any

from artifacts.reference import Ref
from models.config import Evaluate
from models.published import published_ranges
from tasks.rows import open_activations, open_rows, read_labels
from tasks.stage import Work, stage
from tasks.train_baselines import PIXELS, SCRATCH
from tasks.trained import load_model


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
    baselines: Ref,
    evaluate: Evaluate,
    threads: int,
) -> dict[str, Any]:
    """Measures the trunk on the source classes; heads and baselines on the target classes."""
    from models.checkpoints import load_keras
    from models.metrics import count_confusion, measure_accuracy, score_classes
    from models.programs import predict_labels
    from models.runtime import use_threads

    use_threads(threads)
    classifier = load_keras(work.content(checkpoint, "model.keras"))
    pretrained = predict_labels(classifier, open_rows(work, dataset, source_split, "test"))
    source_labels = read_labels(work, source_split, "test")

    labels = read_labels(work, target_split, "test")
    targets = open_rows(work, dataset, target_split, "test")
    predicted = {}
    for layer in heads.metrics["layers"]:
        rows = open_activations(work, activations, layer, "test")
        predicted[f"head on {layer}"] = predict_labels(load_model(work, heads, layer), rows)
    for title, baseline in {"softmax on pixels": PIXELS, "from scratch": SCRATCH}.items():
        predicted[title] = predict_labels(load_model(work, baselines, baseline), targets)

    chosen = f"head on {heads.metrics['best']}"
    classes = target_split.metrics["classes"]
    confusion = count_confusion(labels, predicted[chosen], len(classes))
    scores = {"pretrained": measure_accuracy(source_labels, pretrained, evaluate.confidence)}
    for name, answers in predicted.items():
        scores[name] = measure_accuracy(labels, answers, evaluate.confidence)
    ranges = published_ranges(
        source_split.metrics["classes"],
        source_split.metrics["rows"]["train"],
        classes,
        target_split.metrics["few_shot"],
    )
    evaluation = {
        "results": [
            {"name": name, **score.to_json(), **_published(ranges, name)}
            for name, score in scores.items()
        ],
        "chosen": chosen,
        "source_classes": source_split.metrics["classes"],
        "target_classes": classes,
        "few_shot": target_split.metrics["few_shot"],
        "confidence": evaluate.confidence,
        "confusion": confusion.tolist(),
        "per_class": score_classes(confusion, classes),
    }
    work.save_json("evaluation.json", evaluation)
    return evaluation


def _published(ranges: dict[str, tuple[float, float]], name: str) -> dict[str, float]:
    if name not in ranges:
        return {}
    low, high = ranges[name]
    return {"published_low": low, "published_high": high}

"""Stage measure: a pretrained checkpoint on the test images of its own classes."""

from typing import Any

from artifacts.reference import Ref
from models.published import Range, is_published_source
from tasks.rows import open_rows, read_labels
from tasks.stage import Work, stage


@stage("measure", label="measure {name} on the test images")
def measure(
    work: Work,
    *,
    name: str,
    checkpoint: Ref,
    dataset: Ref,
    split: Ref,
    published: Range | None,
    confidence: float,
    threads: int,
) -> dict[str, Any]:
    """Measures a classifier on test images that nothing was trained on or chosen by.

    ``published`` is stated beside it only if the training images are those it was printed for.
    """
    from models.checkpoints import load_keras
    from models.metrics import measure_accuracy
    from models.programs import predict_labels
    from models.runtime import use_threads

    use_threads(threads)
    model = load_keras(work.content(checkpoint, "model.keras"))
    predicted = predict_labels(model, open_rows(work, dataset, split, "test"))
    accuracy = measure_accuracy(read_labels(work, split, "test"), predicted, confidence)
    result = {"name": name, **accuracy.to_json()}
    if published and is_published_source(split.metrics["classes"], split.metrics["rows"]["train"]):
        result["published_low"], result["published_high"] = published
    return {"results": [result], "confidence": confidence}

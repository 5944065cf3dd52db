"""Stage package: one run's models in a form that stands alone, with their answers on the hold-out.

What a champion is. Nothing in it refers to other entries, so they may go and it still predicts;
two of them can be compared row by row without loading either.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from artifacts.files import canonical_json, sha256_bytes
from artifacts.reference import Ref
from artifacts.store import Manifest
from tasks.rows import open_rows, read_labels
from tasks.stage import Work, stage
from tasks.train import network_names
from tasks.trained import load_model

if TYPE_CHECKING:
    import keras

ANSWERS = "answers.npz"


@stage("package", label="package the models")
def package(
    work: Work,
    *,
    evaluation: Ref,
    checkpoint: Ref,
    dataset: Ref,
    source_split: Ref,
    target_split: Ref,
    heads: Ref,
    networks: tuple[Ref, ...],
    threads: int,
) -> dict[str, Any]:
    """Writes both classifiers as .keras and what they answer on the test images."""
    from models.checkpoints import load_keras, save_keras
    from models.programs import predict_labels
    from models.runtime import use_threads

    use_threads(threads)
    trunk = load_keras(work.content(checkpoint, "model.keras"))
    chosen = evaluation.metrics["chosen"]
    models = {"source": trunk, "target": _target_model(work, chosen, trunk, heads, networks)}
    answers: dict[str, npt.NDArray[Any]] = {}
    parts = {}
    for side, split in {"source": source_split, "target": target_split}.items():
        save_keras(models[side], work.path(f"{side}.keras"))
        labels = np.asarray(read_labels(work, split, "test"))
        predicted = predict_labels(models[side], open_rows(work, dataset, split, "test"))
        names = np.asarray(split.metrics["classes"], np.int64)
        answers |= {f"{side}_labels": names[labels], f"{side}_predicted": names[predicted]}
        right = float(np.mean(labels == predicted))
        parts[side] = {"classes": names.tolist(), "accuracy": right, "rows": len(labels)}
    work.save_arrays(ANSWERS, answers)
    return {
        **parts,
        "accuracy": _share_right(answers),
        "holdout": _holdout(dataset, source_split, target_split),
        "evaluation": evaluation.digest,
        "chosen": chosen,
        "image_shape": dataset.metrics["image_shape"],
        "pixels": str(work.array(dataset, "x_test.npy").dtype),
    }


def package_arguments(evaluation: Manifest) -> dict[str, Any]:
    """What ``package`` takes, told by the evaluation of a run."""
    names = ("checkpoint", "dataset", "source_split", "target_split", "heads")
    return {
        "evaluation": evaluation.ref,
        **{name: evaluation.inputs[name] for name in names},
        "networks": tuple(
            ref for name, ref in evaluation.inputs.items() if name.startswith("networks ")
        ),
        "threads": evaluation.settings["run.threads"],
    }


def _target_model(
    work: Work, chosen: str, trunk: "keras.Model", heads: Ref, networks: tuple[Ref, ...]
) -> "keras.Model":
    """What was chosen, from pixels to target classes: a head on its trunk, or whole networks."""
    from models.networks import average, join_head

    for network in networks:
        if network.metrics["title"] == chosen:
            names = network_names(network.metrics["ensemble"])
            return average([load_model(work, network, name) for name in names])
    layer = chosen.removeprefix("head on ")
    return join_head(trunk, layer, load_model(work, heads, layer))


def _share_right(answers: dict[str, npt.NDArray[Any]]) -> float:
    right = [answers[f"{s}_labels"] == answers[f"{s}_predicted"] for s in ("source", "target")]
    return float(np.mean(np.concatenate(right)))


def _holdout(dataset: Ref, *splits: Ref) -> str:
    """What the answers are answers to: equal for two models that can be compared."""
    contents = [dataset.files["x_test.npy"].sha256, dataset.files["y_test.npy"].sha256]
    contents += [split.files["test_rows.npy"].sha256 for split in splits]
    contents += [split.files["test_labels.npy"].sha256 for split in splits]
    return sha256_bytes(canonical_json(contents))

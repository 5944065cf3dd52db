"""Peak memory of caching activations and of evaluating, from 60,000 rows to 6,000,000.

``python benchmarks/memory.py`` makes image files of each size (sparse: they take no room), runs the
stages cache-activations and evaluate on them in a process of their own each, and prints the peak of
the memory that belongs to the process. It needs about 8 GB of free disk for a few minutes.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.store import Store
from models.config import Evaluate, Network
from tasks.stage import Work

SIZES = (60_000, 600_000, 6_000_000)
CLASSES = [0, 1, 2, 3, 4]
LAYER = "hidden5"


def peak_of(size: int) -> tuple[float, float, float]:
    """Mebibytes at the peak: before the stages, caching activations, evaluating."""
    with tempfile.TemporaryDirectory() as folder:
        # Each in a process of its own, so that one's peak is not the other's.
        for step in ("make", "measure"):
            command = [sys.executable, __file__, step, folder, str(size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    before, activations, evaluation = map(float, done.stdout.split()[-3:])
    return before, activations, evaluation


def measure(store: Store) -> None:
    """Runs both stages; prints the three peaks."""
    import tensorflow  # noqa: F401 - so that its own memory is in the first figure

    from tasks.cache_activations import cache_activations
    from tasks.evaluate import evaluate

    names = ("dataset", "split", "checkpoint", "heads", "pixels", "scratch")
    dataset, split, checkpoint, heads, pixels, scratch = (
        manifest.ref for name in names if (manifest := store.latest(name))
    )
    peaks = [peak_memory()]

    activations, _ = cache_activations.run(
        {
            "checkpoint": checkpoint,
            "dataset": dataset,
            "split": split,
            "layers": (LAYER,),
            "threads": 2,
        },
        store,
        before=None,
    )
    peaks.append(peak_memory())
    evaluate.run(
        {
            "checkpoint": checkpoint,
            "dataset": dataset,
            "source_split": split,
            "target_split": split,
            "activations": activations,
            "heads": heads,
            "networks": (),
            "baselines": (pixels, scratch),
            "augmentation": None,
            "evaluate": Evaluate(),
            "published": False,
            "threads": 2,
        },
        store,
        before=None,
    )
    peaks.append(peak_memory())
    print(*(f"{peak:.0f}" for peak in peaks))


def make_inputs(store: Store, size: int) -> None:
    """Entries as the stages before would leave them, with ``size`` test images."""
    from models.networks import build_classifier, build_head, build_trunk
    from tasks.trained import save_model

    few = np.arange(10)
    trunk = build_trunk(Network(), columns=784, seed=0)
    classifier = build_classifier(trunk, len(CLASSES), seed=0)

    def dataset(work: Work) -> dict[str, Any]:
        work.save_array("x_train.npy", np.zeros((10, 784), np.uint8))
        np.lib.format.open_memmap(work.path("x_test.npy"), "w+", np.uint8, (size, 784))
        return {"image_shape": [28, 28]}

    def split(work: Work) -> dict[str, Any]:
        for part, rows in (("train", few), ("validation", few), ("test", np.arange(size))):
            work.save_array(f"{part}_rows.npy", rows)
            work.save_array(f"{part}_labels.npy", (rows % 5).astype(np.uint8))
        return {"classes": CLASSES, "few_shot": 2, "rows": {"train": 10}}

    def checkpoint(work: Work) -> dict[str, Any]:
        from models.checkpoints import save_keras

        save_keras(classifier, work.path("model.keras"))
        return {}

    def heads(work: Work) -> dict[str, Any]:
        save_model(work, LAYER, build_head(100, len(CLASSES), seed=0))
        head = {"layer": LAYER, "validation_loss": 1.0}
        return {"layers": [LAYER], "heads": [head], "best": LAYER}

    def pixels(work: Work) -> dict[str, Any]:
        save_model(work, "network1", build_head(784, len(CLASSES), seed=0))
        return {"title": "softmax on pixels", "ensemble": 1, "validation_loss": 1.0}

    def scratch(work: Work) -> dict[str, Any]:
        save_model(work, "network1", classifier)
        return {"title": "from scratch", "ensemble": 1, "validation_loss": 1.0}

    for function in (dataset, split, checkpoint, heads, pixels, scratch):
        with store.draft(function.__name__, "0") as draft:
            draft.metrics = function(Work(store, draft))
            store.commit(draft, seconds=0.0)


def peak_memory() -> float:
    """Mebibytes of this process in memory at its peak so far, mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform == "linux" else 1024**2)


def main() -> None:
    """Prints the table."""
    print("| rows | before, MiB | caching activations, MiB | evaluating, MiB |")
    print("| --- | --- | --- | --- |")
    for size in SIZES:
        print(f"| {size:,} | {' | '.join(f'{peak:.0f}' for peak in peak_of(size))} |", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, size]:
            make_inputs(Store(Path(folder)), int(size))
        case ["measure", folder, _]:
            measure(Store(Path(folder)))
        case _:
            main()

"""What the main job is without orchestration: one Keras script, nothing kept, nothing resumed.

    python -m benchmarks.plain_keras [SEED [SECTION.FIELD=VALUE ...]]

The same images, settings, networks, early stopping and results as ``headstart run --preset
published``, by ``keras.Model.fit``. Activations are computed once for all heads here too. Figures
are not drawn.
Prints JSON: the seconds of each part and its epochs, and the test accuracies.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from models.checkpoints import save_serving
from models.config import Training, load_config
from models.datasets import load_dataset
from models.feeding import Array
from models.images import Dataset, as_float
from models.networks import build_classifier, build_head, build_trunk, cut_trunk
from models.runtime import use_threads
from models.slices import Slice, Split, first_of_each, split_classes

CONFIG = load_config(preset="published", overrides=sys.argv[2:])
SEED = int(sys.argv[1]) if sys.argv[1:] else CONFIG.run.seed


class Watch:
    """Seconds and epochs of each part."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, float]] = {}
        self._last = time.perf_counter()

    def note(self, part: str, epochs: int = 0) -> None:
        """Ends a part, which began where the one before ended."""
        now = time.perf_counter()
        self.parts[part] = {"seconds": now - self._last, "epochs": epochs}
        self._last = now


def train(
    model: keras.Model, rows: tuple[Array, Array], held_out: tuple[Array, Array], how: Training
) -> int:
    """Trains as the settings say; gives the number of epochs."""
    # Not the project's, which is quicker.
    optimizer = keras.optimizers.Adam(how.learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    # Keras stops one epoch earlier at the same patience.
    stop = keras.callbacks.EarlyStopping(patience=how.patience + 1, restore_best_weights=True)
    history = model.fit(
        *rows,
        batch_size=how.batch_size,
        epochs=how.max_epochs,
        validation_data=held_out,
        callbacks=[stop],
        verbose=0,
    )
    return len(history.history["loss"])


def split(dataset: Dataset) -> tuple[Split, Split]:
    """The rows of the source classes, and the few of the target classes."""
    data, labels = CONFIG.data, (dataset.y_train, dataset.y_test)
    source = split_classes(*labels, data.source_classes, data.validation_rows)
    target = split_classes(*labels, data.target_classes, data.validation_rows)
    few = Split(
        train=first_of_each(target.train, data.few_shot),
        validation=first_of_each(target.validation, data.few_shot_validation),
        test=target.test,
    )
    return source, few


def read(images: Array, part: Slice) -> tuple[Array, Array]:
    """Rows as networks take them, and their labels."""
    return as_float(images[part.rows]), part.labels


def measure(model: keras.Model, rows: tuple[Array, Array]) -> float:
    """Share of rows whose class the model finds."""
    predicted = model.predict(rows[0], batch_size=1000, verbose=0).argmax(axis=1)
    return float(np.mean(predicted == rows[1]))


def run(folder: Path) -> dict[str, Any]:
    """The whole job."""
    watch, scores = Watch(), {}
    dataset = load_dataset(CONFIG.data.dataset)
    source, few = split(dataset)
    x_train, x_test = dataset.x_train, dataset.x_test
    rows, held_out = read(x_train, source.train), read(x_train, source.validation)
    watch.note("load and split")

    trunk = build_trunk(CONFIG.network, rows[0].shape[1], SEED)
    classes = len(CONFIG.data.source_classes)
    classifier = build_classifier(trunk, classes, SEED)
    watch.note("pretrain", train(classifier, rows, held_out, CONFIG.pretrain))
    classifier.save(folder / "model.keras")
    save_serving(classifier, CONFIG.data.source_classes, folder / "saved_model")
    watch.note("export")

    rows, held_out, test = (
        read(x_train, few.train),
        read(x_train, few.validation),
        read(x_test, few.test),
    )
    classes, layers = len(CONFIG.data.target_classes), CONFIG.cuts
    cut = cut_trunk(trunk, layers)
    cached = [cut.predict(x, batch_size=1000, verbose=0) for x, _ in (rows, held_out, test)]
    watch.note("activations")
    epochs, heads = 0, {}
    for layer, *activations in zip(layers, *cached, strict=True):
        head = build_head(activations[0].shape[1], classes, SEED)
        parts = [(x, y) for x, (_, y) in zip(activations, (rows, held_out, test), strict=True)]
        epochs += train(head, parts[0], parts[1], CONFIG.fine_tune)
        heads[f"head on {layer}"] = head, parts[2]
    watch.note("heads", epochs)
    columns = rows[0].shape[1]
    pixels = build_head(columns, classes, SEED)
    scratch = build_classifier(build_trunk(CONFIG.network, columns, SEED), classes, SEED)
    epochs = sum(train(model, rows, held_out, CONFIG.transfer) for model in (pixels, scratch))
    watch.note("baselines", epochs)

    scores["pretrained"] = measure(classifier, read(x_test, source.test))
    scores |= {name: measure(*head) for name, head in heads.items()}
    scores |= {"softmax on pixels": measure(pixels, test), "from scratch": measure(scratch, test)}
    watch.note("evaluate")
    return {"parts": watch.parts, "scores": scores}


def main() -> None:
    """Prints the result."""
    use_threads(CONFIG.run.threads)
    # Of the order of the rows as well.
    keras.utils.set_random_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder))))


if __name__ == "__main__":
    main()

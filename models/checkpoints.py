"""Models as files: parts that are the same bytes each time, the Keras format, SavedModel."""

import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

Arrays = dict[str, npt.NDArray[Any]]

# The first date a zip file can hold. A real one would give the same model other bytes each time.
EPOCH = (1980, 1, 1, 0, 0, 0)


def weights_of(model: keras.Model) -> Arrays:
    """A model's weights by their path, such as ``hidden1_dense/kernel``.

    Without the states of dropout's random draws: what they are called depends on what else the
    process has built.
    """
    return {variable.path: variable.numpy() for variable in model.weights}


def set_weights(model: keras.Model, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives a model the weights that ``weights_of`` read.

    Raises:
        ValueError: If they are not those of this architecture.
    """
    paths = {variable.path for variable in model.weights}
    if paths != set(weights):
        msg = f"weights of another model: {sorted(paths ^ set(weights))}"
        raise ValueError(msg)
    for variable in model.weights:
        variable.assign(weights[variable.path])


def save_keras(model: keras.Model, path: Path) -> None:
    """Writes a model in Keras's own format, the same model to the same bytes.

    Keras stamps the file with dates; they are put to a fixed one.
    """
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(contents["metadata.json"])
    contents["metadata.json"] = json.dumps(
        {**metadata, "date_saved": "1980-01-01@00:00:00"}
    ).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)


def load_keras(content: bytes) -> keras.Model:
    """Reads a model in Keras's own format; code inside it is refused, not run.

    Raises:
        ValueError: If the file asks for code that did not come with Keras.
    """
    # Keras reads only from a path, and the path's bytes could change after they were checked.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(content)
        return keras.models.load_model(path, compile=False, safe_mode=True)


def save_serving(model: keras.Model, classes: Sequence[int], folder: Path) -> None:
    """Writes a SavedModel that needs only TensorFlow to be served.

    Its signature ``serving_default`` takes ``images``, float32 ``(rows, columns)`` of pixels
    divided by 255, and gives ``probabilities`` ``(rows, classes)`` and ``label`` ``(rows,)``, the
    class as the dataset names it.
    """
    names = tf.constant(list(classes), tf.int64)
    columns = model.inputs[0].shape[1]

    images = tf.TensorSpec((None, columns), tf.float32, name="images")

    @tf.function(input_signature=[images], autograph=False)
    def serve(images: Any) -> dict[str, Any]:
        probabilities = model(images, training=False)
        label = tf.gather(names, tf.argmax(probabilities, axis=1))
        return {"probabilities": probabilities, "label": label}

    module = tf.Module()
    module.variables_of_the_model = [variable.value for variable in model.variables]
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})

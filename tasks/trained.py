"""Trained models inside entries: architecture and weights as files of fixed bytes."""

from typing import TYPE_CHECKING

from artifacts.reference import Ref
from tasks.stage import Work

if TYPE_CHECKING:
    import keras


def save_model(work: Work, name: str, model: "keras.Model") -> None:
    """Makes a model part of the result, in folder ``name``."""
    from models.checkpoints import weights_of

    work.save_json(f"{name}/architecture.json", model.get_config())
    work.save_arrays(f"{name}/weights.npz", weights_of(model))


def load_model(work: Work, ref: Ref, name: str) -> "keras.Model":
    """The model that ``save_model`` wrote into an input."""
    import keras

    from models.checkpoints import set_weights

    model = keras.Model.from_config(work.json(ref, f"{name}/architecture.json"))
    set_weights(model, work.arrays(ref, f"{name}/weights.npz"))
    return model


def load_classifier(work: Work, ref: Ref) -> "keras.Model":
    """The classifier of a checkpoint, or the first of an entry that a training stage made."""
    from models.checkpoints import load_keras

    if "model.keras" in ref.files:
        return load_keras(work.content(ref, "model.keras"))
    names = [name.partition("/")[0] for name in ref.files if name.endswith("/architecture.json")]
    return load_model(work, ref, min(names))

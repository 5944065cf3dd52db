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

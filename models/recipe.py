"""Recipes: the experiments of the source documents, each a file of settings in ``recipes/``.

A recipe names data, network and training by the same settings as a run of one's own, and what the
document printed. Nothing is computed here.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from models.config import (
    Activation,
    ConfigError,
    Initializer,
    Network,
    OptimizerName,
    Pairs,
    Search,
    Section,
)
from models.config import Training as AnyTraining

FOLDER = Path(__file__).parent / "recipes"

Quantity = Literal["final", "best", "test", "first 100", "train"]
QUANTITIES: Mapping[Quantity, str] = {
    "final": "validation, last epoch",
    "best": "validation, best epoch",
    "test": "test",
    "first 100": "first 100 test images, one at a time",
    "train": "training",
}


class Images(Section):
    """What is trained on, and what its accuracy is measured on."""

    dataset: str = Field("mnist", description="As data.dataset.")
    classes: tuple[int, ...] = Field(tuple(range(10)), description="Classes to tell apart.")
    validation_rows: int = Field(5000, ge=1, description="As data.validation_rows.")
    rows: int = Field(0, ge=0, description="Train on the first so many images; 0 is all.")
    per_class: int = Field(0, ge=0, description="Train on so many images of each class; 0 is all.")
    per_class_validation: int = Field(
        0, ge=0, description="Validate on so many images of each class; 0 is all."
    )
    swapped: bool = Field(
        False, description="Train on the validation images and validate on the training images."
    )

    @property
    def listed(self) -> str:
        """The classes as a text: ``0, 1, 2``."""
        return ", ".join(map(str, self.classes))


class Layers(Network):
    """A network as the documents build it unless they say otherwise."""

    hidden_layers: int = 0
    activation: Activation = "relu"
    initializer: Initializer = "glorot_uniform"
    batch_norm: bool = False
    norm_bias: bool = True


class Training(AnyTraining):
    """Training as the documents do it unless they say otherwise: to the end, no early stopping."""

    optimizer: OptimizerName = "sgd"
    learning_rate: float = 0.01
    batch_size: int = 200
    max_epochs: int = 20
    patience: int = 100_000
    keep: Literal["best", "last"] = "last"


class Start(Section):
    """What is taken over from another recipe's network."""

    recipe: str = Field(description="Whose network, of the same seed.")
    layers: int = Field(100, ge=0, description="How many of its hidden layers, from the lowest.")
    head: bool = Field(False, description="Its head too.")
    frozen: int = Field(0, ge=0, description="How many of them are not trained, from the lowest.")
    cached: bool = Field(
        False, description="Train on the cached activations of the highest frozen layer."
    )


class Printed(Section):
    """What a document says came out.

    Attributes:
        quantity: Which accuracy.
        values: In %, one for each time the document's program was run.
    """

    quantity: Quantity
    values: tuple[float, ...] = Field(min_length=1)


class Recipe(Section):
    """One experiment.

    Attributes:
        id: Name of its file.
        title: What is done, in a few words.
        same_as: Another recipe that is the same experiment, whose networks are measured again.
        kind: A training, a search for the settings of one, a pretraining on pairs of images, or
            nothing but a picture.
        defect: What is wrong with the experiment as printed; the recipe does it all the same.
        why: Why our figures differ from the printed ones, where they do.
        seeds: How many, where nothing else is asked for.
        data: The images.
        network: The layers.
        training: How they are trained.
        search: Of a search, what it tries.
        pairs: Of a pretraining on pairs, how it is trained.
        start: What they begin with; None if all weights are new.
        printed: What came out there.
    """

    id: str
    title: str
    same_as: str = ""
    kind: Literal["training", "search", "pairs", "picture"] = "training"
    defect: str = ""
    why: str = ""
    seeds: int = Field(5, ge=1)
    data: Images = Images()
    network: Layers = Layers()
    training: Training = Training()
    search: Search = Search()
    pairs: Pairs = Pairs()
    start: Start | None = None
    printed: tuple[Printed, ...] = ()

    @model_validator(mode="after")
    def _starts_fit(self) -> Self:
        if self.start and self.start.cached and not self.start.frozen:
            msg = f"recipe {self.id}: there is no frozen layer whose activations could be cached"
            raise ValueError(msg)
        return self


def load_recipes(wanted: Iterable[str] = ()) -> tuple[Recipe, ...]:
    """The recipes of some names, and before each those it starts from; all if none is named.

    A name may be the beginning of several ids: ``002`` is all of one document.

    Raises:
        ConfigError: If a name is of no recipe.
    """
    known = _read_all()
    names = list(wanted) or list(known)
    unknown = [name for name in names if not any(id.startswith(name) for id in known)]
    if unknown:
        listed = ", ".join(known)
        raise ConfigError([f"no recipe {name!r}; there are {listed}" for name in unknown])
    chosen: dict[str, Recipe] = {}
    for id in known:
        if any(id == name or (name not in known and id.startswith(name)) for name in names):
            chosen.update((each.id, each) for each in _with_starts(known[id], known))
    return tuple(chosen.values())


def _with_starts(recipe: Recipe, known: Mapping[str, Recipe]) -> Iterator[Recipe]:
    """The recipe, after those whose networks it needs."""
    needed = (recipe.start.recipe if recipe.start else "", recipe.same_as)
    for id in filter(None, needed):
        yield from _with_starts(known[id], known)
    yield recipe


@cache
def _read_all() -> Mapping[str, Recipe]:
    """Every recipe by its id, in order of their ids but after those they start from."""
    texts = {
        path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.toml")
    }
    found = {id: _read(id, texts) for id in sorted(texts)}
    ordered = (each for recipe in found.values() for each in _with_starts(recipe, found))
    return {recipe.id: recipe for recipe in ordered}


def _read(id: str, texts: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate({"id": id, **_laid_over(id, texts)})
    except ValidationError as error:
        msg = f"recipe {id}: {error}"
        raise ValueError(msg) from None


def _laid_over(id: str, texts: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's settings over those of the one it says it is ``like``; figures are its own."""
    own = dict(texts[id])
    below = _laid_over(own.pop("like"), texts) if "like" in own else {}
    for name in ("printed", "defect", "why", "seeds"):
        below.pop(name, None)
    for name, value in own.items():
        both = isinstance(value, dict) and isinstance(below.get(name), dict)
        below[name] = {**below[name], **value} if both else value
    return below

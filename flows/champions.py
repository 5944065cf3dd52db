"""The champion and those who might be: packaging a run's models, naming, listing, using them."""

import getpass
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from artifacts import files, registry
from artifacts.lineage import resolve
from artifacts.reference import Ref
from artifacts.store import DamagedEntry, Manifest, Store, StoreError
from flows.importing import import_libraries
from flows.records import find_run
from models.comparison import Verdict, compare
from models.config import Config, Nightly
from models.deliveries import Delivery, DeliveryError, Form, read_delivery
from models.images import DatasetError, as_float
from models.incoming import doubt_labels
from tasks.package import ANSWERS, package, package_arguments

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[Any]
SIDES = ("target", "source")


@dataclass(frozen=True)
class Prediction:
    """What the champion makes of one image.

    Attributes:
        name: The image's file, or its row in one.
        label: The most probable class, as the dataset names it.
        probability: How probable, 0 to 1.
        probabilities: Of every class.
    """

    name: str
    label: int
    probability: float
    probabilities: dict[int, float]


def whoami() -> str:
    """Who gives a command, for the registry's records."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user may have no name.
        return "unknown"


def make_candidate(store: Store, evaluation: Manifest) -> Ref:
    """Packages the models that an evaluation is about, or finds them packaged.

    Raises:
        DamagedEntry: If what the evaluation was made from is gone or damaged.
    """
    arguments = package_arguments(evaluation)
    key = package.key(arguments)
    before = store.raw_manifest(package.name, key)
    found = store.find(package.name, key)
    if found is None:
        import_libraries()
        found, _ = package.run(arguments, store, before)
    return found


def find_candidate(store: Store, name: str) -> Ref:
    """The packaged model that a name means: its key or the beginning, or the run it comes from.

    Raises:
        StoreError: If it means none, or several.
    """
    try:
        run = find_run(store, name)
    except StoreError:
        return _find_packaged(store, name)
    for stage in run.stages:
        evaluation = store.manifest(stage.name, stage.key)
        if evaluation and stage.name == "evaluate":
            return make_candidate(store, evaluation)
    msg = f"run {run.run} has no evaluation in {store.root}, so there is no model to promote"
    raise StoreError(msg)


def _find_packaged(store: Store, key: str) -> Ref:
    try:
        return resolve(store, f"{registry.MODEL_STAGE}/{key}").ref
    except StoreError as error:
        if "several" in str(error):
            raise
        msg = f"neither a run nor a model is called {key!r}; headstart models lists the models"
        raise StoreError(msg) from None


def list_models(store: Store) -> list[dict[str, Any]]:
    """Every packaged model, the champion first, then the youngest first."""
    present = registry.champion(store)
    keys = [key for stage, key in store.entries() if stage == registry.MODEL_STAGE]
    found = [m for key in keys if (m := store.manifest(registry.MODEL_STAGE, key))]
    rows = [
        {
            "key": m.ref.key,
            "champion": bool(present and present.model.key == m.ref.key),
            "created": m.created,
            "accuracy": m.ref.metrics["accuracy"],
            **{f"{side}_accuracy": m.ref.metrics[side]["accuracy"] for side in SIDES},
        }
        for m in sorted(found, key=lambda m: m.created, reverse=True)
    ]
    return sorted(rows, key=lambda row: not row["champion"])


def list_decisions(store: Store) -> list[dict[str, Any]]:
    """Who made what the champion, when and why, youngest first."""
    fields = {"action", "who", "why", "when"}
    return [
        {"key": record.model.key, **record.model_dump(mode="json", include=fields)}
        for record in registry.history(store)
    ]


def predict(store: Store, paths: Iterable[Path], side: str) -> list[Prediction]:
    """What the champion makes of images.

    Args:
        store: Where the champion lies.
        paths: PNG files, folders of them, ``.npz`` or CSV files.
        side: ``target`` or ``source``: which of its two classifiers answers.

    Raises:
        DatasetError: With a line for each image that cannot be read.
        StoreError: If there is no champion.
    """
    model = _champion(store)
    form = Form(tuple(model.metrics["image_shape"]), model.metrics["pixels"])
    deliveries = _read_all(paths, form)
    images = np.concatenate([delivery.images for delivery in deliveries.values()])
    names = [
        file if len(delivery.names) == 1 else f"{file}: {name}"
        for file, delivery in deliveries.items()
        for name in delivery.names
    ]
    import_libraries()
    from models.programs import predict as compute

    answers = compute(_load(store, model, side), as_float(images))
    classes = model.metrics[side]["classes"]
    return [
        Prediction(
            name=name,
            label=classes[int(row.argmax())],
            probability=float(row.max()),
            probabilities={c: float(p) for c, p in zip(classes, row, strict=True)},
        )
        for name, row in zip(names, answers, strict=True)
    ]


def export(store: Store, folder: Path) -> list[Path]:
    """Writes the champion's classifiers as .keras and SavedModel, for others to load.

    Raises:
        StoreError: If there is no champion, or the folder is there already.
    """
    model = _champion(store)
    if folder.exists():
        msg = f"{folder} is there already; name a new folder"
        raise StoreError(msg)
    import_libraries()
    from models.checkpoints import save_serving

    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    for side in SIDES:
        place = draft / side
        place.mkdir(parents=True)
        classes = model.metrics[side]["classes"]
        save_serving(_load(store, model, side), classes, place / "saved_model")
        (place / "model.keras").write_bytes(store.read_bytes(model, f"{side}.keras"))
    draft.rename(folder)
    return [folder / side for side in SIDES]


def doubt_by(store: Store, champion: Ref, config: Config) -> Callable[[Array, Array], str]:
    """Makes what holds labels against a champion's own answers.

    Args:
        store: Where the champion lies.
        champion: The model.
        config: The threshold, and the threads that this process is to use.
    """

    def doubt(images: Array, labels: Array) -> str:
        import_libraries()
        from models.programs import predict_labels
        from models.runtime import use_threads

        use_threads(config.run.threads)
        answers, expected = np.full(len(labels), -1), 0.0
        for side in SIDES:
            classes = np.asarray(champion.metrics[side]["classes"])
            rows = np.isin(labels, classes)
            if rows.any():
                pixels = as_float(images[rows])
                answers[rows] = classes[predict_labels(_load(store, champion, side), pixels)]
                expected += float(rows.mean()) * champion.metrics[side]["accuracy"]
        return doubt_labels(labels, answers, expected, config.nightly.label_agreement)

    return doubt


def judge(store: Store, champion: Ref, challenger: Ref, limits: Nightly) -> Verdict:
    """Compares a challenger with the champion on the same hold-out, by their kept answers."""
    shares = champion.metrics["accuracy"], challenger.metrics["accuracy"]
    if champion.digest == challenger.digest:
        return Verdict(False, "nothing new: the challenger is the champion", *shares, p=1.0)
    if champion.metrics["holdout"] != challenger.metrics["holdout"]:
        why = "measured on another hold-out, so not comparable; headstart promote decides by hand"
        return Verdict(False, why, *shares, p=1.0)
    labels, before = _answers(store, champion)
    _, now = _answers(store, challenger)
    return compare(labels, before, now, limits.significance, limits.max_class_loss)


def _answers(store: Store, model: Ref) -> tuple[Array, Array]:
    """True classes and the model's answers on the whole hold-out, (rows,) each."""
    kept = files.unpack_arrays(store.read_bytes(model, ANSWERS))
    labels, answers = (
        np.concatenate([kept[f"{side}_{what}"] for side in SIDES])
        for what in ("labels", "predicted")
    )
    return labels, answers


def _champion(store: Store) -> Ref:
    present = registry.champion(store)
    if present is None:
        msg = f"no champion in {store.root}; choose one with headstart promote latest"
        raise StoreError(msg)
    return present.model


def _load(store: Store, model: Ref, side: str) -> "keras.Model":
    """One of a packaged model's classifiers.

    Raises:
        StoreError: If it is damaged.
    """
    from models.checkpoints import load_keras

    try:
        return load_keras(store.read_bytes(model, f"{side}.keras"))
    except DamagedEntry as error:
        msg = f"{error}; headstart rollback returns to the champion before it"
        raise StoreError(msg) from None


def _read_all(paths: Iterable[Path], form: Form) -> dict[str, Delivery]:
    """Every file's images, by its path; all that is wrong is told at once."""
    found: dict[str, Delivery] = {}
    problems = []
    for path in _files(paths):
        try:
            found[str(path)] = delivery = read_delivery(
                {path.name: path.read_bytes()}, form, labelled=False
            )
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
        except DeliveryError as error:
            problems.append(f"{path} {error}")
        else:
            wrong = zip(delivery.names, delivery.problems, strict=True)
            problems += [f"{path}: {name} {problem}" for name, problem in wrong if problem]
    if problems or not found:
        raise DatasetError("\n".join(problems) or "no images given")
    return found


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob("*.png"))
        else:
            yield path

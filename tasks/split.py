"""Stages split-source, split-target, split-...: which rows each training may see."""

from typing import Any

from artifacts.reference import Ref
from models.recipe import Images
from models.slices import Slice, Split, first_of_each, split_classes
from tasks.stage import Work, stage


@stage("split-source", label="split classes {source_classes}")
def split_source(
    work: Work, *, dataset: Ref, source_classes: tuple[int, ...], validation_rows: int
) -> dict[str, Any]:
    """Finds the rows of the source classes for training, validation and test."""
    labels = work.array(dataset, "y_train.npy"), work.array(dataset, "y_test.npy")
    sizes = _save(work, split_classes(*labels, source_classes, validation_rows))
    return {"classes": list(source_classes), "rows": sizes}


@stage("split-target", label="split classes {target_classes}, {few_shot} images each")
def split_target(
    work: Work,
    *,
    dataset: Ref,
    target_classes: tuple[int, ...],
    validation_rows: int,
    few_shot: int,
    few_shot_validation: int,
) -> dict[str, Any]:
    """Takes the first few rows of each target class, and all its test rows."""
    labels = work.array(dataset, "y_train.npy"), work.array(dataset, "y_test.npy")
    whole = split_classes(*labels, target_classes, validation_rows)
    few = Split(
        train=first_of_each(whole.train, few_shot),
        validation=first_of_each(whole.validation, few_shot_validation),
        test=whole.test,
    )
    return {"classes": list(target_classes), "few_shot": few_shot, "rows": _save(work, few)}


@stage("split", label="split classes {images.listed}")
def split_images(work: Work, *, dataset: Ref, images: Images) -> dict[str, Any]:
    """Finds the rows that an experiment trains on, and measures itself by."""
    labels = work.array(dataset, "y_train.npy"), work.array(dataset, "y_test.npy")
    whole = split_classes(*labels, images.classes, images.validation_rows)
    train = first_of_each(whole.train, images.per_class)
    train = Slice(train.rows[: images.rows or None], train.labels[: images.rows or None])
    validation = first_of_each(whole.validation, images.per_class_validation)
    if images.swapped:
        train, validation = validation, train
    sizes = _save(work, Split(train=train, validation=validation, test=whole.test))
    return {"classes": list(images.classes), "rows": sizes}


def _save(work: Work, split: Split) -> dict[str, int]:
    parts: dict[str, Slice] = {
        "train": split.train,
        "validation": split.validation,
        "test": split.test,
    }
    for name, part in parts.items():
        work.save_array(f"{name}_rows.npy", part.rows)
        work.save_array(f"{name}_labels.npy", part.labels)
    return {name: len(part.rows) for name, part in parts.items()}

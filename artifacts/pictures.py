"""The figures of a run, each with a title and the same in words, from measured values alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from artifacts import figures
from artifacts.summary import interval, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Histories = Mapping[str, Mapping[str, Sequence[float]]]
HEAD = "head on "

# So many mistakes are shown as pictures; all of them are in the table.
MOST_MISTAKES = 18


@dataclass(frozen=True)
class Picture:
    """A figure and what is said of it.

    Attributes:
        name: Of its files and its artifact: small letters, digits and dashes.
        title: A few words.
        alt: What it shows, for those who cannot see it.
        figure: The figure itself.
    """

    name: str
    title: str
    alt: str
    figure: "Figure"


def draw(
    evaluation: Mapping[str, Any], histories: Histories, images: npt.NDArray[Any]
) -> Iterator[Picture]:
    """Every figure that the values are there for.

    Args:
        evaluation: What the stage evaluate measured.
        histories: Keras's history of each training, by name.
        images: Of ``evaluation["mistakes"]``, (rows, columns).
    """
    yield Picture(
        "learning-curves",
        "Learning curves",
        _tell_curves(histories),
        figures.learning_curves(histories),
    )
    yield Picture(
        "confusion-matrix",
        f"Confusion matrix of {evaluation['chosen']}",
        _tell_confusion(evaluation),
        figures.confusion_matrix(evaluation["confusion"], evaluation["target_classes"]),
    )
    yield Picture(
        "accuracy-by-cut",
        "Test accuracy by cut",
        _tell_results(evaluation["results"]),
        _draw_cuts(evaluation),
    )
    yield _picture_calibration(evaluation["calibration"])
    yield from _picture_mistakes(evaluation, images)


def _tell_curves(histories: Histories) -> str:
    parts = []
    for name, history in histories.items():
        losses = np.asarray(history.get("val_loss", ()), float)
        if np.isfinite(losses).any():
            best = int(np.nanargmin(losses))
            parts.append(f"{name} {losses[best]:.3g} at epoch {best + 1} of {len(losses)}")
    lowest = "; ".join(parts) or "none recorded"
    return f"Loss and accuracy by epoch. Lowest validation loss: {lowest}."


def _tell_confusion(evaluation: Mapping[str, Any]) -> str:
    rows = evaluation["per_class"]
    recalls = ", ".join(f"{row['class']}: {percent(row['recall'])}" for row in rows)
    return f"True classes down, predicted classes across. Of each class right, in %: {recalls}."


def _tell_results(results: Sequence[Mapping[str, Any]]) -> str:
    told = "; ".join(f"{r['name']} {percent(r['accuracy'])} ({interval(r)})" for r in results)
    return f"Test accuracy in % with its interval: {told}."


def _draw_cuts(evaluation: Mapping[str, Any]) -> "Figure":
    fields = ("accuracy", "low", "high")
    points, ranges, baselines = [], [], []
    for result in evaluation["results"]:
        name, values = result["name"], [float(result[field]) for field in fields]
        cut = name.removeprefix(HEAD)
        if cut != name:
            points.append(figures.CutPoint(cut, *values))
            if "published_low" in result:
                low, high = result["published_low"], result["published_high"]
                ranges.append(figures.PublishedRange(cut, low, high))
        elif name in evaluation["baselines"]:
            baselines.append(figures.Baseline(name, *values))
    return figures.accuracy_by_cut(points, baselines, ranges)


def _picture_calibration(measured: Mapping[str, Any]) -> Picture:
    bins = [figures.Bin(b["confidence"], b["accuracy"], b["rows"]) for b in measured["bins"]]
    told = "; ".join(
        f"{percent(b.confidence)} sure, {percent(b.accuracy)} right ({b.rows} images)" for b in bins
    )
    alt = (
        f"How often the chosen model is right, in %, by how sure it says it is: {told}. "
        f"Expected calibration error {percent(measured['ece_before'])} before and "
        f"{percent(measured['ece_after'])} after scaling by temperature "
        f"{measured['temperature']:.3g}."
    )
    return Picture("calibration", "How sure, how right", alt, figures.calibration(bins))


def _picture_mistakes(evaluation: Mapping[str, Any], images: npt.NDArray[Any]) -> Iterator[Picture]:
    shape, names = evaluation["image_shape"], evaluation["target_classes"]
    worst = evaluation["mistakes"][:MOST_MISTAKES]
    # Rows of plain columns, in an order that means nothing, are no pictures.
    if len(shape) != 2 or not worst:
        return
    captions = [
        figures.Mistake(str(names[m["label"]]), str(names[m["predicted"]]), float(m["confidence"]))
        for m in worst
    ]
    told = "; ".join(
        f"{m.label} taken for {m.predicted}, {percent(m.confidence)} % sure" for m in captions
    )
    yield Picture(
        "mistakes",
        "Most confident mistakes",
        f"Test images that {evaluation['chosen']} gets wrong, most confident first: {told}.",
        figures.mistakes([image.reshape(shape) for image in images[: len(worst)]], captions),
    )

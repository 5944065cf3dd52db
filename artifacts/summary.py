"""Results as Markdown: what a reader of Prefect's UI or of a file sees first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from artifacts.runs import StageRecord

Evaluation = Mapping[str, Any]


def percent(share: float) -> str:
    """A share of 1 as a percentage with one decimal: ``98.9``."""
    return f"{100 * share:.1f}"


def brief(reasons: Sequence[str], most: int = 4) -> str:
    """Reasons in one line, the first of them where there are many."""
    more = len(reasons) - most
    return "; ".join([*reasons[:most], *([f"and {more} more"] if more > 0 else [])])


def listed(names: Iterable[object]) -> str:
    """Names in one line: ``0, 1, 2``."""
    return ", ".join(map(str, names))


def interval(result: Mapping[str, Any]) -> str:
    """The interval of a result: ``98.6 to 99.2``."""
    return f"{percent(result['low'])} to {percent(result['high'])}"


def published(result: Mapping[str, Any]) -> str:
    """The published range of a result, empty where there is none."""
    if "published_low" not in result:
        return ""
    return f"{percent(result['published_low'])} to {percent(result['published_high'])}"


def results_rows(results: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The results as rows of a table for people.

    Prefect's UI sorts columns by name, capitals first.
    """
    return [
        {
            "Result": result["name"],
            "accuracy, %": percent(result["accuracy"]),
            "interval, %": interval(result),
            "published, %": published(result),
        }
        for result in results
    ]


def class_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """Precision, recall and F1 of each class as rows of a table for people."""
    return [
        {
            "Class": str(row["class"]),
            **{f"{name}, %": percent(row[name]) for name in ("precision", "recall", "f1")},
            "images": str(row["rows"]),
        }
        for row in evaluation["per_class"]
    ]


def results_markdown(evaluation: Evaluation) -> str:
    """Test accuracies beside the published range, and the classes one by one."""
    chosen = evaluation["chosen"]
    lines = [
        f"Test accuracy in percent; `{chosen}` was chosen on validation images.",
        results_table(evaluation),
        evaluation["gain"]["sentence"],
        *_note(evaluation),
        f"Classes as `{chosen}` tells them apart:",
        classes_table(evaluation),
    ]
    return "\n\n".join(lines) + "\n"


def _note(evaluation: Evaluation) -> Iterator[str]:
    """What a reader must know about the dataset; nothing for most, or in an older store."""
    if evaluation.get("note"):
        yield f"The dataset is a {evaluation['note']}."


def results_table(evaluation: Evaluation) -> str:
    """Test accuracies with their intervals, in percent."""
    level = f"{100 * evaluation['confidence']:g}% interval"
    return table(
        ("", "accuracy", level, "published"),
        (
            (result["name"], percent(result["accuracy"]), interval(result), published(result))
            for result in evaluation["results"]
        ),
    )


def classes_table(evaluation: Evaluation) -> str:
    """Precision, recall and F1 of each class, in percent."""
    return table(
        ("class", "precision", "recall", "F1", "images"),
        (
            (row["class"], *(percent(row[n]) for n in ("precision", "recall", "f1")), row["rows"])
            for row in evaluation["per_class"]
        ),
    )


def mistake_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """The most confident mistakes as rows of a table for people, most confident first."""
    names = evaluation["target_classes"]
    return [
        {
            "Sure, %": percent(mistake["confidence"]),
            "class": str(names[mistake["label"]]),
            "taken for": str(names[mistake["predicted"]]),
            "test row": str(mistake["row"]),
        }
        for mistake in evaluation["mistakes"]
    ]


def stages_markdown(stages: Sequence[StageRecord]) -> str:
    """What became of each stage, and why those ran that did."""
    rows = (
        (s.name, s.state, f"{s.seconds:.1f}", brief(s.why), f"`{s.digest[:12]}`") for s in stages
    )
    return table(("stage", "", "seconds", "why", "digest"), rows) + "\n"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells may hold anything."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    """A value that ends no cell and starts no HTML element."""
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(text.split())


def study_rows(study: Mapping[str, Any]) -> list[dict[str, str]]:
    """A study's mean accuracies as rows of a table: strategies down, numbers of images across."""
    cells: dict[str, dict[str, str]] = {}
    for curve in study["results"]:
        row = cells.setdefault(curve["strategy"], {"": curve["strategy"]})
        row[str(curve["labels"])] = f"{percent(curve['accuracy'])} ({interval(curve)})"
    gains = {
        str(gain["labels"]): f"{100 * gain['removed']:.0f}% "
        f"({100 * gain['low']:.0f} to {100 * gain['high']:.0f})"
        for gain in study["gains"]
    }
    return [*cells.values(), {"": "errors removed by the chosen one", **gains}]

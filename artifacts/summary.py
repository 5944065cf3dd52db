"""Results as Markdown: what a reader of Prefect's UI or of a file sees first."""

from collections.abc import Iterable, Sequence
from typing import Any

from artifacts.runs import StageRecord


def percent(share: float) -> str:
    """A share of 1 as a percentage with one decimal: ``98.9``."""
    return f"{100 * share:.1f}"


def interval(result: dict[str, Any]) -> str:
    """The interval of a result: ``98.6 to 99.2``."""
    return f"{percent(result['low'])} to {percent(result['high'])}"


def published(result: dict[str, Any]) -> str:
    """The published range of a result, empty where there is none."""
    if "published_low" not in result:
        return ""
    return f"{percent(result['published_low'])} to {percent(result['published_high'])}"


def results_rows(results: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
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


def results_markdown(evaluation: dict[str, Any]) -> str:
    """Test accuracies beside the published range, and the classes one by one."""
    level = f"{100 * evaluation['confidence']:g}% interval"
    lines = [
        f"Test accuracy in percent; `{evaluation['chosen']}` was chosen on validation images.",
        "",
        *_table(
            ("", "accuracy", level, "published"),
            (
                (result["name"], percent(result["accuracy"]), interval(result), published(result))
                for result in evaluation["results"]
            ),
        ),
        "",
        evaluation["gain"]["sentence"],
        "",
        f"Classes as `{evaluation['chosen']}` tells them apart:",
        "",
        *_table(
            ("class", "precision", "recall", "F1", "images"),
            (
                (
                    row["class"],
                    *(percent(row[n]) for n in ("precision", "recall", "f1")),
                    row["rows"],
                )
                for row in evaluation["per_class"]
            ),
        ),
    ]
    return "\n".join(lines) + "\n"


def stages_markdown(stages: Sequence[StageRecord]) -> str:
    """What became of each stage."""
    rows = ((s.name, s.state, f"{s.seconds:.1f}", f"`{s.digest[:12]}`") for s in stages)
    return "\n".join(_table(("stage", "", "seconds", "digest"), rows)) + "\n"


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]

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


def verdict(evaluation: dict[str, Any]) -> str:
    """One sentence: whether the transfer beat what it has to beat, by test accuracy."""
    results = {result["name"]: result for result in evaluation["results"]}
    chosen = results[evaluation["chosen"]]
    rivals = [results["softmax on pixels"], results["from scratch"]]
    best = max(rivals, key=lambda result: float(result["accuracy"]))
    gain = (chosen["accuracy"] - best["accuracy"]) / max(1 - best["accuracy"], 1e-9)
    what = f"{100 * abs(gain):.0f}% {'fewer' if gain > 0 else 'more'} errors than {best['name']}"
    if chosen["low"] > best["high"]:
        return f"Transfer pays: {evaluation['chosen']} makes {what}."
    if chosen["high"] < best["low"]:
        return f"Negative transfer: {evaluation['chosen']} makes {what}."
    return f"No clear gain: {evaluation['chosen']} makes {what}, within the intervals."


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
        verdict(evaluation),
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

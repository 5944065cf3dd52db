"""Results as Markdown: what a reader of Prefect's UI or of a file sees first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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


RECIPE_COLUMNS = (
    *("recipe", "what", "accuracy", "printed", "ours", "difference", "verdict", "seconds"),
)


@dataclass(frozen=True)
class Summary:
    """What a stage found as a table for people.

    Attributes:
        key: Names it among the tables of a run.
        title: What the figures are.
        rows: Texts by column. The first column names the row; Prefect's UI, which sorts columns by
            name, has it first too for its capital.
        brief: Rows that are enough at a glance.
        essential: Columns that are enough where there is no room for more; empty is all.
        words: Columns of texts that may take several lines; all but the first hold figures else.
    """

    key: str
    title: str
    rows: Sequence[Mapping[str, str]]
    brief: int = 100
    essential: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def columns(self, roomy: bool = True) -> list[str]:
        """Names of the columns, or of the essential ones."""
        every = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in every if roomy or not self.essential or name in self.essential]


def summarise(found: Mapping[str, Mapping[str, Any]]) -> list[Summary]:
    """The tables of stages that gather what others found.

    Args:
        found: The metrics of stages by their names.
    """
    gathering = {
        "tabulate": _study,
        "rank": _search,
        "measure": _measured,
        "compare": _reproduction,
        "answer": _answers,
    }
    return [gathering[stage](metrics) for stage, metrics in found.items() if stage in gathering]


def _study(study: Mapping[str, Any]) -> Summary:
    """A study's mean accuracies: strategies down, numbers of images across."""
    cells: dict[str, dict[str, str]] = {}
    for curve in study["results"]:
        row = cells.setdefault(curve["strategy"], {"Strategy": curve["strategy"]})
        row[_images(curve)] = f"{percent(curve['accuracy'])} ({interval(curve)})"
    gains = {
        _images(gain): f"{100 * gain['removed']:.0f}% "
        f"({100 * gain['low']:.0f} to {100 * gain['high']:.0f})"
        for gain in study["gains"]
    }
    rows = [*cells.values(), {"Strategy": "errors removed by the chosen one", **gains}]
    return Summary("study", "test accuracy, % (interval over seeds)", rows)


def _images(cell: Mapping[str, Any]) -> str:
    return f"{cell['labels']} a class"


def _search(search: Mapping[str, Any]) -> Summary:
    """The candidates of a search, best first."""
    candidates = search["candidates"]
    count = len(candidates)
    title = f"{count} candidates, accuracy in % on held-out images (lowest to highest fold)"
    if search["failed"]:
        title += f"; {search['failed']} failed"
    return Summary("search", title, [_candidate(row) for row in candidates], brief=10)


def _candidate(row: Mapping[str, Any]) -> dict[str, str]:
    settings = {name.replace("_", " "): str(value) for name, value in row["settings"].items()}
    # Such as "fold2: training diverged"; the table of the candidates has all of it.
    fold, _, reason = row["failure"].partition(":")
    accuracy = f"failed in {fold}" if reason else f"{percent(row['accuracy'])} ({interval(row)})"
    return {"Trial": str(row["number"]), "accuracy": accuracy, **settings}


def _measured(measured: Mapping[str, Any]) -> Summary:
    """A checkpoint on the test images of its classes."""
    level = f"{100 * measured['confidence']:g}% interval"
    rows = [
        {"Result": result["name"], "accuracy": percent(result["accuracy"]), level: interval(result)}
        | ({"published": published(result)} if published(result) else {})
        for result in measured["results"]
    ]
    return Summary("measured", "test accuracy, %", rows)


def _reproduction(compared: Mapping[str, Any]) -> Summary:
    """The documents' experiments beside their printed figures."""
    rows = compared["rows"]
    verdicts = [row["verdict"].partition(":")[0] for row in rows]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts))
    title = f"printed figures and ours, accuracy in % (lowest to highest, seeds): {counts}"
    shown = [name for name in RECIPE_COLUMNS if name != "recipe"]
    told = [{"Recipe": row["recipe"], **{name: row[name] for name in shown}} for row in rows]
    essential = ("Recipe", "printed", "ours", "verdict")
    words = ("what", "accuracy", "printed", "verdict")
    return Summary("reproduction", title, told, essential=essential, words=words)


def _answers(answered: Mapping[str, Any]) -> Summary:
    """The documents' questions."""
    level = f"value ({100 * answered['confidence']:g}% interval)"
    rows = [
        {
            "Question": answer["question"],
            "answer": answer["text"],
            "measured": answer["quantity"],
            level: f"{answer['value']:.2f} ({answer['low']:.2f} to {answer['high']:.2f})",
        }
        for answer in answered["answers"]
    ]
    return Summary("answers", "the documents' questions", rows, words=("answer", "measured"))

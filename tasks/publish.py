"""Stage publish: figures and tables as files; and, for every run, as Prefect artifacts."""

import base64
from typing import Any

from artifacts import figures
from artifacts.reference import Ref
from artifacts.runs import RunRecord
from artifacts.store import Store
from artifacts.summary import results_markdown, results_rows, stages_markdown
from tasks.stage import Work, stage

FIGURES = {
    "accuracy-by-cut": "Test accuracy by cut",
    "confusion-matrix": "Confusion matrix of the chosen head",
    "learning-curves": "Learning curves",
}


@stage("publish", label="draw figures and tables")
def publish(
    work: Work, *, pretrained: Ref, heads: Ref, trained: tuple[Ref, ...], evaluation: Ref
) -> dict[str, Any]:
    """Draws the figures and writes the tables."""
    measured = evaluation.metrics
    histories = {
        "pretraining": work.json(pretrained, "history.json"),
        **_shown_histories(work, heads, trained, measured),
    }
    drawn = {
        "learning-curves": figures.learning_curves(histories),
        "confusion-matrix": figures.confusion_matrix(
            measured["confusion"], measured["target_classes"]
        ),
        "accuracy-by-cut": _draw_cuts(measured),
    }
    for name, figure in drawn.items():
        work.save_bytes(f"{name}.png", figures.render(figure, "png"))
    work.save_bytes("results.md", results_markdown(measured).encode())
    return {"figures": sorted(drawn)}


def _shown_histories(
    work: Work, heads: Ref, trained: tuple[Ref, ...], measured: dict[str, Any]
) -> dict[str, Any]:
    """The histories of the chosen one and of the baselines, phases one after the other."""
    histories = {
        f"head on {layer}": history for layer, history in work.json(heads, "history.json").items()
    }
    for ref in trained:
        first = [
            history
            for name, history in work.json(ref, "history.json").items()
            if name.startswith("network1-")
        ]
        histories[ref.metrics["title"]] = {
            name: [value for phase in first for value in phase[name]] for name in first[0]
        }
    return {name: histories[name] for name in (measured["chosen"], *measured["baselines"])}


def _draw_cuts(measured: dict[str, Any]) -> Any:
    fields = ("accuracy", "low", "high")
    points, ranges = [], []
    for result in measured["results"]:
        cut = result["name"].removeprefix("head on ")
        if cut != result["name"]:
            points.append(figures.CutPoint(cut, *(result[field] for field in fields)))
            if "published_low" in result:
                ranges.append(
                    figures.PublishedRange(cut, result["published_low"], result["published_high"])
                )
    baselines = [
        figures.Baseline(result["name"], *(result[field] for field in fields))
        for result in measured["results"]
        if result["name"] in measured["baselines"]
    ]
    return figures.accuracy_by_cut(points, baselines, ranges)


def post_artifacts(store: Store, refs: dict[str, Ref], record: RunRecord) -> None:
    """Shows a run in Prefect's UI: its stages and, where it published any, its results.

    Keys are the same for every run, so the UI shows each as a timeline of versions.
    """
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    published = refs.get("publish")
    text = f"# Run {record.run}\n\n{stages_markdown(record.stages)}"
    if published:
        results = store.read_bytes(published, "results.md").decode()
        text = f"# Run {record.run}\n\n{results}\n{stages_markdown(record.stages)}"
        create_table_artifact(
            table=results_rows(record.results),
            key="results",
            description="Test accuracies with intervals, beside the published ranges",
        )
        for name, title in FIGURES.items():
            # The UI strips inline SVG and cannot reach local files, but shows data URIs.
            image = base64.b64encode(store.read_bytes(published, f"{name}.png")).decode()
            create_markdown_artifact(
                markdown=f"![{title}](data:image/png;base64,{image})", key=name, description=title
            )
    create_markdown_artifact(markdown=text, key="run-summary", description="Stages and results")

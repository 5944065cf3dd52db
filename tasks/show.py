"""A run in Prefect's UI: its results, figures, lineage and files as artifacts.

Keys are the same for every run, so the UI shows each as a timeline of versions.
"""

import base64
from collections.abc import Iterator, Mapping

from artifacts.lineage import diagram, parents
from artifacts.reference import Ref
from artifacts.runs import RunRecord, report_path
from artifacts.store import Store
from artifacts.summary import (
    class_rows,
    listed,
    mistakes_table,
    results_rows,
    results_table,
    stages_markdown,
    table,
)

Refs = Mapping[str, Ref]


def post_artifacts(store: Store, refs: Refs, record: RunRecord) -> None:
    """Shows a run: its stages and, where it published any, its results.

    Raises:
        DamagedEntry: If anything published is not what was stored.
    """
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    published = refs.get("publish")
    for name in published.files if published else ():
        store.file(published, name)  # type: ignore[arg-type] # Empty without it.
    about = f"Run {record.run}: "
    for key, title, text in _markdown(store, refs, record):
        create_markdown_artifact(markdown=text, key=key, description=about + title)
    if published:
        rows = results_rows(record.results)
        title = "test accuracies with intervals, beside the published ranges"
        create_table_artifact(table=rows, key="results", description=about + title)
    evaluation = refs.get("evaluate")
    if evaluation and "per_class" in evaluation.metrics:
        title = f"classes as {evaluation.metrics['chosen']} tells them apart"
        rows = class_rows(evaluation.metrics)
        create_table_artifact(table=rows, key="per-class", description=about + title)


def _markdown(store: Store, refs: Refs, record: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Key, title and text of each artifact that is a text."""
    published, evaluation = refs.get("publish"), refs.get("evaluate")
    for figure in published.metrics.get("figures", ()) if published else ():
        # The UI strips inline SVG and cannot reach local files, but shows data URIs.
        image = store.read_bytes(published, f"{figure['name']}.png")  # type: ignore[arg-type]
        text = f"![{figure['title']}](data:image/png;base64,{base64.b64encode(image).decode()})"
        yield figure["name"], figure["title"], f"{text}\n\n{figure['alt']}\n"
    if evaluation and "mistakes" in evaluation.metrics:
        yield "mistakes-table", "most confident mistakes", mistakes_table(evaluation.metrics)
    yield "lineage", "what was made from what", _lineage(store, refs)
    yield "files", "where the results lie", _files(store, refs, record)
    yield "run-summary", "stages and results", _summary(refs, record)


def _summary(refs: Refs, record: RunRecord) -> str:
    parts = [f"# Run {record.run}"]
    evaluation = refs.get("evaluate")
    if evaluation and "chosen" in evaluation.metrics:
        measured = evaluation.metrics
        chosen = f"Test accuracy in %; `{measured['chosen']}` was chosen on validation images."
        parts += [f"**{measured['gain']['sentence']}**", chosen, results_table(measured)]
    parts += ["What ran, and why:", stages_markdown(record.stages)]
    return "\n\n".join(parts)


def _lineage(store: Store, refs: Refs) -> str:
    found = {name: store.manifest(name, ref.key) for name, ref in refs.items()}
    entries = {name: manifest for name, manifest in found.items() if manifest}
    rows = (
        (name, listed(parents(m)), f"`{m.ref.digest[:12]}`", f"`{m.ref.key[:12]}`", m.created[:19])
        for name, m in entries.items()
    )
    told = table(("stage", "made from", "digest", "key", "made, UTC"), rows)
    # Prefect's newer pages draw this; the older ones, which ask no other site, show its text.
    return f"{told}\n\n```mermaid\n{diagram(entries)}```\n"


def _files(store: Store, refs: Refs, record: RunRecord) -> str:
    """Paths rather than links: a page of the UI may not open local files."""
    lines = [f"Report: `{report_path(store.root, record.run)}`", ""]
    for name, ref in refs.items():
        lines.append(f"- `{store.entry_path(name, ref.key)}`: {', '.join(ref.files)}")
    return "\n".join(lines) + "\n"

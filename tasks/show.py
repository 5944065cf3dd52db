"""A run in Prefect's UI: its results, figures, lineage and files as artifacts.

Keys are the same for every run, so the UI shows each as a timeline of versions.
"""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from artifacts.lineage import diagram, parents
from artifacts.reference import Ref
from artifacts.runs import RunRecord, report_path
from artifacts.store import Store
from artifacts.summary import (
    class_rows,
    listed,
    mistake_rows,
    results_rows,
    results_table,
    stages_markdown,
    summarise,
    table,
)

Refs = Mapping[str, Ref]
Shown = tuple[str, str, str]


def post_artifacts(store: Store, refs: Refs, record: RunRecord) -> None:
    """Shows a run: its stages and, where it published any, its results.

    Raises:
        DamagedEntry: If anything published is not what was stored.
    """
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    measured = _measured(refs)
    about = f"Run {record.run}: "
    for key, title, text in _texts(store, refs, record):
        create_markdown_artifact(markdown=text, key=key, description=about + title)
    for key, title, rows in _tables(measured) if measured else ():
        create_table_artifact(table=rows, key=key, description=about + title)


def post_summaries(store: Store, refs: Refs, record: RunRecord) -> None:
    """Shows what many trainings gave together, such as a study's: figures and tables."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    for ref in refs.values():
        for key, title, text in _figures(store, ref) if "figures" in ref.metrics else ():
            create_markdown_artifact(markdown=text, key=key, description=title)
    for summary in summarise({name: ref.metrics for name, ref in refs.items()}):
        rows = [dict(row) for row in summary.rows]
        title = f"Run {record.run}: {summary.title}"
        create_table_artifact(table=rows, key=summary.key, description=title)


def _measured(refs: Refs) -> dict[str, Any]:
    return refs["evaluate"].metrics if "evaluate" in refs else {}


def _texts(store: Store, refs: Refs, record: RunRecord) -> Iterator[Shown]:
    """Key, title and text of each artifact that is a text."""
    if "publish" in refs:
        yield from _figures(store, refs["publish"])
    yield "lineage", "what was made from what", _lineage(store, refs)
    yield "files", "where the results lie", _files(store, refs, record)
    yield "run-summary", "stages and results", _summary(_measured(refs), record)


def _tables(measured: Mapping[str, Any]) -> Iterator[tuple[str, str, list[dict[str, str]]]]:
    """Key, title and rows of each artifact that is a table."""
    title = "test accuracies with intervals, beside the published ranges"
    yield "results", title, results_rows(measured["results"])
    title = f"classes as {measured['chosen']} tells them apart"
    yield "per-class", title, class_rows(measured)
    yield "mistakes-table", "most confident mistakes", mistake_rows(measured)


def _figures(store: Store, drawn: Ref) -> Iterator[Shown]:
    # Damage to what is not shown here is found here as well, and healed.
    for name in drawn.files:
        store.file(drawn, name)
    for figure in drawn.metrics["figures"]:
        # The UI strips inline SVG and cannot reach local files, but shows data URIs.
        image = base64.b64encode(store.read_bytes(drawn, f"{figure['name']}.png")).decode()
        text = f"![{figure['title']}](data:image/png;base64,{image})\n\n{figure['alt']}\n"
        yield figure["name"], figure["title"], text


def _summary(measured: Mapping[str, Any], record: RunRecord) -> str:
    parts = [f"# Run {record.run}"]
    if measured:
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

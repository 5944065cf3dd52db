"""A run as one HTML page that needs no network: read from the store, made in milliseconds.

Figures come from the stages that drew them. What belongs to the run alone (which stages ran, why,
how long) comes from its record, so that the page says the truth of a run in which everything was
cached.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from artifacts.files import write_atomic
from artifacts.garbage import describe_size
from artifacts.lineage import parents
from artifacts.reference import Ref
from artifacts.runs import RunRecord, report_path
from artifacts.store import DamagedEntry, Manifest, Store, StoreError
from artifacts.summary import brief, interval, percent, published, summarise

TEMPLATES = Path(__file__).parent / "templates"

# What a page with results needs of an evaluation.
MEASURED = {"results", "chosen", "gain", "confusion", "per_class", "mistakes", "target_classes"}

WANTED = (
    *("model-card.md", "model.keras", "history.csv", "evaluation.json", "results.md"),
    *("best.toml", "candidates.csv", "cells.csv"),
)

STATUS = {
    "running": "This run is still going on; the page shows what is there.",
    "failed": "This run failed. The page shows what it had finished.",
    "interrupted": "This run was interrupted. The page shows what it had finished.",
    "died": "This run's process died. The page shows what it had finished.",
}


@dataclass(frozen=True)
class Figure:
    """A figure as the page shows it.

    Attributes:
        name: Unique in the page.
        title: A few words.
        alt: What it shows, in words.
        svg: The drawing as markup; None where the store cannot give it.
    """

    name: str
    title: str
    alt: str
    svg: Markup | None


def save_report(store: Store, record: RunRecord) -> Path:
    """Writes the page beside the run's record; into a folder of its own if that cannot be.

    Returns:
        Where it lies.
    """
    path = report_path(store.root, record.run)
    try:
        write_atomic(path, render(store, record).encode(), durable=False)
    except OSError:
        # Whoever may only read a store may still look at its runs.
        path = Path(tempfile.mkdtemp(prefix="headstart-")) / path.name
        path.write_text(render(store, record, store.root.absolute().as_uri()), encoding="utf-8")
    return path


def render(store: Store, record: RunRecord, root: str = "..") -> str:
    """The page about a run.

    Args:
        store: Where its results lie.
        record: What it did.
        root: Address of the store's folder, for links to files.
    """
    entries = {
        stage.name: manifest
        for stage in record.stages
        if (manifest := store.manifest(stage.name, stage.key))
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(brief=brief, percent=percent, interval=interval, published=published)
    return environment.get_template("report.html").render(
        run=record,
        status=STATUS.get(record.status, ""),
        entries=entries,
        missing=[s.name for s in record.stages if s.name not in entries],
        evaluation=_evaluation(entries),
        summaries=summarise({name: entry.ref.metrics for name, entry in entries.items()}),
        figures=[
            figure
            for entry in entries.values()
            if "figures" in entry.ref.metrics
            for figure in _figures(store, entry.ref)
        ],
        files=list(_files(entries, root)),
        hosts=_grouped(entries, "host"),
        versions=_grouped(entries, "versions"),
        parents=parents,
    )


def _evaluation(entries: Mapping[str, Manifest]) -> dict[str, Any] | None:
    """What was measured; of another release's evaluation, which measured other things, nothing."""
    measured = entries["evaluate"].ref.metrics if "evaluate" in entries else {}
    return measured if measured.keys() >= MEASURED else None


def _figures(store: Store, drawn: Ref) -> Iterator[Figure]:
    for told in drawn.metrics["figures"]:
        try:
            svg = store.read_bytes(drawn, f"{told['name']}.svg")
            drawing = _inline(svg.decode(), told["name"])
        except (DamagedEntry, StoreError):
            drawing = None
        yield Figure(told["name"], told["title"], told.get("alt", told["title"]), drawing)


def _inline(svg: str, name: str) -> Markup:
    """A drawing as part of a page: as wide as it fits, its ids its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    head, end, rest = body.partition(">")
    wide = re.search(r' width="([0-9.]+)pt"', head)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    head += f' style="--natural: {wide[1]}pt"' if wide else ""
    rest = re.sub(r'(?<= id=")', f"{name}-", rest)
    rest = re.sub(r'(?<=href="#)|(?<=url\(#)', f"{name}-", rest)
    label = f' role="img" aria-labelledby="{name}-title" aria-describedby="{name}-alt"'
    # Drawn by ourselves and checked against its digest; escaping would show it as text.
    return Markup(head + label + end + rest)  # noqa: S704


def _files(entries: Mapping[str, Manifest], root: str) -> Iterator[tuple[str, str, str]]:
    """Name, address and size of each file that a reader may want."""
    for stage, manifest in entries.items():
        ref = manifest.ref
        for name in WANTED:
            if name in ref.files:
                address = f"{root}/{quote(f'{stage}/{ref.key}/{name}')}"
                yield f"{stage}: {name}", address, describe_size(ref.files[name].size)


def _grouped(entries: Mapping[str, Manifest], what: str) -> list[tuple[dict[str, Any], list[str]]]:
    """Facts of the entries, each set of them once, with the stages they hold for."""
    groups: list[tuple[dict[str, Any], list[str]]] = []
    for name, manifest in entries.items():
        facts = getattr(manifest, what)
        for known, stages in groups:
            if known == facts:
                stages.append(name)
                break
        else:
            groups.append((facts, [name]))
    return groups

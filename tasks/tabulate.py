"""Stage tabulate: a study's cells as one tidy table, and its curves with intervals over seeds."""

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from artifacts import figures
from artifacts.reference import Ref
from tasks.stage import Work, stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = "head on "
# Seed, images of each class as asked for, strategy.
Cell = tuple[int, int, str]


@stage("tabulate", label="tabulate {grid}", libraries=("matplotlib", "pandas"))
def tabulate(
    work: Work,
    *,
    evaluations: tuple[Ref, ...],
    trained: tuple[Ref, ...],
    grid: tuple[tuple[int, int], ...],
    confidence: float,
) -> dict[str, Any]:
    """Writes every cell's accuracy and seconds as CSV and Parquet, and draws the curves."""
    import pandas as pd

    seconds = dict(_seconds(work, trained))
    rows: dict[Cell, dict[str, Any]] = {}
    for (seed, labels), evaluation in zip(grid, evaluations, strict=True):
        for row in _rows(evaluation.metrics, seed, labels):
            rows[seed, labels, row["strategy"]] = row
    table = pd.DataFrame(
        [{**row, "seconds": seconds.get(cell)} for cell, row in rows.items()]
    ).sort_values(["strategy", "labels", "seed"], kind="stable")
    table.to_csv(work.path("cells.csv"), index=False)
    table.to_parquet(work.path("cells.parquet"), index=False)
    # How long it took is no part of what was found.
    work.draft.volatile = ("cells.csv", "cells.parquet")
    curves = list(_curves(list(rows.values()), confidence))
    drawn = []
    for name, title, figure in _draw(curves):
        for kind in ("png", "svg"):
            work.save_bytes(f"{name}.{kind}", figures.render(figure, kind))
        alt = "Means over the seeds, with their intervals, beside the baselines."
        drawn.append({"name": name, "title": title, "alt": alt})
    gains = list(_gains(grid, evaluations, confidence))
    return {"results": curves, "gains": gains, "cells": len(rows), "figures": drawn}


def _draw(curves: list[dict[str, Any]]) -> Iterator[tuple[str, str, "Figure"]]:
    """The curves over numbers of images, and over cuts for each number of images."""
    points: dict[str, list[figures.CurvePoint]] = defaultdict(list)
    cuts: dict[int, list[figures.CutPoint]] = defaultdict(list)
    baselines: dict[int, list[figures.Baseline]] = defaultdict(list)
    for curve in curves:
        name, labels = curve["strategy"], curve["labels"]
        values = curve["accuracy"], curve["low"], curve["high"]
        points[name].append(figures.CurvePoint(labels, *values))
        if name.startswith(HEAD):
            cuts[labels].append(figures.CutPoint(name.removeprefix(HEAD), *values))
        elif curve["baseline"]:
            baselines[labels].append(figures.Baseline(name, *values))
    best = _best_heads(points)
    shown = {name: found for name, found in points.items() if not name.startswith(HEAD)} | best
    lines = [figures.Curve(name, found) for name, found in shown.items()]
    yield "label-efficiency", "Error by labelled images", figures.label_efficiency(lines)
    for labels, heads in cuts.items():
        title = f"Accuracy by cut, {labels} images of each class"
        yield f"accuracy-by-cut-{labels}", title, figures.accuracy_by_cut(heads, baselines[labels])


def _best_heads(
    points: dict[str, list[figures.CurvePoint]],
) -> dict[str, list[figures.CurvePoint]]:
    """The cut whose heads do best on average: one line, not one for each layer."""
    heads = {name: found for name, found in points.items() if name.startswith(HEAD)}
    if not heads:
        return {}
    best = max(heads, key=lambda name: sum(point.accuracy for point in heads[name]))
    return {best: heads[best]}


def _rows(evaluation: dict[str, Any], seed: int, labels: int) -> Iterator[dict[str, Any]]:
    for result in evaluation["results"]:
        if result["name"] != "pretrained":
            yield {
                "strategy": result["name"],
                "labels": _images(evaluation, labels),
                "seed": seed,
                "accuracy": result["accuracy"],
                "baseline": result["name"] in evaluation["baselines"],
            }


def _seconds(work: Work, trained: tuple[Ref, ...]) -> Iterator[tuple[Cell, float]]:
    """How long each training took when it was computed; heads share their stage's time."""
    for ref in trained:
        manifest = work.store.manifest(ref.stage, ref.key)
        if manifest:
            seed, labels = (
                manifest.settings["run.seed"],
                manifest.inputs["split"].metrics["few_shot"],
            )
            titles = [f"head on {layer}" for layer in ref.metrics.get("layers", ())]
            titles = titles or [ref.metrics["title"]]
            for title in titles:
                yield (seed, labels, title), manifest.seconds / len(titles)


def _curves(rows: list[dict[str, Any]], confidence: float) -> Iterator[dict[str, Any]]:
    """Mean accuracy over the seeds for each strategy and number of labels."""
    from models.intervals import mean_interval

    found: dict[tuple[str, int, bool], list[float]] = defaultdict(list)
    for row in rows:
        found[row["strategy"], row["labels"], row["baseline"]].append(row["accuracy"])
    for (strategy, labels, baseline), values in found.items():
        mean, low, high = mean_interval(values, confidence)
        yield {
            "name": f"{strategy}, {labels} images of each class",
            "strategy": strategy,
            "labels": labels,
            "baseline": baseline,
            "accuracy": mean,
            # Of a few seeds the interval may reach beyond what an accuracy can be.
            "low": max(low, 0.0),
            "high": min(high, 1.0),
            "seeds": len(values),
        }


def _gains(
    grid: tuple[tuple[int, int], ...], evaluations: tuple[Ref, ...], confidence: float
) -> Iterator[dict[str, Any]]:
    """For each number of images what the evaluations say is gained, over the seeds.

    Of several cuts the first counts, which is that of the settings.
    """
    from models.intervals import mean_interval

    gained: dict[int, dict[int, float]] = defaultdict(dict)
    for (seed, labels), evaluation in zip(grid, evaluations, strict=True):
        measured = evaluation.metrics
        gained[_images(measured, labels)].setdefault(seed, measured["gain"]["removed"])
    for images, removed in gained.items():
        mean, low, high = mean_interval(list(removed.values()), confidence)
        yield {"labels": images, "removed": mean, "low": low, "high": high, "seeds": len(removed)}


def _images(evaluation: dict[str, Any], labels: int) -> int:
    """Training images of each class, where 0 asked for all."""
    return labels or int(evaluation["train_rows"] // len(evaluation["target_classes"]))

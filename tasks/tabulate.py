"""Stage tabulate: a study's cells as one tidy table, and its curves with intervals over seeds."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from artifacts import figures
from artifacts.reference import Ref
from tasks.stage import Work, stage

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
    drawn = {
        "label-efficiency": figures.label_efficiency(curves),
        "accuracy-by-cut-and-labels": figures.cuts_by_labels(curves),
    }
    for name, figure in drawn.items():
        for kind in ("png", "svg"):
            work.save_bytes(f"{name}.{kind}", figures.render(figure, kind))
    work.save_json("curves.json", curves)
    return {"curves": curves, "gains": list(_gains(rows)), "cells": len(rows)}


def _rows(evaluation: dict[str, Any], seed: int, labels: int) -> Iterator[dict[str, Any]]:
    for result in evaluation["results"]:
        if result["name"] != "pretrained":
            yield {
                "strategy": result["name"],
                "labels": labels,
                "seed": seed,
                "accuracy": result["accuracy"],
                "test_rows": result["rows"],
                "baseline": result["name"] in evaluation["baselines"],
                "chosen": result["name"] == evaluation["chosen"],
            }


def _seconds(work: Work, trained: tuple[Ref, ...]) -> Iterator[tuple[Cell, float]]:
    """How long each training took when it was computed; heads share their stage's time."""
    for ref in trained:
        manifest = work.store.manifest(ref.stage, ref.key)
        if manifest:
            seed, labels = manifest.settings["run.seed"], manifest.inputs["split"].metrics["few_shot"]
            titles = [f"head on {layer}" for layer in ref.metrics.get("layers", ())]
            titles = titles or [ref.metrics["title"]]
            for title in titles:
                yield (seed, labels, title), manifest.seconds / len(titles)


def _curves(rows: list[dict[str, Any]], confidence: float) -> Iterator[dict[str, Any]]:
    """Mean accuracy over the seeds for each strategy and number of labels."""
    from models.intervals import mean_interval

    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        found[row["strategy"], row["labels"]].append(row["accuracy"])
    for (strategy, labels), values in found.items():
        mean, low, high = mean_interval(values, confidence)
        yield {
            "strategy": strategy,
            "labels": labels,
            "accuracy": mean,
            "low": low,
            "high": high,
            "seeds": len(values),
        }


def _gains(rows: dict[Cell, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each cell the share of the better baseline's errors that the chosen one removes."""
    cells: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for (seed, labels, _), row in rows.items():
        cells[seed, labels].append(row)
    for (seed, labels), group in cells.items():
        best = max((row for row in group if row["baseline"]), key=lambda row: row["accuracy"])
        chosen = next(row for row in group if row["chosen"])
        errors = max(1 - best["accuracy"], 1 / best["test_rows"])
        yield {
            "seed": seed,
            "labels": labels,
            "chosen": chosen["strategy"],
            "baseline": best["strategy"],
            "removed": (chosen["accuracy"] - best["accuracy"]) / errors,
        }

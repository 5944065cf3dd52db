"""Stage compare: every recipe's figures beside the printed ones, with its verdict."""

from collections.abc import Iterator, Mapping
from typing import Any

from artifacts.reference import Ref
from artifacts.summary import RECIPE_COLUMNS, percent, table
from models.config import Section
from models.recipe import QUANTITIES, Quantity, Recipe
from models.verdicts import DRAWN, NOT_RUN, compare_figures, give_verdict
from tasks.found import Found, read_found
from tasks.stage import Work, stage

Row = dict[str, str]


class Absent(Section):
    """A recipe that could not be run, and why."""

    recipe: str
    reason: str


@stage("compare", label="compare with what was printed", libraries=("pandas",))
def compare(
    work: Work,
    *,
    recipes: tuple[Recipe, ...],
    assessed: tuple[Ref, ...],
    absent: tuple[Absent, ...],
) -> dict[str, Any]:
    """Gives every recipe its verdict, also those that could not be run."""
    import pandas as pd

    found = read_found(work, assessed)
    reasons = {each.recipe: each.reason for each in absent}
    rows = [row for recipe in recipes for row in _rows(recipe, found.get(recipe.id), reasons)]
    frame = pd.DataFrame(rows, columns=list(RECIPE_COLUMNS))
    frame.to_csv(work.path("recipes.csv"), index=False)
    frame.to_parquet(work.path("recipes.parquet"), index=False)
    lines = [[row[name] for name in RECIPE_COLUMNS] for row in rows]
    work.save_bytes("recipes.md", table(RECIPE_COLUMNS, lines).encode())
    return {"rows": rows}


def _rows(recipe: Recipe, found: Found | None, reasons: Mapping[str, str]) -> Iterator[Row]:
    what = recipe.title + (f" (as printed: {recipe.defect})" if recipe.defect else "")
    row = dict.fromkeys(RECIPE_COLUMNS, "") | {"recipe": recipe.id, "what": what}
    if found is None:
        reason = reasons.get(recipe.id)
        yield row | {"verdict": f"{NOT_RUN}: {reason}" if reason else DRAWN}
        return
    asked: list[tuple[Quantity, tuple[float, ...]]] = [
        (printed.quantity, printed.values) for printed in recipe.printed
    ]
    for quantity, percents in asked or [("test", ())]:
        values = [value / 100 for value in percents]
        ours = found.of(quantity)
        compared = compare_figures(values, ours, found.rows_of(quantity))
        yield row | {
            "accuracy": QUANTITIES[quantity],
            "printed": ", ".join(f"{100 * value:.2f}" for value in values),
            "ours": f"{percent(compared.ours)} ({percent(compared.low)} to "
            f"{percent(compared.high)}, {len(ours)})",
            "difference": ""
            if compared.difference is None
            else f"{100 * compared.difference:+.2f}",
            "verdict": give_verdict(recipe, compared, found.note),
            "seconds": f"{sum(found.seconds):.0f}",
        }

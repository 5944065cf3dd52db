"""Commands about the champion: ``models``, ``promote``, ``rollback``, ``predict``, ``export``."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table

from artifacts import registry
from artifacts.registry import Promotion
from artifacts.summary import percent
from flows import champions
from flows.options import DONE, Json, StorePath, open_store, print_json
from flows.terminal import Screen

Why = Annotated[str, Parameter("--why", help="The reason, for the history.")]
KEY_LENGTH = 12


def register(app: App) -> None:
    """Adds the commands to the command line."""
    for command in (models, promote, rollback, predict, export):
        app.command(command)


def models(*, store: StorePath = None, as_json: Json = False) -> int:
    """List the packaged models and who made which of them champion, when and why."""
    place = open_store(store)
    found, decisions = champions.list_models(place), champions.list_decisions(place)
    if as_json:
        return print_json({"models": found, "history": decisions})
    screen = Screen()
    if not found:
        screen.print(f"no models in {place.root}; headstart promote latest makes one")
        return DONE
    table = make_table("model", "", "all", "target", "source", "made")
    for row in found:
        accuracies = [
            percent(row[name]) for name in ("accuracy", "target_accuracy", "source_accuracy")
        ]
        mark = "champion" if row["champion"] else ""
        table.add_row(row["key"][:KEY_LENGTH], mark, *accuracies, row["created"][:16])
    screen.print(table)
    screen.print()
    table = make_table("when", "", "model", "who", "why")
    for row in decisions:
        key = row["key"][:KEY_LENGTH]
        table.add_row(row["when"][:16], row["action"], key, row["who"], row["why"])
    screen.print(table)
    return DONE


def promote(
    name: Annotated[str, Parameter(help="A model's key or its beginning, a run, or latest.")],
    /,
    *,
    why: Why = "by hand",
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Make a model the champion: the one that predict and export use."""
    place = open_store(store)
    model = champions.find_candidate(place, name)
    return _tell(registry.promote(place, model, champions.whoami(), why), as_json)


def rollback(*, why: Why = "by hand", store: StorePath = None, as_json: Json = False) -> int:
    """Make the champion before this one champion again."""
    done = registry.rollback(open_store(store), champions.whoami(), why)
    return _tell(done, as_json)


def predict(
    *images: Annotated[Path, Parameter(help="PNG files, folders of them, .npz or .csv files.")],
    classes: Annotated[
        Literal["target", "source"],
        Parameter(help="Which of its two classifiers answers.", show_default=True),
    ] = "target",
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Say what the champion makes of images: a class and how probable it is."""
    answers = champions.predict(open_store(store), images, classes)
    if as_json:
        return print_json({"predictions": [asdict(answer) for answer in answers]})
    for answer in answers:
        sys.stdout.write(f"{answer.name}: {answer.label} ({percent(answer.probability)} %)\n")
    return DONE


def export(
    folder: Annotated[Path, Parameter(help="A new folder.")], /, *, store: StorePath = None
) -> int:
    """Write the champion as .keras files and SavedModels, for others to load."""
    for place in champions.export(open_store(store), folder):
        sys.stdout.write(f"{place}\n")
    return DONE


def _tell(done: Promotion, as_json: bool) -> int:
    if as_json:
        return print_json(done.model_dump(mode="json"))
    sys.stdout.write(f"champion: {done.model.key[:KEY_LENGTH]} ({done.action}, {done.why})\n")
    return DONE


def make_table(*titles: str) -> Table:
    """A table without lines whose first two columns are never broken."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        table.add_column(title, no_wrap=title in titles[:2], overflow="fold")
    return table

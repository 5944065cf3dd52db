"""Commands about datasets: ``fetch``, the only one that goes to the network for images."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from flows.importing import import_libraries
from flows.options import DONE
from flows.terminal import Screen
from models.datasets import fetch_dataset


def register(app: App) -> None:
    """Adds the commands to the command line."""
    app.command(fetch)


def fetch(
    name: Annotated[Literal["fashion-mnist"], Parameter(help="What is to be fetched.")], /
) -> int:
    """Fetch a dataset that is not bundled, by way of Keras, and check it."""
    import_libraries()  # In silence, which Keras alone would not keep.
    fetch_dataset(name)
    Screen().print(f"{name} is on this machine: headstart run --set data.dataset={name}")
    return DONE

"""What several modules of commands share: options, the store, the settings, JSON."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from artifacts.store import Store
from flows.preflight import default_store
from flows.selection import Rerun, read_graph, select
from models.config import Config, ConfigError, load_config

DONE, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

ConfigFile = Annotated[
    Path | None, Parameter("--config", help="TOML file with settings; see headstart config.")
]
Settings = Annotated[
    list[str] | None,
    Parameter("--set", help="A setting, such as pretrain.patience=5. May be repeated."),
]
Seed = Annotated[int | None, Parameter(help="Short for --set run.seed=N.")]
Tiny = Annotated[
    bool, Parameter(help="The same stages on a few hundred images: seconds, poor accuracy.")
]
Preset = Annotated[
    str, Parameter(help="Settings to start from: published is the original notebook's protocol.")
]
StorePath = Annotated[
    Path | None,
    Parameter(
        "--store",
        help="Folder of the results. Otherwise HEADSTART_STORE, else artifacts/store.",
    ),
]
Json = Annotated[bool, Parameter("--json", help="One JSON document on standard output.")]


def print_json(value: object) -> int:
    """Prints a value as JSON; gives the exit code for done."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
    return DONE


def read_config(
    file: Path | None,
    settings: Sequence[str] | None,
    seed: int | None,
    tiny: bool,
    preset: str = "",
    rerun: Rerun | None = None,
) -> Config:
    """The settings that a command line asks for.

    Raises:
        ConfigError: With everything that is wrong with them.
    """
    overrides = list(settings or ())
    if seed is not None:
        overrides.append(f"run.seed={seed}")
    try:
        return load_config(file, overrides, tiny, preset)
    except ConfigError as error:
        # All that is wrong with a command line is told at once.
        problems = list(error.problems)
        try:
            select(rerun or Rerun(), read_graph(Config()))
        except ConfigError as further:
            problems += further.problems
        raise ConfigError(problems) from None


def open_store(path: Path | None) -> Store:
    """The store that ``--store`` names, else the usual one."""
    return Store((path or default_store()).expanduser().absolute())

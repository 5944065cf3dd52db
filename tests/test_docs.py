import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.selection import read_graph
from models.config import Config
from models.recipe import load_recipes
from models.strategies import BASELINES, describe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_picture_of_the_stages_is_the_pipeline():
    drawn = set(re.findall(r"^  (\S+) --> (\S+)$", README, re.MULTILINE))
    graph = read_graph(Config())
    assert drawn == {(parent, stage) for stage, parents in graph.items() for parent in parents}


def test_every_stage_is_described():
    described = {
        name.strip()
        for row in re.findall(r"^\| ([a-z, -]+) \|", README, re.MULTILINE)
        for name in row.split(",")
    }
    assert set(read_graph(Config())) <= described


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_the_make_targets_exist(command):
    assert f"\n{command.removeprefix('make ')}:" in MAKEFILE


def test_the_results_tables_have_every_result():
    config = Config()
    titles = [describe(name, config.transfer) for name in config.transfer.strategies]
    baselines = [describe(name, config.transfer) for name in BASELINES]
    heads = [f"head on {layer}" for layer in config.cuts]
    results = README.partition("## What to expect")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| (.+?) \| \d", results, re.MULTILINE)
    assert shown == ["pretrained", *heads, *titles, *baselines, "pretrained", *heads, *baselines]


def test_the_table_of_recipes_hides_none():
    table = README.partition("<!-- reproduce: begin -->")[2].partition("<!-- reproduce: end -->")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if "|" in line]
    assert list(dict.fromkeys(rows[2:])) == [recipe.id for recipe in load_recipes()]


@pytest.mark.slow
def test_the_other_commands_run_in_their_order(tmp_path):
    script = "\n".join(["set -e", *(c for c in COMMANDS if not c.startswith("make"))])
    # Whichever port was free, `headstart ui` says so; the README shows the usual one.
    script = script.replace("PREFECT_API_URL=http://127.0.0.1:4200/api", "PREFECT_API_URL=$(api)")
    api = "api() { headstart ui | sed -n 's|^Prefect: \\(.*\\)|\\1/api|p'; }\n"
    # Shrunk where the command can be; test_full_size.py has the whole of it.
    shrink = (
        "headstart() {\n"
        'case "$1 $*" in *--tiny*) command headstart "$@";;\n'
        '"run "*|"config "*|"nightly "*|"status "*) command headstart "$@" --tiny;;\n'
        '*) command headstart "$@";; esac; }\n'
    )
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "HEADSTART_STORE": str(tmp_path / "store"),
        "BROWSER": "true",  # The command, which opens nothing.
    }
    environment.pop("PREFECT_API_URL", None)
    (tmp_path / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    try:
        done = subprocess.run(
            ["bash", "-c", shrink + api + script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    finally:
        subprocess.run(["headstart", "ui", "--stop"], env=environment, check=True)

"""The README's table of recipes: ``python -m benchmarks.recipes`` runs what is missing, writes it.

The options are those of ``headstart reproduce``. Results are cached in the store.
"""

import json
import subprocess
import sys
from pathlib import Path

from artifacts.store import Store
from flows.preflight import default_store

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- reproduce: begin -->\n", "<!-- reproduce: end -->\n"


def make_table(options: list[str]) -> str:
    """Runs the recipes; the table that stage compare has made of them, as Markdown."""
    command = [sys.executable, "-m", "flows.cli", "reproduce", "--json", "--quiet", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    (compared,) = (s for s in json.loads(done.stdout)["stages"] if s["name"] == "compare")
    store = Store(default_store())
    return (store.entry_path("compare", compared["key"]) / "recipes.md").read_text()


def write_table(readme: str, table: str) -> str:
    """The README with the table in its place."""
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(write_table(README.read_text(), make_table(sys.argv[1:])))

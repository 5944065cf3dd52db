"""What it costs to show a run: figures, tables, cards, Prefect artifacts, live progress, report.

``python benchmarks/showing.py`` runs the pipeline as a user does, each time in a fresh store and
then again with nothing to do, and prints the seconds of each part and their share of the whole
process: medians over the rounds. Matplotlib's import counts, although it is over before the server
has started. ``--tiny`` takes the shrunk pipeline; a number sets the rounds.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PARTS = (
    "importing matplotlib",
    "stage publish",
    "Prefect artifacts",
    "report page",
    "live progress",
)

# Runs the command with a stopwatch on what shows a run; nothing of it is imported but for that.
CHILD = """
import atexit, json, sys, time
import artifacts.report, flows.live, tasks.show

spent = {}

def timed(owner, name, part, clock):
    function = getattr(owner, name)
    def call(*arguments):
        began = clock()
        try:
            return function(*arguments)
        finally:
            spent[part] = spent.get(part, 0.0) + clock() - began
    setattr(owner, name, call)

timed(tasks.show, "post_artifacts", "Prefect artifacts", time.perf_counter)
timed(artifacts.report, "save_report", "report page", time.perf_counter)
# It waits most of the time, in a thread of its own: what it takes from training is its work.
timed(flows.live.LiveProgress, "_talk", "live progress", time.thread_time)
atexit.register(lambda: open(sys.argv.pop(), "w").write(json.dumps(spent)))

from flows.cli import main
main(sys.argv[1:-1])
"""


IMPORT = """
import time, numpy
began = time.perf_counter()
import matplotlib.figure, matplotlib.backends.backend_svg
print(time.perf_counter() - began)
"""


def import_seconds() -> float:
    """Seconds that matplotlib takes to import, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True)
    return float(done.stdout)


def measure(folder: Path, *options: str) -> dict[str, float]:
    """Seconds of the whole process and of each part, for one run."""
    spent = folder / "spent.json"
    command = [sys.executable, "-c", CHILD, "run", "--json", "--quiet", *options, str(spent)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - began
    stages = {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}
    parts = dict.fromkeys(PARTS, 0.0) | json.loads(spent.read_text())
    if stages["publish"]["state"] != "cached":
        parts["stage publish"] = stages["publish"]["seconds"]
        parts["importing matplotlib"] = import_seconds()
    return {"whole process": whole, "all parts": sum(parts.values()), **parts}


def main() -> None:
    """Prints the table."""
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    rounds = next((int(word) for word in sys.argv[1:] if word.isdigit()), 3)
    found: dict[str, list[dict[str, float]]] = {"cold": [], "nothing to do": []}
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            folder = Path(name) / str(number)
            folder.mkdir()
            os.environ.update(
                PREFECT_HOME=f"{name}/prefect",
                HEADSTART_STORE=f"{folder}/store",
                MPLCONFIGDIR=f"{name}/matplotlib",
            )
            for kind in found:
                found[kind].append(measure(folder, *options))
    print("| seconds, median | cold | share, % | nothing to do |\n| --- | --- | --- | --- |")
    for part in ("whole process", *PARTS, "all parts"):
        cold = median(run[part] for run in found["cold"])
        share = 100 * median(run[part] / run["whole process"] for run in found["cold"])
        idle = median(run[part] for run in found["nothing to do"])
        print(f"| {part} | {cold:.2f} | {share:.1f} | {idle:.2f} |")


if __name__ == "__main__":
    main()

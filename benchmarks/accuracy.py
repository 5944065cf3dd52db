"""The tables of expected results: the pipeline over several seeds.

``python -m benchmarks.accuracy [SEEDS] [OPTIONS]`` prints Markdown; the options are those of
``headstart run``, such as ``--preset published``. Results are cached in the store, so a further
seed costs only itself.
"""

import json
import subprocess
import sys
from statistics import median
from typing import Any

from models.intervals import mean_interval

SEEDS = 10
BASELINES = ("softmax on pixels", "from scratch")
Results = dict[str, dict[str, Any]]


def run_seed(seed: int, options: list[str]) -> Results:
    """Runs the pipeline; its test accuracies by name."""
    command = [sys.executable, "-m", "flows.cli", "run", "--json", "--quiet", "--seed", str(seed)]
    done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE)
    return {result["name"]: result for result in json.loads(done.stdout)["results"]}


def main(seeds: int, options: list[str]) -> None:
    """Prints a row for each result: lowest, median, highest, and errors removed, in percent."""
    runs = [run_seed(seed, options) for seed in range(seeds)]
    print(f"Test accuracy in percent over seeds 0 to {seeds - 1}:\n")
    print("| | lowest | median | highest | % fewer errors than the better baseline | published |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, first in runs[0].items():
        accuracies = sorted(100 * run[name]["accuracy"] for run in runs)
        cells = [accuracies[0], median(accuracies), accuracies[-1]]
        low, high = (first.get(f"published_{end}") for end in ("low", "high"))
        published = f"{100 * low:.1f} to {100 * high:.1f}" if low else ""
        removed = "" if name in ("pretrained", *BASELINES) else describe_gain(runs, name)
        print(f"| {name} | {' | '.join(f'{c:.1f}' for c in cells)} | {removed} | {published} |")


def describe_gain(runs: list[Results], name: str) -> str:
    """The share of the better baseline's errors that are gone: mean and 95% interval."""
    gains = []
    for run in runs:
        best = max(run[baseline]["accuracy"] for baseline in BASELINES)
        gains.append((run[name]["accuracy"] - best) / (1 - best))
    mean, low, high = (100 * value for value in mean_interval(gains, 0.95))
    return f"{mean:.0f} ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    given = sys.argv[1:]
    count = int(given.pop(0)) if given and given[0].isdigit() else SEEDS
    main(count, given)

"""The table of expected results: the pipeline over several seeds, from the lowest to the highest.

``python benchmarks/accuracy.py [SEEDS]`` prints Markdown. Results are cached in the store, so a
further seed costs only itself.
"""

import json
import subprocess
import sys
from statistics import median
from typing import Any

SEEDS = 10


def run_seed(seed: int) -> list[dict[str, Any]]:
    """Runs the pipeline; its test accuracies."""
    command = [sys.executable, "-m", "flows.cli", "run", "--json", "--quiet", "--seed", str(seed)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


def main(seeds: int) -> None:
    """Prints a row for each result: lowest, median and highest over the seeds, in percent."""
    runs = [run_seed(seed) for seed in range(seeds)]
    print(f"Test accuracy in percent over seeds 0 to {seeds - 1}:\n")
    print("| | lowest | median | highest | published |\n| --- | --- | --- | --- | --- |")
    for rows in zip(*runs, strict=True):
        accuracies = sorted(100 * row["accuracy"] for row in rows)
        low, high = (rows[0].get(f"published_{end}") for end in ("low", "high"))
        published = f"{100 * low:.1f} to {100 * high:.1f}" if low else ""
        cells = [accuracies[0], median(accuracies), accuracies[-1]]
        print(f"| {rows[0]['name']} | {' | '.join(f'{c:.1f}' for c in cells)} | {published} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)

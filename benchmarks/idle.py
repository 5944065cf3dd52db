"""What it costs to find that nothing has to run.

``python benchmarks/idle.py`` fills a store with a shrunk run, then times in turn, as whole
processes: a run with nothing to do, the same recorded in Prefect, `status`, and a trivial Prefect
flow of five tasks, all with a running server. Prints medians and ratios; then the key computation
of all stages and the check of a 2 GB entry.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from artifacts.store import Store
from flows.preflight import prepare
from flows.selection import Rerun
from models.config import load_config
from tasks.fingerprint import Project
from tasks.memory import RememberedProject

ROUNDS = 7
GIGABYTE = 1 << 30

TRIVIAL = """
from prefect import flow, task

@task
def step(x):
    return x + 1

@flow
def five():
    x = 0
    for _ in range(5):
        x = step(x)

five()
"""


def whole_process(*command: str) -> float:
    """Seconds that a command takes, from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - began


def seconds(work: Callable[[], object]) -> float:
    """Median seconds of a function in this process."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def time_commands() -> None:
    """Times whole processes in turn, so that a busy moment of the machine hits all alike."""
    run = ("-m", "flows.cli", "run", "--tiny")
    commands = {
        "five trivial Prefect tasks": ("-c", TRIVIAL),
        "run, nothing to do, recorded": (*run, "--record"),
        "run, nothing to do": run,
        "status": ("-m", "flows.cli", "status", "--tiny"),
        "python -c pass": ("-c", "pass"),
    }
    whole_process(*run)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(whole_process(*command))
    trivial = times["five trivial Prefect tasks"]
    print("| whole process | seconds, median | of the trivial flow |\n| --- | --- | --- |")
    for name, values in times.items():
        ratio = median(value / base for value, base in zip(values, trivial, strict=True))
        print(f"| {name} | {median(values):.2f} | {ratio:.2f} |")


def time_functions(store: Store) -> None:
    """Times what is inside: keys, and a check that reads no bytes."""
    config = load_config(tiny=True)
    steps = prepare(config, Rerun(), store).steps
    functions = [step.stage.function for step in steps]

    def keys(project: Project) -> None:
        for function in functions:
            project.code(function.__module__, function.__name__)

    with store.draft("benchmark", "0" * 40) as draft:
        with (draft.path / "sparse.bin").open("wb") as file:
            file.truncate(2 * GIGABYTE)
        store.commit(draft, seconds=0.0)
    print("\n| in one process | milliseconds, median |\n| --- | --- |")
    kept, anew = seconds(lambda: keys(RememberedProject())), seconds(lambda: keys(Project()))
    print(f"| code of every stage, as after any command before | {1000 * kept:.1f} |")
    print(f"| code of every stage, as after an edit | {1000 * anew:.1f} |")
    check = seconds(lambda: store.find("benchmark", "0" * 40))
    print(f"| checking an entry of 2 GB whose bytes nobody reads | {1000 * check:.2f} |")


def main() -> None:
    """Prints both tables."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            PREFECT_HOME=f"{folder}/prefect",
            HEADSTART_STORE=f"{folder}/store",
            PREFECT_LOGGING_LEVEL="ERROR",
        )
        address = subprocess.run(
            [sys.executable, "-m", "flows.cli", "ui"], check=True, capture_output=True, text=True
        ).stdout.split()[1]
        os.environ["PREFECT_API_URL"] = f"{address}/api"
        try:
            time_commands()
            time_functions(Store(Path(folder) / "store"))
        finally:
            whole_process("-m", "flows.cli", "ui", "--stop")


if __name__ == "__main__":
    main()

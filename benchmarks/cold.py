"""The whole main job from an empty store, stage by stage, against a plain Keras script."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.timing import TURNS, format_table

OURS = ("flows.cli", "run", "--preset", "published", "--json", "--quiet")
PLAIN = ("benchmarks.plain_keras",)
# The same work: about as many epochs as early stopping leads to, which from one order of the rows
# to the next may be half as many again.
EPOCHS = 30
SETTINGS = [
    f"{section}.{field}={EPOCHS}"
    for section in ("pretrain", "fine_tune", "transfer")
    for field in ("max_epochs", "patience")
]
TRAINING = ("pretrain", "fine-tune", "train-pixels", "train-scratch")


@dataclass(frozen=True)
class Job:
    """One cold run.

    Attributes:
        seconds: Of the whole process.
        parts: Seconds of each stage or part.
        epochs: Of each stage or part that trains.
        idle_seconds: Of the whole process when run again; nothing for a script that keeps nothing.
    """

    seconds: float
    parts: dict[str, float]
    epochs: dict[str, int]
    idle_seconds: float = 0.0


def compare_cold_runs() -> str:
    """The tables, as Markdown; the two take turns, each time with another seed."""
    seeds = range(1, TURNS + 1)
    pairs = [(_run_plain(seed), _run_ours(seed)) for seed in seeds]
    plain, ours = zip(*pairs, strict=True)
    idle = statistics.median(job.idle_seconds for job in ours)
    each, base = (statistics.median(job.seconds for job in jobs) for jobs in (plain, ours))
    return "\n".join(
        [
            "## The whole main job\n",
            "Each as a process of its own, imports included; the store empty. Both train every "
            f"network and head for {EPOCHS} epochs, about as many as early stopping leads to, and "
            f"keep the best: medians of {len(seeds)} seeds.\n",
            format_table(
                ["", "seconds", "times headstart"],
                [
                    _line("plain Keras script", each, base),
                    _line("headstart run --preset published", base, base),
                    _line("headstart run, again", idle, base),
                ],
            ),
            format_table(
                ["seed", "plain Keras, s", "epochs", "headstart, s", "epochs", "ratio"],
                [
                    [
                        f"{seed}",
                        f"{other.seconds:.1f}",
                        f"{sum(other.epochs.values())}",
                        f"{job.seconds:.1f}",
                        f"{sum(job.epochs.values())}",
                        f"{other.seconds / job.seconds:.2f}",
                    ]
                    for seed, (other, job) in zip(seeds, pairs, strict=True)
                ],
            ),
            _format_parts("headstart run, stage", ours),
            _format_parts("plain Keras script, part", plain),
        ]
    )


def _run_ours(seed: int) -> Job:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = (*OURS, *settings, "--seed", f"{seed}")
    with tempfile.TemporaryDirectory() as folder:
        printed, seconds = _run(*command, store=folder)
        epochs = {stage: _count_epochs(Path(folder), stage) for stage in TRAINING}
        _, idle_seconds = _run(*command, store=folder)
    parts = {stage["name"]: stage["seconds"] for stage in printed["stages"]}
    return Job(seconds, parts, epochs, idle_seconds)


def _run_plain(seed: int) -> Job:
    printed, seconds = _run(*PLAIN, f"{seed}", *SETTINGS)
    parts = {name: part["seconds"] for name, part in printed["parts"].items()}
    epochs = {name: part["epochs"] for name, part in printed["parts"].items() if part["epochs"]}
    return Job(seconds, parts, epochs)


def _run(*module: str, store: str = "") -> tuple[dict[str, Any], float]:
    """What a module prints as JSON, and the seconds its process takes."""
    environment = dict(os.environ)
    if store:
        environment["HEADSTART_STORE"] = str(Path(store) / "store")
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *module], check=True, stdout=subprocess.PIPE, env=environment
    )
    seconds = time.perf_counter() - began
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed, seconds


def _line(name: str, seconds: float, base: float) -> list[str]:
    return [name, f"{seconds:.1f}", f"{seconds / base:.2f}"]


def _count_epochs(folder: Path, stage: str) -> int:
    """Epochs of all that a stage trained."""
    (file,) = folder.glob(f"store/{stage}/*/history.json")
    history = json.loads(file.read_text())
    return sum(len(part["loss"]) for part in ([history] if "loss" in history else history.values()))


def _format_parts(name: str, jobs: Sequence[Job]) -> str:
    lines = []
    for part in jobs[0].parts:
        seconds = statistics.median(job.parts[part] for job in jobs)
        epochs = [job.epochs.get(part, 0) for job in jobs]
        count = f"{statistics.median(epochs):g}" if any(epochs) else ""
        lines.append([part, f"{seconds:.2f}", count])
    return format_table([name, "seconds", "epochs"], lines)

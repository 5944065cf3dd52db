"""The whole main job from an empty store, stage by stage, against a plain Keras script."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import format_table

OURS = ("flows.cli", "run", "--preset", "published", "--json", "--quiet")
PLAIN = ("benchmarks.plain_keras",)
TRAINING = ("pretrain", "fine-tune", "train-pixels", "train-scratch")


def compare_cold_runs() -> str:
    """The tables, as Markdown."""
    plain, plain_seconds = _run(*PLAIN)
    with tempfile.TemporaryDirectory() as folder:
        ours, our_seconds = _run(*OURS, store=folder)
        epochs = {stage: _count_epochs(Path(folder), stage) for stage in TRAINING}
        _, idle_seconds = _run(*OURS, store=folder)
    return "\n".join(
        [
            "## The whole main job\n",
            "Each as a process of its own, once, imports included; the store empty. Both train "
            "until the validation loss has not fallen for 20 epochs, on other orders of the rows, "
            "so one may train a few epochs more than the other.\n",
            format_table(
                ["", "seconds", "times headstart"],
                [
                    _line("plain Keras script", plain_seconds, our_seconds),
                    _line("headstart run --preset published", our_seconds, our_seconds),
                    _line("headstart run, again", idle_seconds, our_seconds),
                ],
            ),
            _format_stages(ours, epochs),
            _format_parts(plain),
        ]
    )


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


def _format_stages(ours: dict[str, Any], epochs: dict[str, int]) -> str:
    lines = [
        [stage["name"], f"{stage['seconds']:.2f}", f"{epochs.get(stage['name'], '')}"]
        for stage in ours["stages"]
    ]
    return format_table(["headstart run, stage", "seconds", "epochs"], lines)


def _format_parts(plain: dict[str, Any]) -> str:
    lines = [
        [name, f"{part['seconds']:.2f}", f"{part['epochs'] or ''}"]
        for name, part in plain["parts"].items()
    ]
    return format_table(["plain Keras script, part", "seconds", "epochs"], lines)

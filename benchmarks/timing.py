"""Contenders that take turns, so that a busy machine slows all alike; tables of ratios."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Fewer, given as the command's argument, for a first look.
TURNS = int(sys.argv[1]) if sys.argv[1:] else 5
LIBRARIES = ("tensorflow", "keras", "numpy", "torch", "jax", "scikit-learn")


@dataclass(frozen=True)
class Times:
    """Seconds of one contender.

    Attributes:
        first: Of its first turn, which compiles.
        median: Of its other turns.
        least: Of its other turns; on a busy machine nearest to what it takes alone.
    """

    first: float
    median: float
    least: float


def take_turns(contenders: Mapping[str, Callable[[], object]]) -> dict[str, Times]:
    """Runs every contender once, and then all of them in turn ``TURNS`` times."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: Times(first, statistics.median(others), min(others))
        for name, (first, *others) in seconds.items()
    }


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: names to the left, figures to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def describe_machine() -> str:
    """Cores, processor, load and versions; nothing that tells one machine from its like."""
    versions = [f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            versions.append(f"no {library}")
    waiting = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {_processor()}; load average {waiting:.1f} at the start. "
        f"{', '.join(versions)}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

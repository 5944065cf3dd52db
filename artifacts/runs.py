"""Records of runs: what each used, made and found. Roots of what the store keeps."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from artifacts.files import is_held, write_atomic

State = Literal["ran", "cached", "resumed"]


class StageRecord(BaseModel):
    """What became of one stage in a run.

    Attributes:
        name: The stage.
        state: Whether it was computed, from its start or from where it had stopped.
        key: Of its entry in the store.
        digest: Of the entry's content.
        seconds: How long the run spent on it.
        why: Why it was computed, in words; empty if it was not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    state: State
    key: str
    digest: str
    seconds: float
    why: tuple[str, ...] = ()


class RunRecord(BaseModel):
    """One run of the pipeline.

    Attributes:
        run: Its name, sorting by time.
        flow_run_id: Its id in Prefect's database.
        recorded: Whether this very run is in Prefect's database; a run in which nothing had to
            run is not, and names the run and flow run that recorded these results.
        status: ``running``, ``completed``, ``failed``, ``interrupted``, or ``died`` where its
            process is gone.
        started: When, UTC, ISO 8601.
        seconds: How long it took.
        error: What ended it, and in which stage; empty if nothing did.
        settings: The whole config.
        stages: What became of each stage, in order.
        results: Test accuracies with intervals, from the evaluation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    flow_run_id: str | None = None
    recorded: bool = True
    status: Literal["running", "completed", "failed", "interrupted", "died"] = "running"
    started: str
    seconds: float = 0.0
    error: str = ""
    settings: dict[str, Any] = {}
    stages: tuple[StageRecord, ...] = ()
    results: tuple[dict[str, Any], ...] = ()


def save_run(root: Path, record: RunRecord) -> None:
    """Writes a run's record into a store, whole or not at all."""
    content = record.model_dump_json(indent=1).encode() + b"\n"
    # While a run is going on, its record is only for those who look meanwhile.
    durable = record.status != "running"
    write_atomic(root / "runs" / f"{record.run}.json", content, durable)


@contextlib.contextmanager
def staying_alive(root: Path, run: str) -> Iterator[None]:
    """Shows while it lasts that a run is under way; ends with the process, however it ends."""
    path = _lock_path(root, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    path.unlink(missing_ok=True)


def is_alive(root: Path, record: RunRecord) -> bool:
    """Whether a run is still under way: its record says so and its process is there."""
    return record.status == "running" and is_held(_lock_path(root, record.run))


@contextlib.contextmanager
def beginning(root: Path) -> Iterator[None]:
    """Shows while it lasts that a process may have a run that is not in the store yet."""
    with _open_beginning(root) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def none_beginning(root: Path) -> Iterator[bool]:
    """Whether no such process is there; if so none begins meanwhile."""
    with contextlib.ExitStack() as opened:
        alone = False
        # Held by another; or the store cannot be written.
        with contextlib.suppress(OSError):
            file = opened.enter_context(_open_beginning(root))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        yield alone


def _open_beginning(root: Path) -> IO[bytes]:
    path = root / ".locks" / "beginning"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def _lock_path(root: Path, run: str) -> Path:
    return root / ".locks" / "runs" / run


def report_path(root: Path, run: str) -> Path:
    """Where the page about a run lies, beside its record."""
    return root / "runs" / f"{run}.html"


def load_runs(root: Path) -> Iterator[RunRecord]:
    """The records in a store, youngest first; unreadable ones are left out."""
    for path in sorted((root / "runs").glob("*.json"), reverse=True):
        try:
            yield RunRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue

"""Records of nights: what came in, what was decided, what the disk holds."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from artifacts.files import write_atomic


class NightRecord(BaseModel):
    """One night of retraining.

    Attributes:
        night: Its name, sorting by time.
        started: When it began, UTC, ISO 8601.
        flow_run_id: Its id in Prefect's database, if it is there.
        status: ``died`` where the next night found its process gone.
        deliveries: What became of each delivery.
        accepted: Images that joined the training images.
        duplicates: Images that were among them already.
        rejected: Images that went to quarantine one by one or with their delivery.
        challenger: Key of the model that was trained.
        challenger_accuracy: Of it on the hold-out, 0 to 1.
        champion: Key of the model in use afterwards.
        promoted: Whether the challenger is now the champion.
        why: The reason, with the figures.
        accuracy: Of the champion on the hold-out, 0 to 1.
        removed_bytes: Freed by housekeeping.
        store_bytes: Held by the store afterwards.
        free_bytes: Free on its disk.
        error: What it failed with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    night: str
    started: str
    flow_run_id: str = ""
    status: Literal["running", "completed", "failed", "died"] = "running"
    deliveries: tuple[dict[str, Any], ...] = ()
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    challenger: str = ""
    challenger_accuracy: float | None = None
    champion: str = ""
    promoted: bool = False
    why: str = ""
    accuracy: float | None = None
    removed_bytes: int = 0
    store_bytes: int = 0
    free_bytes: int = 0
    error: str = ""


def begin_night(now: datetime, flow_run_id: str = "") -> NightRecord:
    """The record of a night that begins."""
    started = now.isoformat(timespec="milliseconds")
    return NightRecord(night=f"{now:%Y%m%d-%H%M%S-%f}", started=started, flow_run_id=flow_run_id)


def save_night(root: Path, record: NightRecord) -> None:
    """Writes a night's record into a store, whole or not at all."""
    content = record.model_dump_json(indent=1).encode() + b"\n"
    write_atomic(root / ".nights" / f"{record.night}.json", content)


def load_nights(root: Path) -> Iterator[NightRecord]:
    """The records in a store, youngest first; unreadable ones are left out."""
    for path in sorted((root / ".nights").glob("[!.]*.json"), reverse=True):
        try:
            yield NightRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue


def is_done(root: Path, due: datetime) -> bool:
    """Whether a night that began when or after another was due has been completed.

    All that lay in the inbox when the other was due has then been seen to. So of any number of
    missed nights that are caught up with, the first does the work and the others find it done.
    """
    return any(
        record.status == "completed" and datetime.fromisoformat(record.started) >= due
        for record in load_nights(root)
    )


def without_promotion(root: Path) -> int:
    """Completed nights since the last promotion, the latest included."""
    count = 0
    for record in load_nights(root):
        if record.promoted:
            break
        count += record.status == "completed"
    return count

"""Removing what no kept run reaches."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from artifacts.registry import last_champions
from artifacts.runs import is_alive, load_runs, report_path
from artifacts.store import Store
from artifacts.versions import PERMANENT

# Half-made results of dead runs are worth something until somebody has had a week to go on.
STATE_AGE = timedelta(days=7)
# A file is written in an instant, even if the process is held up meanwhile.
FILE_AGE = timedelta(minutes=10)
# Present champion included: how far a rollback can go.
KEEP_CHAMPIONS = 5


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        path: The file or folder.
        what: What it is, in words.
        size: Bytes that its removal frees.
    """

    path: Path
    what: str
    size: int


def find_garbage(
    store: Store, keep_runs: int, older_than: timedelta, keep_champions: int = KEEP_CHAMPIONS
) -> Iterator[Garbage]:
    """What no kept run reaches.

    Kept are the latest runs, every run younger than the limit, runs under way with all that they
    set out to use, whatever was made since the first of those began, the latest champions, and all
    that has come in from outside.

    Args:
        store: Where to look.
        keep_runs: How many of the latest runs to keep whatever their age.
        older_than: Only runs and entries older than this may go.
        keep_champions: How many of the latest champions to keep, the present one at least.

    Raises:
        StoreError: If the registry is damaged, so that what it needs cannot be told.
    """
    records = list(load_runs(store.root))
    alive = [record for record in records if is_alive(store.root, record)]
    limit = min([_ago(older_than), *(datetime.fromisoformat(record.started) for record in alive)])
    finished = [record for record in records if record not in alive]
    gone = [
        record for record in finished[keep_runs:] if datetime.fromisoformat(record.started) < limit
    ]
    kept = [record for record in records if record not in gone]
    used = {(stage.name, stage.key) for record in kept for stage in record.stages}
    used |= last_champions(store, keep_champions)
    for record in gone:
        path = store.root / "runs" / f"{record.run}.json"
        yield Garbage(path, f"run {record.run}", path.stat().st_size)
        report = report_path(store.root, record.run)
        if report.exists():
            yield Garbage(report, f"report of {record.run}", report.stat().st_size)
    for stage, key in store.entries():
        if stage in PERMANENT:
            continue
        path = store.entry_path(stage, key)
        if (stage, key) not in used and _modified(path) < limit:
            yield Garbage(path, f"{stage}/{key[:12]}", _size(path))
    yield from _leftovers(store)


def _leftovers(store: Store) -> Iterator[Garbage]:
    for draft in store.root.glob("*/.tmp-*"):
        if not _is_being_made(store, draft):
            key = _key_of(draft)
            yield Garbage(draft, f"unfinished {draft.parent.name}/{key[:12]}", _size(draft))
    for state in store.root.glob(".state/*/*"):
        old = _modified(state) < _ago(STATE_AGE)
        if old and not store.is_locked(state.parent.name, state.name):
            yield Garbage(state, f"state of {state.parent.name}/{state.name[:12]}", _size(state))


def _key_of(draft: Path) -> str:
    return draft.name.removeprefix(".tmp-").partition("-")[0]


def _is_being_made(store: Store, draft: Path) -> bool:
    if draft.is_dir():
        # Whoever makes an entry holds its lock, so a draft without one is a dead run's.
        return store.is_locked(draft.parent.name, _key_of(draft))
    try:
        return _modified(draft) >= _ago(FILE_AGE)
    except FileNotFoundError:
        # It has got its own name meanwhile.
        return True


def remove(store: Store, garbage: Garbage) -> None:
    """Removes one piece; an entry goes under a hidden name first, so it is never half there."""
    path = garbage.path
    if path.is_dir():
        hidden = path.with_name(f".tmp-{path.name}-gone-{time.time_ns()}")
        try:
            path.rename(hidden)
        except FileNotFoundError:
            return
        shutil.rmtree(hidden, ignore_errors=True)
        store.forget_traces(path.parent.name, path.name)
    else:
        path.unlink(missing_ok=True)


def _ago(age: timedelta) -> datetime:
    return datetime.now(UTC) - age


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def describe_size(size: int) -> str:
    """A number of bytes for people: ``12.3 MB``."""
    if size < 1000:
        return f"{size} bytes"
    power = min((len(str(size)) - 1) // 3, 3)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}"

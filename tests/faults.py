"""Faults on purpose: a disk that fails or kills at its n-th write, fsync, rename or removal.

Stands between one process and the files under one folder by wrapping what Python writes with.
What libraries write by themselves, such as a SavedModel, passes by it; killing at random instants
and filling a small file system reach that.
"""

import builtins
import contextlib
import errno
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What the n-th operation may do instead: end the process, fail as the kernel fails, or write less.
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS, "torn": errno.ENOSPC}
# A full disk refuses only what needs room.
NEEDS_ROOM = {"open", "write", "mkdir"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        kind: A signal's name; an error's name; ``torn``, half a write and then no space; or
            ``short``, half a write reported as such, which is no error at all.
        nth: At which operation, counted from 1.
        lasting: Whether every later operation fails as well.
    """

    kind: str
    nth: int
    lasting: bool = False


@dataclass(frozen=True)
class Operation:
    """One thing done to a file: ``fsync pretrain/…/history.json``."""

    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


@dataclass
class Disk:
    """Counts what is done to files under a folder, and does the fault to one operation.

    Attributes:
        root: The folder.
        fault: What goes wrong; None only counts.
        watch: Called before each operation, to see the folder as a kill would leave it.
        done: All operations so far.
        hit: The operation that went wrong.
    """

    root: Path
    fault: Fault | None = None
    watch: Callable[["Disk", Operation], None] | None = None
    done: list[Operation] = field(default_factory=list)
    hit: Operation | None = None
    # Inode to size and time of what is safe from a power cut.
    synced: dict[int, tuple[int, int]] = field(default_factory=dict)

    def before(self, name: str, path: object) -> bool:
        """Notes an operation and harms it; True if half of it should be done.

        Raises:
            OSError: As the kernel would: without a file's name where it gives none.
        """
        place = self._inside(path)
        if place is None:
            return False
        operation = Operation(name, place)
        self.done.append(operation)
        if self.watch:
            self.watch(self, operation)
        if not (self.fault and self._is_due(name)):
            return False
        self.hit = self.hit or operation
        if self.fault.kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.fault.kind])
            return False
        if self.fault.kind in ("torn", "short") and name == "write":
            return True
        if self.fault.kind != "short":
            named = () if name in ("write", "fsync") else (str(path),)
            code = ERRORS[self.fault.kind]
            raise OSError(code, os.strerror(code), *named)
        return False

    def _is_due(self, name: str) -> bool:
        assert self.fault
        count = len(self.done)
        if not self.fault.lasting:
            return count == self.fault.nth
        full = ERRORS.get(self.fault.kind) == errno.ENOSPC
        return count >= self.fault.nth and (name in NEEDS_ROOM or not full)

    def _inside(self, path: object) -> str | None:
        """The path from the root on; None if it lies elsewhere."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        try:
            place = os.path.relpath(os.fspath(path), self.root)  # type: ignore[call-overload]
        except TypeError:
            return None
        return None if place.startswith("..") else place

    def note_synced(self, descriptor: int) -> None:
        """Notes that a file's bytes as they are now would survive a power cut."""
        facts = os.fstat(descriptor)
        self.synced[facts.st_ino] = (facts.st_size, facts.st_mtime_ns)

    def cut_power(self, copy: Path) -> None:
        """Empties in a copy of the root the files whose bytes were never synced."""
        for path in self.root.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                facts = path.lstat()
                safe = self.synced.get(facts.st_ino) == (facts.st_size, facts.st_mtime_ns)
                if path.is_file() and not safe:
                    os.truncate(copy / path.relative_to(self.root), 0)


class _File(io.FileIO):
    """A file whose writes are counted."""

    disk: Disk

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        if self.disk.before("write", self.name):
            written = super().write(view[: max(len(view) // 2, 1)]) or 0
            if self.disk.fault and self.disk.fault.kind == "torn":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return written
        return super().write(view) or 0


@contextlib.contextmanager
def standing_between(disk: Disk) -> Iterator[Disk]:
    """Sends all that Python does to files through ``disk`` meanwhile."""
    kept = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "unlink", "rmdir")}
    kept["mkdir"] = os.mkdir
    opened = io.open

    def open_counted(
        file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any
    ) -> Any:
        writes = set(mode) & set("wax+")
        if not writes or isinstance(file, int) or disk._inside(file) is None:
            return opened(file, mode, buffering, *more, **named)
        disk.before("open", file)
        raw = _File(file, mode.replace("b", "").replace("t", ""))
        raw.disk = disk
        if buffering == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, *more, **named)

    def counted(name: str) -> Callable[..., Any]:
        def call(first: Any, *more: Any, **named: Any) -> Any:
            # A removal inside a folder is given by the folder's descriptor and a bare name.
            folder = named.get("dir_fd")
            where = f"/proc/self/fd/{folder}" if folder is not None else ""
            disk.before(name, Path(os.path.realpath(where), first) if where else first)
            result = kept[name](first, *more, **named)
            if name == "fsync":
                disk.note_synced(first)
            return result

        return call

    for name in kept:
        setattr(os, name, counted(name))
    builtins.open = io.open = open_counted  # type: ignore[assignment]
    try:
        yield disk
    finally:
        builtins.open = io.open = opened
        for name, function in kept.items():
            setattr(os, name, function)


def photograph(root: Path, copy: Path) -> Path:
    """Copies a folder as it is at this instant: what a process killed now would leave."""
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(root, copy, copy_function=_copy))


def _copy(source: str, target: str) -> str:
    # Times too, so that whatever trusts them is not woken by the copy.
    return str(shutil.copy2(source, target))

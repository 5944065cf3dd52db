"""The folder where new images arrive: what lies there, read once, removed once it is safe.

Works on any file system that fsspec knows. A delivery is one name directly inside: a file, or a
folder with all in it. Nothing is followed that leads out of the folder.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from artifacts.files import canonical_json, sha256_bytes

# Names that are still being written, by custom, or are none of ours.
UNFINISHED = (".part", ".tmp", ".crdownload")


class InboxError(Exception):
    """The inbox cannot be read; the message says why and what to do."""


@dataclass(frozen=True)
class File:
    """One file of a delivery as it was listed.

    Attributes:
        name: Path inside the inbox, with forward slashes.
        path: As the file system knows it.
        mark: Size and time of change: another mark, another content.
        problem: Why it is not read; empty if it may be.
    """

    name: str
    path: str
    mark: tuple[Any, ...]
    problem: str = ""


@dataclass(frozen=True)
class Parcel:
    """One delivery as it lies in the inbox.

    Attributes:
        name: Of the file or folder.
        files: All files in it, by name.
        changed: When the youngest was last changed, in seconds since 1970; 0 if unknown.
    """

    name: str
    files: tuple[File, ...]
    changed: float

    @property
    def problem(self) -> str:
        """Why the delivery is not read; empty if it may be."""
        return next((f"{file.name} {file.problem}" for file in self.files if file.problem), "")


class Inbox:
    """A folder, here or elsewhere.

    Args:
        url: A path or a URL that fsspec takes, such as ``s3://bucket/inbox``.

    Raises:
        InboxError: If no file system takes the URL.
    """

    def __init__(self, url: str) -> None:
        # Imported here: most commands look into no inbox.
        import fsspec

        here = "://" not in url
        try:
            place = str(Path(url).expanduser()) if here else url
            self.system, self.root = fsspec.core.url_to_fs(place)
        except (ImportError, ValueError, OSError) as error:
            msg = f"nightly.inbox = {url}: {error}"
            raise InboxError(msg) from None
        self.url = url

    def parcels(self) -> list[Parcel]:
        """What lies there, by name; empty if the folder is not there yet.

        Raises:
            InboxError: If it cannot be listed.
        """
        try:
            # What another listing remembered may be gone by now.
            self.system.invalidate_cache()
            found = self._list(self.root) if self.system.exists(self.root) else []
            parcels = [self._parcel(entry) for entry in found]
        except OSError as error:
            msg = f"nightly.inbox = {self.url}: {error.strerror or error}"
            raise InboxError(msg) from None
        ready = [p for p in parcels if not p.name.startswith(".")]
        return sorted(
            (p for p in ready if not p.name.endswith(UNFINISHED)), key=lambda parcel: parcel.name
        )

    def read(self, parcel: Parcel) -> dict[str, bytes]:
        """Content of each file, by its name; files with a problem are left out."""
        return {
            file.name: self.system.cat_file(file.path) for file in parcel.files if not file.problem
        }

    def remove(self, parcel: Parcel) -> None:
        """Removes what was listed and has not changed since; what came meanwhile stays."""
        for file in parcel.files:
            with contextlib.suppress(FileNotFoundError):
                if _mark(self.system.info(file.path)) == file.mark:
                    self.system.rm_file(file.path)
        folders = {str(PurePosixPath(file.path).parent) for file in parcel.files}
        for folder in sorted(folders, key=len, reverse=True):
            self._remove_empty(folder)

    def _remove_empty(self, folder: str) -> None:
        """Removes a folder and those above it, below the root, where nothing is left in them."""
        while folder.startswith(f"{self.root.rstrip('/')}/"):
            try:
                self.system.rmdir(folder)
            except (OSError, NotImplementedError):
                return
            folder = str(PurePosixPath(folder).parent)

    def _list(self, path: str) -> list[dict[str, Any]]:
        entries = self.system.ls(path, detail=True)
        return [entry for entry in entries if entry["name"].rstrip("/") != path.rstrip("/")]

    def _parcel(self, entry: dict[str, Any]) -> Parcel:
        files = tuple(sorted(self._files(entry), key=lambda file: file.name))
        times = [entry.get("mtime"), *(mtime for file in files for mtime in file.mark[1:2])]
        changed = max((t for t in times if isinstance(t, float)), default=0.0)
        return Parcel(PurePosixPath(entry["name"]).name, files, changed)

    def _files(self, entry: dict[str, Any]) -> Iterator[File]:
        path = entry["name"]
        if entry["type"] == "directory" and not entry.get("islink"):
            for inner in self._list(path):
                yield from self._files(inner)
            return
        name = path[len(self.root) :].lstrip("/")
        problem = ""
        if entry.get("islink"):
            problem = "is a link; links are not followed: deliver the file itself"
        elif not path.startswith(self.root) or ".." in PurePosixPath(name).parts:
            problem = "has a name that leads out of the inbox"
        elif entry["type"] != "file":
            problem = f"is no file but {entry['type']}"
        yield File(name, path, _mark(entry), problem)


def settled(parcel: Parcel, seconds: float) -> bool:
    """Whether nothing in a delivery has changed for so long."""
    return time.time() - parcel.changed >= seconds


def digest(parcel: Parcel, contents: dict[str, bytes]) -> str:
    """What was delivered, whenever and however often: hash of the names and contents."""
    problems = {file.name: file.problem for file in parcel.files if file.problem}
    named = {name: sha256_bytes(content) for name, content in contents.items()}
    return sha256_bytes(canonical_json({"files": named, "problems": problems}))[:40]


def _mark(entry: dict[str, Any]) -> tuple[Any, ...]:
    if entry.get("islink"):
        # A listing and a look at one path differ in whose size they give.
        return (entry.get("destination"),)
    # Object stores give a time or a tag under names of their own.
    return tuple(entry.get(name) for name in ("size", "mtime", "ETag", "LastModified", "ino"))

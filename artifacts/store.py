"""The content-addressed store: every result of every stage, whole or absent, never trusted blindly.

Layout under the root::

    <stage>/<key>/            the entry: its files and manifest.json
    .state/<stage>/<key>/     what an unfinished stage goes on from
    .stamps/<stage>/<key>     sizes and times at the last full check: a hint, never a proof
    .locks/<stage>/<key>      held while an entry is made
    .prefect/                 Prefect's own result records
    runs/<run>.json           what each run used
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from artifacts import files
from artifacts.reference import FileDigest, Ref, content_digest

MANIFEST = "manifest.json"


class StoreError(Exception):
    """The store cannot be used as asked; the message says why and what to do."""


class DamagedEntry(Exception):
    """An entry's bytes are not what its manifest says.

    Attributes:
        stage: Stage of the entry.
        key: Key of the entry.
    """

    def __init__(self, stage: str, key: str, what: str) -> None:
        self.stage, self.key, self.what = stage, key, what
        super().__init__(f"{stage}/{key[:12]}: {what}")


class Manifest(BaseModel):
    """All there is to know of an entry: what made it, from what, how long it took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: Ref
    inputs: dict[str, Ref] = {}
    settings: dict[str, Any] = {}
    code: dict[str, str] = {}
    versions: dict[str, str] = {}
    host: dict[str, Any] = {}
    created: str
    seconds: float
    resumed: bool = False
    volatile: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The manifest as JSON with the hash of itself, so that damage to it shows."""
        body = self.model_dump(mode="json")
        sealed = {"manifest": body, "sha256": files.sha256_bytes(files.canonical_json(body))}
        return json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> "Manifest":
        """Reads what ``to_bytes`` wrote.

        Raises:
            ValueError: If a single bit differs.
        """
        sealed = json.loads(content)
        if not isinstance(sealed, dict) or set(sealed) != {"manifest", "sha256"}:
            msg = "not a manifest"
            raise ValueError(msg)
        manifest = cls.model_validate(sealed["manifest"])
        # Comparing the bytes themselves also catches damage that JSON does not see.
        if manifest.to_bytes() != content:
            msg = "its hash does not match"
            raise ValueError(msg)
        return manifest


@dataclass
class Draft:
    """An entry being made: files written into ``path`` and ``metrics`` become its content.

    Attributes:
        path: Folder under a temporary name, renamed into place by ``Store.commit``.
        metrics: Figures that are part of the result.
        volatile: Path prefixes of files that are kept and checked, but whose bytes differ from
            run to run for no reason of ours, so that the content's digest leaves them out.
    """

    stage: str
    key: str
    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    volatile: tuple[str, ...] = ()


class Store:
    """Entries of stages' results under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: set[tuple[object, ...]] = set()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    # --- finding and checking -------------------------------------------------------------

    def entry_path(self, stage: str, key: str) -> Path:
        """Where an entry lies once it is whole."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Ref | None:
        """The entry's reference if the entry is whole, else None.

        Looks at sizes and times first; reads every byte only where they have changed since the
        last full check.
        """
        manifest = self.manifest(stage, key)
        if manifest is None or self._damage(manifest, full=False):
            return None
        return manifest.ref

    def raw_manifest(self, stage: str, key: str) -> bytes | None:
        """The bytes of an entry's manifest as they are: other bytes, another entry."""
        try:
            return (self.entry_path(stage, key) / MANIFEST).read_bytes()
        except OSError:
            return None

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """An entry's manifest, or None where it is missing or damaged."""
        content = self.raw_manifest(stage, key)
        if content is None:
            return None
        try:
            manifest = Manifest.from_bytes(content)
        except ValueError:
            return None
        same_place = (manifest.ref.stage, manifest.ref.key) == (stage, key)
        return manifest if same_place else None

    def damage(self, stage: str, key: str, full: bool = True) -> list[str]:
        """What is wrong with an entry, a line for each file; empty if it is whole."""
        if not self.entry_path(stage, key).is_dir():
            return ["entry is missing"]
        manifest = self.manifest(stage, key)
        if manifest is None:
            return [f"{MANIFEST} is damaged or missing"]
        return self._damage(manifest, full)

    def _damage(self, manifest: Manifest, full: bool) -> list[str]:
        ref = manifest.ref
        stable = _stable(ref.files, manifest.volatile)
        if content_digest(stable, ref.metrics) != ref.digest:
            return [f"{MANIFEST} does not match its digest"]
        stamp = {} if full else self._load_stamp(ref)
        seen, problems = {}, []
        for name, expected in ref.files.items():
            path = self.entry_path(ref.stage, ref.key) / name
            try:
                facts = _facts(path)
                changed = stamp.get(name) != facts
                if changed and files.sha256_file(path) != expected.sha256:
                    problems.append(f"{name} is damaged")
                seen[name] = facts
            except OSError:
                problems.append(f"{name} is missing")
        if problems:
            self._forget_stamp(ref)
        elif seen != stamp:
            self._save_stamp(ref, seen)
        return problems

    def entries(self) -> Iterator[tuple[str, str]]:
        """Stage and key of every entry, whole or not."""
        for stage in sorted(self.root.glob("[!.]*")):
            if stage.name != "runs" and stage.is_dir():
                for entry in sorted(stage.glob("[!.]*")):
                    if entry.is_dir():
                        yield stage.name, entry.name

    def latest(self, stage: str) -> Manifest | None:
        """The youngest manifest of a stage: what a change is explained against."""
        keys = [key for name, key in self.entries() if name == stage]
        found = [manifest for key in keys if (manifest := self.manifest(stage, key))]
        return max(found, key=lambda manifest: manifest.created, default=None)

    # --- reading --------------------------------------------------------------------------

    def file(self, ref: Ref, name: str) -> Path:
        """The path of an entry's file, after every byte of it was checked.

        Raises:
            DamagedEntry: If the file is missing or its bytes are not those of the reference.
            StoreError: If the reference has no such file.
        """
        path, expected = self._place(ref, name)
        try:
            # One process reads a file's bytes once; later loads of an unchanged file are free.
            seen = (path, expected, *_facts(path))
            if seen not in self._read:
                if files.sha256_file(path) != expected:
                    raise self._damaged(ref, f"{name} is damaged")
                self._read.add(seen)
        except OSError as error:
            raise self._damaged(ref, f"{name}: {error.strerror}") from error
        return path

    def array(self, ref: Ref, name: str) -> npt.NDArray[Any]:
        """An entry's .npy file as a read-only memory map, checked."""
        array: npt.NDArray[Any] = np.load(self.file(ref, name), mmap_mode="r", allow_pickle=False)
        return array

    def read_bytes(self, ref: Ref, name: str) -> bytes:
        """An entry's small file, checked: the bytes returned are the bytes hashed."""
        path, expected = self._place(ref, name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self._damaged(ref, f"{name}: {error.strerror}") from error
        if files.sha256_bytes(content) != expected:
            raise self._damaged(ref, f"{name} is damaged")
        return content

    def _place(self, ref: Ref, name: str) -> tuple[Path, str]:
        """Where a file of an entry lies, and its digest."""
        if name not in ref.files:
            has = ", ".join(ref.files) or "no files"
            msg = f"{ref.stage}/{ref.key[:12]} has no {name}; it has {has}"
            raise StoreError(msg)
        return self.entry_path(ref.stage, ref.key) / name, ref.files[name].sha256

    def _damaged(self, ref: Ref, what: str) -> DamagedEntry:
        # Without its stamp the entry is read in full at the next look, and found out.
        self._forget_stamp(ref)
        return DamagedEntry(ref.stage, ref.key, what)

    # --- writing --------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Makes the root.

        Raises:
            StoreError: If nothing can be written there.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = files.temporary_name(self.root / "probe")
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            msg = (
                f"store {self.root}: {error.strerror}; choose another with --store PATH "
                "or HEADSTART_STORE"
            )
            raise StoreError(msg) from None

    @contextlib.contextmanager
    def draft(self, stage: str, key: str) -> Iterator[Draft]:
        """A fresh folder for an entry's files; gone again unless committed."""
        entry = self.entry_path(stage, key)
        path = files.temporary_name(entry)
        path.mkdir(parents=True)
        try:
            with files.naming(entry):
                yield Draft(stage, key, path)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def commit(self, draft: Draft, **facts: Any) -> Ref:
        """Puts a draft in its place, whole, and returns its reference.

        Args:
            draft: The finished draft.
            **facts: The further fields of ``Manifest``, but ``created``.

        Raises:
            StoreError: If the draft holds a file of the manifest's name.
        """
        names = sorted(p.relative_to(draft.path).as_posix() for p in _files(draft.path))
        if MANIFEST in names:
            msg = f"stage {draft.stage} wrote a {MANIFEST}; that name is the store's own"
            raise StoreError(msg)
        digests = {name: _digest(draft.path / name) for name in names}
        # What is read back from a manifest has been through JSON; so has what is returned now.
        metrics = json.loads(files.canonical_json(draft.metrics))
        digest = content_digest(_stable(digests, draft.volatile), metrics)
        ref = Ref(stage=draft.stage, key=draft.key, digest=digest, files=digests, metrics=metrics)
        manifest = Manifest(ref=ref, created=_now(), volatile=draft.volatile, **facts)
        old = self.manifest(draft.stage, draft.key)
        if old and old.ref.digest == digest and not self._damage(old, full=True):
            return self._renew(old.ref, manifest)
        (draft.path / MANIFEST).write_bytes(manifest.to_bytes())
        _sync(draft.path)
        entry = self.entry_path(draft.stage, draft.key)
        _replace_folder(draft.path, entry)
        self._save_stamp(ref, {name: _facts(entry / name) for name in names})
        return ref

    def _renew(self, ref: Ref, manifest: Manifest) -> Ref:
        """The same content again: only the account of how it was made is replaced.

        The files stay, so whoever reads them at this moment is not disturbed.
        """
        manifest = manifest.model_copy(update={"ref": ref})
        path = self.entry_path(ref.stage, ref.key) / MANIFEST
        files.write_atomic(path, manifest.to_bytes())
        return ref

    # --- stamps, locks, state -------------------------------------------------------------

    def _stamp_path(self, ref: Ref) -> Path:
        return self.root / ".stamps" / ref.stage / ref.key

    def _load_stamp(self, ref: Ref) -> dict[str, Any]:
        try:
            stamp = json.loads(self._stamp_path(ref).read_bytes())
        except (OSError, ValueError):
            return {}
        # The stamp vouches for one content only: an entry made anew is looked at anew.
        match stamp:
            case {"digest": ref.digest, "files": dict(facts)}:
                return facts
        return {}

    def _save_stamp(self, ref: Ref, facts: dict[str, Any]) -> None:
        # A read-only store still works, it only checks every byte every time.
        with contextlib.suppress(OSError):
            content = files.canonical_json({"digest": ref.digest, "files": facts})
            files.write_atomic(self._stamp_path(ref), content, durable=False)

    def _forget_stamp(self, ref: Ref) -> None:
        with contextlib.suppress(OSError):
            self._stamp_path(ref).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Held by one at a time, as by who makes an entry; the kernel frees it if that dies."""
        path = self._lock_path(stage, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def is_locked(self, stage: str, key: str) -> bool:
        """Whether some process is making this entry now."""
        return files.is_held(self._lock_path(stage, key))

    def _lock_path(self, stage: str, key: str) -> Path:
        return self.root / ".locks" / stage / key

    def state_path(self, stage: str, key: str) -> Path:
        """Folder for what an unfinished stage goes on from."""
        return self.root / ".state" / stage / key

    def forget_state(self, stage: str, key: str) -> None:
        """Removes what an unfinished stage left."""
        shutil.rmtree(self.state_path(stage, key), ignore_errors=True)

    def forget_traces(self, stage: str, key: str) -> None:
        """Removes what is kept beside an entry that is gone.

        Not its lock: somebody may be waiting for it, and would then hold a lock nobody sees.
        """
        for trace in (
            self.root / ".stamps" / stage / key,
            self.records_path() / f"{stage}-{key}",
        ):
            trace.unlink(missing_ok=True)

    def records_path(self) -> Path:
        """Folder of Prefect's result records, derived from the entries and so expendable."""
        return self.root / ".prefect"


def _stable(digests: dict[str, FileDigest], volatile: tuple[str, ...]) -> dict[str, FileDigest]:
    return {name: digest for name, digest in digests.items() if not name.startswith(volatile)}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _sync(folder: Path) -> None:
    for path in _files(folder):
        files.sync_file(path)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            files.sync_folder(path)


def _replace_folder(new: Path, place: Path) -> None:
    """Renames a folder into place; what was there before is there until the new one is."""
    if place.is_dir() and files.exchange(new, place):
        files.sync_folder(place.parent)
        return
    aside = files.temporary_name(place)
    with contextlib.suppress(FileNotFoundError):
        place.rename(aside)
    try:
        new.rename(place)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            aside.rename(place)
        raise
    files.sync_folder(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _digest(path: Path) -> FileDigest:
    return FileDigest(sha256=files.sha256_file(path), size=path.stat().st_size)


def _facts(path: Path) -> list[int]:
    facts = os.stat(path)
    # The change time moves with every write and cannot be set back by a tool such as touch.
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: a fault of the machine, not of the input."""
    hopeless = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
    if isinstance(error, OSError):
        return error.errno not in hopeless
    return type(error).__name__ in {"ResourceExhaustedError", "UnavailableError"}

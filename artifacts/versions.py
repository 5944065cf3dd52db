"""What has come in: batches of accepted images, versions of a dataset, quarantine. Append-only.

All are entries of the store, whole or absent, and are never collected as garbage: unlike results
they cannot be computed again. ``.registry/versions/<base>`` names the present version of a dataset,
and is replaced only once everything that the version refers to is on the disk.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from artifacts import files
from artifacts.reference import Ref
from artifacts.store import Draft, Store, StoreError

BATCH, VERSION, QUARANTINE = "batch", "dataset-version", "quarantine"
# Entries of these stages stay, come what may.
PERMANENT = frozenset({BATCH, VERSION, QUARANTINE})
DOCUMENT, ACCOUNT, IMAGES = "dataset.version", "account.json", "batch.npz"


class Intake(BaseModel):
    """What became of one delivery: each of its rows is in just one of the counts.

    Attributes:
        name: As it was called in the inbox.
        delivery: Hash of its content: delivered again, it is known.
        batch: Key of the accepted rows; empty where there are none.
        accepted: Rows that joined the training images.
        duplicates: Rows that were among them already.
        rejected: Rows in quarantine.
        when: When, UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    delivery: str
    batch: str
    accepted: int
    duplicates: int
    rejected: int
    when: str


def add_batch(store: Store, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Ref:
    """Keeps accepted rows; the same rows are the same entry.

    Args:
        store: Where.
        images: (rows, columns).
        labels: Classes, (rows,).
    """
    content = files.pack_arrays({"x": images, "y": labels})
    key = files.sha256_bytes(content)[:40]

    def write(draft: Draft) -> None:
        (draft.path / IMAGES).write_bytes(content)
        draft.metrics = {"rows": len(images)}

    return _make(store, BATCH, key, write)


def quarantine(
    store: Store,
    name: str,
    delivery: str,
    contents: Mapping[str, bytes],
    reasons: Mapping[str, str],
) -> Ref:
    """Keeps a delivery as it came, with what is wrong with it.

    Args:
        store: Where.
        name: What it was called.
        delivery: Hash of its content.
        contents: Content of each file, by its name.
        reasons: What is wrong, by the name of the file or row.
    """

    def write(draft: Draft) -> None:
        kept = {}
        for number, (original, content) in enumerate(sorted(contents.items()), start=1):
            # An original name may lead anywhere; this one does not.
            kept[f"{number:06d}-{_harmless(original)}"] = original
            (draft.path / f"{number:06d}-{_harmless(original)}").write_bytes(content)
        account = {"name": name, "reasons": dict(reasons), "files": kept}
        (draft.path / ACCOUNT).write_text(json.dumps(account, indent=1))
        draft.metrics = {"name": name, "reasons": len(reasons)}

    key = files.sha256_bytes(files.canonical_json([delivery, dict(reasons)]))[:40]
    return _make(store, QUARANTINE, key, write)


def add_version(
    store: Store, base: str, document: bytes, parent: Ref | None, intakes: Iterable[Intake]
) -> Ref:
    """Keeps a version of a dataset and makes it the present one.

    Args:
        store: Where.
        base: Hash of the dataset that it grew from.
        document: What readers of datasets take.
        parent: The version before it.
        intakes: All deliveries so far, oldest first.
    """
    account = [intake.model_dump(mode="json") for intake in intakes]
    content = json.dumps(account, indent=1).encode()
    key = files.sha256_bytes(document + content)[:40]

    def write(draft: Draft) -> None:
        (draft.path / DOCUMENT).write_bytes(document)
        (draft.path / ACCOUNT).write_bytes(content)
        draft.metrics = {"rows": sum(intake["accepted"] for intake in account)}

    ref = _make(store, VERSION, key, write, {"parent": parent} if parent else {})
    if present_version(store, base) != ref:
        files.write_atomic(_pointer(store, base), key.encode())
    return ref


def present_version(store: Store, base: str) -> Ref | None:
    """The version that is in use; None where nothing has joined the dataset yet.

    Raises:
        StoreError: If it is damaged; nothing can be put in its place.
    """
    try:
        key = _pointer(store, base).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    problems = store.damage(VERSION, key, full=False)
    manifest = store.manifest(VERSION, key)
    if problems or manifest is None:
        what = ", ".join(problems)
        msg = f"{VERSION}/{key[:12]}: {what}; bring it back from a backup of {store.root}"
        raise StoreError(msg)
    return manifest.ref


def intakes_of(store: Store, version: Ref | None) -> list[Intake]:
    """The deliveries that a version is made of, oldest first."""
    if version is None:
        return []
    return [Intake.model_validate(row) for row in json.loads(store.read_bytes(version, ACCOUNT))]


def read_batch(store: Store, key: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], str]:
    """Images (rows, columns) and labels (rows,) of a batch, and the SHA-256 of its file.

    Raises:
        StoreError: If it is gone.
        DamagedEntry: If its bytes have changed.
    """
    manifest = store.manifest(BATCH, key)
    if manifest is None:
        msg = f"{BATCH}/{key[:12]} is gone; bring it back from a backup of {store.root}"
        raise StoreError(msg)
    arrays = files.unpack_arrays(store.read_bytes(manifest.ref, IMAGES))
    return arrays["x"], arrays["y"], manifest.ref.files[IMAGES].sha256


def _make(
    store: Store,
    stage: str,
    key: str,
    write: Callable[[Draft], None],
    inputs: Mapping[str, Ref] | None = None,
) -> Ref:
    with store.lock(stage, key):
        found = store.find(stage, key)
        if found:
            return found
        with store.draft(stage, key) as draft:
            write(draft)
            return store.commit(draft, inputs=dict(inputs or {}), seconds=0.0)


def _harmless(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:]


def _pointer(store: Store, base: str) -> Path:
    return store.root / ".registry" / "versions" / base

"""Which packaged model is in use, since when and why: a chain of records and one pointer.

Layout under a store's root::

    .registry/records/<sha256>.json   one decision each; it names the record before it
    .registry/champion                SHA-256 of the latest record: the only file ever replaced

A record is written and synced before the pointer names it, so whoever dies half-way leaves the old
champion, and a record that nobody reads. No record is ever changed or removed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from artifacts import files
from artifacts.reference import Ref
from artifacts.store import Store, StoreError

# The stage whose entries are models that can be used by themselves.
MODEL_STAGE = "package"


class Promotion(BaseModel):
    """One decision on which model is in use.

    Attributes:
        model: The entry, pinned by the digests of all its files.
        action: What was asked for.
        who: Who or what decided.
        why: The reason, in words.
        when: When, UTC, ISO 8601.
        previous: SHA-256 of the record before this one; None for the first.
        below: SHA-256 of the record that a rollback from here returns to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Ref
    action: Literal["promote", "rollback"]
    who: str
    why: str
    when: str
    previous: str | None = None
    below: str | None = None


def promote(store: Store, model: Ref, who: str, why: str) -> Promotion:
    """Makes a model the champion, after every byte of it was read.

    Args:
        store: Where the model lies.
        model: Its entry.
        who: Who or what decided.
        why: The reason, in words.

    Raises:
        StoreError: If the model is not whole.
    """
    with store.lock(".registry", "champion"):
        problems = _problems(store, model)
        if problems:
            msg = f"{_named(model)} cannot be champion: {', '.join(problems)}"
            raise StoreError(msg)
        head = _head(store)
        return _append(store, model, "promote", who, why, previous=head, below=head)


def rollback(store: Store, who: str, why: str) -> Promotion:
    """Makes the model before the champion the champion again; once more goes further back.

    Models that have been damaged or removed meanwhile are passed over.

    Raises:
        StoreError: If there is no whole model to go back to.
    """
    with store.lock(".registry", "champion"):
        head = _head(store)
        passed = []
        below = _read(store, head).below if head else None
        while below:
            earlier = _read(store, below)
            problems = _problems(store, earlier.model)
            if not problems:
                return _append(
                    store, earlier.model, "rollback", who, why, previous=head, below=earlier.below
                )
            passed.append(f"{_named(earlier.model)}: {', '.join(problems)}")
            below = earlier.below
        reason = "; ".join(passed) or "there was no champion before this one"
        msg = f"nothing to roll back to in {store.root}: {reason}"
        raise StoreError(msg)


def champion(store: Store) -> Promotion | None:
    """The decision that made the present champion; None where no model was ever promoted.

    Raises:
        StoreError: If the registry is damaged.
    """
    head = _head(store)
    return _read(store, head) if head else None


def history(store: Store) -> Iterator[Promotion]:
    """Every decision, youngest first.

    Raises:
        StoreError: If the registry is damaged.
    """
    name = _head(store)
    while name:
        record = _read(store, name)
        yield record
        name = record.previous


def last_champions(store: Store, count: int) -> set[tuple[str, str]]:
    """Stage and key of the latest champions, the present one always among them."""
    kept: dict[tuple[str, str], None] = {}
    for record in history(store):
        kept[(record.model.stage, record.model.key)] = None
        if len(kept) >= max(count, 1):
            break
    return set(kept)


def _problems(store: Store, model: Ref) -> list[str]:
    problems = store.damage(model.stage, model.key)
    manifest = store.manifest(model.stage, model.key)
    if manifest and manifest.ref.digest != model.digest:
        problems.append("its content is another one now")
    return problems


def _append(
    store: Store,
    model: Ref,
    action: Literal["promote", "rollback"],
    who: str,
    why: str,
    previous: str | None,
    below: str | None,
) -> Promotion:
    record = Promotion(
        model=model,
        action=action,
        who=who,
        why=why,
        when=datetime.now(UTC).isoformat(timespec="milliseconds"),
        previous=previous,
        below=below,
    )
    content = record.model_dump_json(indent=1).encode() + b"\n"
    name = files.sha256_bytes(content)
    files.write_atomic(_record_path(store, name), content)
    files.write_atomic(_pointer(store), name.encode())
    return record


def _head(store: Store) -> str | None:
    try:
        return _pointer(store).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(_pointer(store), str(error)) from None


def _read(store: Store, name: str) -> Promotion:
    path = _record_path(store, name)
    try:
        content = path.read_bytes()
        if files.sha256_bytes(content) == name:
            return Promotion.model_validate_json(content)
    except (OSError, ValidationError, ValueError) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from None
    raise _damaged(path, "its bytes have changed")


def _damaged(path: Path, what: str) -> StoreError:
    folder = path.parent if path.name == "champion" else path.parent.parent
    msg = (
        f"the registry's {path.name} is damaged: {what}; bring {folder} back from a backup, or "
        "remove it and choose a champion with headstart promote KEY"
    )
    return StoreError(msg)


def _named(model: Ref) -> str:
    return f"{model.stage}/{model.key[:12]}"


def _pointer(store: Store) -> Path:
    return store.root / ".registry" / "champion"


def _record_path(store: Store, name: str) -> Path:
    return store.root / ".registry" / "records" / f"{name}.json"

"""What is in the store, for people and programs: runs, entries, lineage, differences, damage.

Each function gives plain values; ``flows.cli`` prints them as JSON or as a table.
"""

import difflib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.tree import Tree

from artifacts.garbage import find_garbage, remove
from artifacts.lineage import made_from, made_into, manifests, resolve
from artifacts.runs import RunRecord, is_alive, load_runs
from artifacts.store import Manifest, Store, StoreError
from artifacts.summary import percent
from models.config import ConfigError


def list_runs(store: Store) -> list[dict[str, Any]]:
    """The runs in a store, youngest first."""
    return [
        {
            "run": record.run,
            "status": _status(store, record),
            "started": record.started,
            "seconds": record.seconds,
            "ran": [stage.name for stage in record.stages if stage.state != "cached"],
            "results": {r["name"]: r["accuracy"] for r in record.results},
            "flow_run_id": record.flow_run_id,
        }
        for record in load_runs(store.root)
    ]


def _status(store: Store, record: RunRecord) -> str:
    if record.status == "running" and not is_alive(store.root, record):
        return "died"
    return record.status


def find_run(store: Store, name: str) -> RunRecord:
    """A run by its name or the beginning of it; ``latest`` is the latest one.

    Raises:
        StoreError: If there is no such run.
    """
    records = list(load_runs(store.root))
    if name == "latest":
        fitting = records[:1]
    else:
        fitting = [record for record in records if name and record.run.startswith(name)]
    if len(fitting) > 1:
        names = ", ".join(record.run for record in fitting)
        msg = f"{name!r} is the beginning of several runs: {names}"
        raise StoreError(msg)
    if not fitting:
        close = difflib.get_close_matches(name, [record.run for record in records], n=1)
        hint = f"did you mean {close[0]}?" if close else "headstart runs lists them"
        msg = f"no run {name!r} in {store.root}; {hint}"
        raise StoreError(msg)
    return fitting[0]


def show(store: Store, name: str) -> dict[str, Any]:
    """All there is to know of a run, or of an entry: by run, key, stage or stage/key.

    Raises:
        StoreError: If there is neither.
    """
    try:
        return find_run(store, name).model_dump(mode="json")
    except StoreError as error:
        try:
            manifest = resolve(store, name)
        except StoreError:
            msg = f"neither a run nor an entry is called {name!r}: {error}"
            raise StoreError(msg) from None
    return {
        **manifest.model_dump(mode="json"),
        "damage": store.damage(manifest.ref.stage, manifest.ref.key),
    }


def save_report(store: Store, name: str) -> Path:
    """Writes the page about a run, from what is in the store now.

    Raises:
        StoreError: If there is no such run.
    """
    # Jinja2 takes longer to import than most commands take.
    from artifacts import report

    record = find_run(store, name)
    return report.save_report(store, record.model_copy(update={"status": _status(store, record)}))


def outline(value: Any, indent: str = "") -> Iterator[str]:
    """A nested value as indented lines."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        label = f"{indent}{name}" if isinstance(value, dict) else f"{indent}-"
        if isinstance(inner, dict | list) and inner and not _is_flat(inner):
            yield label
            yield from outline(inner, f"{indent}  ")
        else:
            yield f"{label}: {inner}" if isinstance(value, dict) else f"{label} {inner}"


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)


def diff(store: Store, first: str, second: str) -> list[dict[str, Any]]:
    """What differs between two runs: settings, code, versions, metrics, results.

    Returns:
        Rows of ``stage``, ``what``, ``first``, ``second``.
    """
    runs = find_run(store, first), find_run(store, second)
    entries = [{stage.name: stage for stage in record.stages} for record in runs]
    rows: list[dict[str, Any]] = []
    code: list[dict[str, str]] = [{}, {}]
    for name in dict.fromkeys([*entries[0], *entries[1]]):
        stages = [entry.get(name) for entry in entries]
        found = [store.manifest(name, stage.key) if stage else None for stage in stages]
        facts = [_facts(manifest) if manifest else {} for manifest in found]
        for definitions, manifest in zip(code, found, strict=True):
            definitions.update(manifest.code if manifest else {})
        rows += [{"stage": name, **row} for row in _unequal(*facts)]
    rows += [{"stage": "code", **row} for row in _unequal(*code)]
    results = [{r["name"]: r["accuracy"] for r in record.results} for record in runs]
    rows += [{"stage": "results", **row} for row in _unequal(*results)]
    return rows


def _facts(manifest: Manifest) -> dict[str, Any]:
    plain = {
        name: value
        for name, value in manifest.ref.metrics.items()
        if not isinstance(value, list | dict)
    }
    return {
        **manifest.settings,
        **manifest.versions,
        **plain,
        "digest": manifest.ref.digest[:12],
    }


def _unequal(first: dict[str, Any], second: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys([*first, *second]):
        if first.get(name) != second.get(name):
            yield {"what": name, "first": first.get(name), "second": second.get(name)}


def lineage(store: Store, name: str) -> dict[str, Any]:
    """An entry with all it was made from (``from``) and all that was made of it (``into``)."""
    every = manifests(store)
    manifest = resolve(store, name)

    def follow(entry: Manifest, direction: Any) -> list[dict[str, Any]]:
        return [
            {**_brief(other), "next": follow(other, direction)} for other in direction(entry, every)
        ]

    return {
        **_brief(manifest),
        "from": follow(manifest, made_from),
        "into": follow(manifest, made_into),
    }


def _brief(manifest: Manifest) -> dict[str, Any]:
    ref = manifest.ref
    return {"stage": ref.stage, "key": ref.key, "digest": ref.digest, "created": manifest.created}


def lineage_trees(found: dict[str, Any]) -> list[Tree]:
    """A lineage as two trees, up and down."""
    trees = []
    for direction, title in (("from", "made from"), ("into", "made into")):
        tree = Tree(f"{_named(found)} {title}")
        _grow(tree, found[direction])
        trees.append(tree)
    return trees


def _grow(tree: Tree, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        _grow(tree.add(_named(entry)), entry["next"])


def _named(entry: dict[str, Any]) -> str:
    return f"{entry['stage']}/{entry['key'][:12]}"


def verify(store: Store) -> dict[str, list[str]]:
    """Reads every byte of every entry; what is wrong, by entry."""
    checked = {f"{stage}/{key}": store.damage(stage, key) for stage, key in store.entries()}
    return {name: problems for name, problems in checked.items() if problems}


def collect_garbage(
    store: Store, keep_runs: int, older_than: str, dry_run: bool
) -> Iterator[tuple[str, int]]:
    """Removes what no kept run reaches; yields each piece's name and size."""
    for garbage in list(find_garbage(store, keep_runs, parse_age(older_than))):
        if not dry_run:
            remove(store, garbage)
        yield garbage.what, garbage.size


def parse_age(text: str) -> timedelta:
    """An age such as ``30d``, ``12h`` or ``0d``.

    Raises:
        ConfigError: If the text is none.
    """
    units = {"d": "days", "h": "hours", "m": "minutes"}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdigit():
        raise ConfigError([f"--older-than {text}: write an age such as 30d, 12h or 0d"])
    return timedelta(**{units[unit]: int(number)})


def brief_results(results: dict[str, float]) -> str:
    """A run's best-known figures in one cell."""
    return ", ".join(
        f"{name} {percent(accuracy)}"
        for name, accuracy in results.items()
        if name in ("pretrained", "from scratch")
    )

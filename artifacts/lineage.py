"""Where a result comes from and what came of it: manifests followed up and down."""

from collections.abc import Iterator, Mapping

from artifacts.store import Manifest, Store, StoreError


def manifests(store: Store) -> dict[tuple[str, str], Manifest]:
    """Every readable manifest in a store, by stage and key."""
    found = {name: store.manifest(*name) for name in store.entries()}
    return {name: manifest for name, manifest in found.items() if manifest}


def resolve(store: Store, text: str) -> Manifest:
    """The entry that a text names: a key or its beginning, a stage for its latest, or both.

    Args:
        store: Where to look.
        text: ``3d208e26``, ``pretrain`` or ``pretrain/3d208e26``.

    Raises:
        StoreError: If it names none, or several.
    """
    stage, slash, key = text.rpartition("/")
    every = manifests(store)
    if not slash and (latest := store.latest(text)):
        return latest
    fitting = [m for (s, k), m in every.items() if k.startswith(key) and (not slash or s == stage)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        msg = f"no entry {text!r} in {store.root}; headstart runs lists the runs"
        raise StoreError(msg)
    names = ", ".join(sorted(f"{m.ref.stage}/{m.ref.key[:12]}" for m in fitting))
    msg = f"{text!r} is the beginning of several keys: {names}"
    raise StoreError(msg)


def made_from(manifest: Manifest, every: dict[tuple[str, str], Manifest]) -> Iterator[Manifest]:
    """The entries that an entry was directly made from, as far as they are still there."""
    for ref in manifest.inputs.values():
        found = every.get((ref.stage, ref.key))
        if found and found.ref.digest == ref.digest:
            yield found


def made_into(manifest: Manifest, every: dict[tuple[str, str], Manifest]) -> Iterator[Manifest]:
    """The entries that were directly made from an entry, or from one of the same content."""
    for other in every.values():
        if any(
            (ref.stage, ref.digest) == (manifest.ref.stage, manifest.ref.digest)
            for ref in other.inputs.values()
        ):
            yield other


def diagram(entries: Mapping[str, Manifest]) -> str:
    """What was made from what, as a Mermaid graph with the contents' digests.

    Args:
        entries: The manifests of a run, by stage.
    """
    lines = ["graph LR"]
    for name, manifest in entries.items():
        lines.append(f'  {name}["{name}<br/>{manifest.ref.digest[:12]}"]')
        lines += [f"  {parent} --> {name}" for parent in parents(manifest)]
    return "\n".join(lines) + "\n"


def parents(manifest: Manifest) -> list[str]:
    """The stages that an entry was directly made from."""
    return list(dict.fromkeys(ref.stage for ref in manifest.inputs.values()))

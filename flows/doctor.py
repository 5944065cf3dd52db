"""Whether this machine and this store are fit to run, and what to do where they are not."""

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from artifacts.garbage import describe_size
from artifacts.lineage import manifests
from artifacts.store import Store, StoreError
from flows import server
from flows.ghosts import bury_ghosts, find_ghosts

# Releases that break what this project stands on; the reasons are in pyproject.toml.
TOO_NEW = {"prefect": (3, 9), "fastapi": (0, 151), "sqlalchemy": (2, 1), "tensorflow": (2, 22)}
ENOUGH_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: What.
        good: Whether it is as it should be.
        text: What was found, and what to do if it is not good.
    """

    about: str
    good: bool
    text: str


def examine(store: Store) -> Iterator[Finding]:
    """Looks at versions, store, free space, clock, server and dead runs, in this order.

    Dead runs are marked as crashed where Prefect's server answers.
    """
    yield _python()
    yield from (_release(name, limit) for name, limit in TOO_NEW.items())
    yield _writable(store)
    yield _space(store)
    yield _entries(store)
    yield _clock(store)
    yield from _server_and_ghosts(store)


def _python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "" if good else "; make .venv anew with Python 3.11, 3.12 or 3.13"
    return Finding("python", good, f"{platform.python_version()}{advice}")


def _release(name: str, limit: tuple[int, int]) -> Finding:
    version = importlib.metadata.version(name)
    good = tuple(int(part) for part in version.split(".")[:2]) < limit
    bound = ".".join(map(str, limit))
    advice = "" if good else f"; known to break from {bound} on: install requirements.lock"
    return Finding(name, good, f"{version}{advice}")


def _writable(store: Store) -> Finding:
    try:
        store.check_writable()
    except StoreError as error:
        return Finding("store", False, str(error))
    return Finding("store", True, str(store.root))


def _space(store: Store) -> Finding:
    place = store.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    good = free >= ENOUGH_BYTES
    advice = "" if good else "; make room, or let headstart gc remove old results"
    return Finding("free space", good, f"{describe_size(free)}{advice}")


def _entries(store: Store) -> Finding:
    damaged = [f"{s}/{k[:12]}" for s, k in store.entries() if store.damage(s, k, full=False)]
    if damaged:
        names = ", ".join(damaged)
        return Finding("entries", False, f"damaged: {names}; the next run computes them again")
    return Finding("entries", True, f"{len(list(store.entries()))} whole at a quick look")


def _clock(store: Store) -> Finding:
    now = datetime.now(UTC)
    created = [datetime.fromisoformat(m.created) for m in manifests(store).values()]
    ahead = max(created, default=now) - now
    if ahead > timedelta(minutes=1):
        text = f"results were made {ahead} in the future; set the clock right"
        return Finding("clock", False, text)
    return Finding("clock", True, f"{now:%Y-%m-%d %H:%M} UTC")


def _server_and_ghosts(store: Store) -> Iterator[Finding]:
    dead = [record.run for record in find_ghosts(store)]
    server.settle_environment()
    try:
        with server.connection() as prefect_server:
            prefect_server.wait()
            yield Finding("Prefect", True, f"answers at {prefect_server.url}")
            with server.used_by_prefect(prefect_server.url):
                list(bury_ghosts(store))
    except server.ServerError as error:
        yield Finding("Prefect", False, str(error))
        return
    text = f"marked as crashed: {', '.join(dead)}; run again to go on" if dead else "none"
    yield Finding("dead runs", not dead, text)

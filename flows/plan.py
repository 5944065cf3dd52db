"""What a run would do and why, told from the store alone: no Prefect, no TensorFlow."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from artifacts.reference import Ref
from artifacts.store import Manifest, Store
from flows.pipeline import Job, pipeline
from flows.selection import Selection
from models.config import Config
from models.sources import Source
from tasks.stage import Arguments, Stage, inputs_of, settings_of


@dataclass(frozen=True)
class Step:
    """What a run would do with one stage.

    Attributes:
        stage: The stage.
        state: ``cached``: its result is in the store. ``run``: it would be computed. ``open``: it
            depends on what an earlier stage will give.
        reasons: Why, in words; empty if cached.
        ref: The result, if it is in the store.
        created: When the result was made, UTC, ISO 8601.
        seconds: How long the latest result of this stage took.
    """

    stage: Stage
    state: Literal["cached", "run", "open"]
    reasons: tuple[str, ...] = ()
    ref: Ref | None = None
    created: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name


def make_plan(
    config: Config, source: Source, store: Store, selection: Selection, job: Job = pipeline
) -> list[Step]:
    """What would become of each wanted stage, in running order."""
    planner = _Planner(store, selection)
    job(config, source, planner)
    return list(planner.found.values())


class _Planner:
    def __init__(self, store: Store, selection: Selection) -> None:
        self.store = store
        self.selection = selection
        self.found: dict[tuple[str, str], Step] = {}

    def __call__(self, stage: Stage, /, **arguments: Any) -> Ref:
        if stage.name not in self.selection.wanted:
            return Ref.pending(stage.name)
        asked = stage.name, stage.fingerprint(arguments)
        if asked not in self.found:
            self.found[asked] = self._look(stage, arguments)
        step = self.found[asked]
        # A stage computed afresh most likely gives what it gave before.
        return step.ref or Ref.pending(stage.name)

    def _look(self, stage: Stage, arguments: Arguments) -> Step:
        waits = [ref.stage for ref in inputs_of(arguments).values() if ref.is_pending]
        key = "" if waits else stage.key(arguments)
        ref = self.store.find(stage.name, key) if key else None
        fresh = stage.name in self.selection.fresh
        if ref and not fresh:
            manifest = self.store.manifest(stage.name, key)
            made = (manifest.created, manifest.seconds) if manifest else ("", 0.0)
            return Step(stage, "cached", (), ref, *made)
        latest = self.store.latest(stage.name)
        seconds = latest.seconds if latest else 0.0
        if fresh:
            return Step(stage, "run", ("asked for",), ref, seconds=seconds)
        if waits:
            names = dict.fromkeys(waits)
            inputs = "input" if len(names) == 1 else "inputs"
            reason = f"{inputs} {', '.join(names)} would run"
            return Step(stage, "open", (reason,), seconds=seconds)
        reasons = tuple(self._explain(stage, arguments, key, latest))
        return Step(stage, "run", reasons, seconds=seconds)

    def _explain(
        self, stage: Stage, arguments: Arguments, key: str, latest: Manifest | None
    ) -> Iterator[str]:
        if self.store.entry_path(stage.name, key).exists():
            yield from self.store.damage(stage.name, key)
        elif latest is None:
            yield "never ran"
        else:
            changes = list(compare(latest, stage, arguments))
            yield from changes or [f"its result {key[:12]} is gone from the store"]


def compare(latest: Manifest, stage: Stage, arguments: Arguments) -> Iterator[str]:
    """What differs between a stage as it would run and as it ran, a line each."""
    for name, ref in inputs_of(arguments).items():
        before = latest.inputs.get(name)
        if before is None or before.digest != ref.digest:
            yield f"input {ref.stage} changed"
    yield from _changes(latest.settings, settings_of(arguments))
    code = stage.code()
    for name in sorted(latest.code.keys() | code.keys()):
        if name not in code:
            yield f"{name} is gone"
        elif name not in latest.code:
            yield f"{name} is new"
        elif latest.code[name] != code[name]:
            yield f"{name} changed"
    yield from _changes(latest.versions, stage.versions())


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name} {_shown(before.get(name))} -> {_shown(now.get(name))}"


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)

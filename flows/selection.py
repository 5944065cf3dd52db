"""Which stages a run is about: one alone, one and all after it, some afresh."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from artifacts.reference import Ref
from flows.pipeline import Job, pipeline
from models.config import Config, ConfigError, Section
from models.sources import Source
from tasks.stage import Stage, inputs_of

Graph = Mapping[str, tuple[str, ...]]


class Rerun(Section):
    """What to compute although it may be in the store."""

    only: str = Field("", description="Compute this stage alone, its inputs from the store.")
    start: str = Field("", description="Compute this stage and all after it.")
    refresh: tuple[str, ...] = Field((), description="Compute these stages.")
    cache: bool = Field(True, description="Use what is in the store; false computes every stage.")
    with_upstream: bool = Field(
        False, description="With `only`: compute missing inputs too, instead of refusing."
    )


@dataclass(frozen=True)
class Selection:
    """A ``Rerun`` worked out for the stages there are.

    Attributes:
        wanted: Stages this run is about.
        fresh: Stages to compute even if they are cached.
        stored: Stages that must be in the store.
    """

    wanted: frozenset[str]
    fresh: frozenset[str]
    stored: frozenset[str]


def read_graph(config: Config, job: Job = pipeline) -> Graph:
    """Each stage's name with the names of the stages whose results it takes, in running order."""
    graph: dict[str, tuple[str, ...]] = {}

    def record(stage: Stage, /, **arguments: Any) -> Ref:
        graph[stage.name] = tuple(ref.stage for ref in inputs_of(arguments).values())
        return Ref.pending(stage.name)

    job(config, Source(kind="", files={}), record)
    return graph


def select(rerun: Rerun, graph: Graph) -> Selection:
    """Works out which stages a run is about.

    Raises:
        ConfigError: If a stage is named that there is not, or if two wishes exclude each other.
    """
    problems = list(_problems(rerun, graph))
    if problems:
        raise ConfigError(problems)
    wanted, stored = frozenset(graph), frozenset[str]()
    fresh = set(rerun.refresh)
    if rerun.only:
        upstream = _upstream(rerun.only, graph)
        wanted = upstream | {rerun.only}
        fresh.add(rerun.only)
        stored = frozenset() if rerun.with_upstream else upstream - fresh
    if rerun.start:
        fresh |= {rerun.start, *(n for n in graph if rerun.start in _upstream(n, graph))}
    if not rerun.cache:
        fresh |= wanted - stored
    return Selection(wanted, frozenset(fresh) & wanted, stored)


def _upstream(name: str, graph: Graph) -> frozenset[str]:
    found: set[str] = set()
    for parent in graph[name]:
        found |= {parent, *_upstream(parent, graph)}
    return frozenset(found)


def _problems(rerun: Rerun, graph: Graph) -> Iterator[str]:
    for name in filter(None, (rerun.only, rerun.start, *rerun.refresh)):
        if name not in graph:
            close = difflib.get_close_matches(name, graph, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(graph)}"
            yield f"unknown stage {name!r}; {hint}"
    if rerun.only and rerun.start:
        yield "one stage alone (--only) and a stage with all after it (--from) exclude each other"
    if rerun.with_upstream and not rerun.only:
        yield "computing missing inputs (--with-upstream) goes with one stage alone (--only)"

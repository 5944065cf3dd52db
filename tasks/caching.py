"""Stages as Prefect tasks: our keys through Prefect's own caching, retries and names."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from inspect import Signature
from typing import Any, cast

from prefect import Task, get_run_logger, runtime
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore, get_result_store
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from artifacts import files
from artifacts.reference import Ref
from artifacts.store import Store, is_transient
from models.config import Limits
from tasks.stage import Stage


@dataclass(kw_only=True)
class StageKey(CachePolicy):
    """Prefect's cache key for a stage; lets a hit count only if the entry in the store is whole.

    Prefect believes its own result record and never looks at what the record refers to. So before
    Prefect looks, the record is made to say what the store says: absent where the entry is not
    whole, right where it is. The store alone decides, and a damaged record heals.
    """

    stage: Stage
    store: Store
    # The manifest found when the key was asked for: what `Stage.run` compares with.
    found: dict[str, bytes | None] = field(default_factory=dict)

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The stage's name and key; see the class."""
        key = self.stage.key(inputs)
        name = f"{self.stage.name}-{key}"
        # Prefect gives a coroutine only to callers that are themselves asynchronous.
        results = cast(ResultStore, get_result_store().update_for_task(task_ctx.task))
        # One at a time: else a run that found no entry could still remove the record of one made
        # since, which another has found whole and trusts Prefect to find by its record.
        with self.store.lock(self.store.records_path().name, name):
            self.found[key] = self.store.raw_manifest(self.stage.name, key)
            ref = self.store.find(self.stage.name, key)
            if ref is None:
                (self.store.records_path() / name).unlink(missing_ok=True)
            elif _recorded(results, name) != ref:
                results.write(ref, key=name)
        return name


def _recorded(results: ResultStore, name: str) -> object:
    try:
        return results.read(name).result
    except Exception:  # noqa: BLE001 - whatever is wrong with the record, it is written anew
        return None


class Records(LocalFileSystem):
    """Where Prefect keeps its result records: whole whenever another run reads them."""

    _block_type_name = "Headstart Records"

    # Prefect's own can be called both ways, and is told which; from a task always this one.
    def write_path(self, path: str, content: bytes, **_: bool) -> str:  # type: ignore[override]
        """Replaces a record; returns its path."""
        place = self._resolve_path(path)
        files.write_atomic(place, content, durable=False)
        return str(place)


def as_task(
    stage: Stage, store: Store, limits: Limits, refresh: bool | None = None
) -> Task[..., Ref]:
    """A stage as a Prefect task on one store.

    Args:
        stage: What to run.
        store: Where its inputs lie and its result goes.
        limits: How often to try, and for how long.
        refresh: True computes it even if it is cached. None leaves that to Prefect's settings.
    """
    policy = StageKey(stage=stage, store=store)

    @wraps(stage.function)
    def body(**arguments: Any) -> Ref | State[Ref]:
        key = stage.key(arguments)
        # Told not to cache, Prefect has not asked for the key.
        before = policy.found[key] if key in policy.found else store.raw_manifest(stage.name, key)
        ref, computed = stage.run(arguments, store, before)
        logger = get_run_logger()
        if not computed:
            logger.info("%s was made by another run meanwhile: taken", stage.name)
            return Completed(name="Cached", message="made by another run meanwhile", data=ref)
        logger.info("%s: %s", stage.name, ref.metrics)
        return ref

    body.__signature__ = Signature(stage.parameters)  # type: ignore[attr-defined] # for Prefect
    task = Task(
        cast(Callable[..., Ref], body),
        name=stage.name,
        description=stage.summary,
        task_run_name=lambda: stage.describe(runtime.task_run.parameters),
        cache_policy=policy,
        refresh_cache=refresh,
        persist_result=True,
        result_serializer="json",
        cache_result_in_memory=False,
        retries=limits.retries,
        timeout_seconds=limits.stage_seconds or None,
        retry_delay_seconds=exponential_backoff(backoff_factor=2),
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_retry,
    )
    # Not an argument: there Prefect wants a block that its server knows.
    task.result_storage = Records(basepath=str(store.records_path()))
    return task


def _may_retry(task: Task[..., Any], run: object, state: State[Any]) -> bool:
    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - this asks what the error is
        transient = is_transient(error)
        if transient:
            logging.getLogger("headstart").warning("%s: %s; trying again", task.name, error)
        return transient
    return False

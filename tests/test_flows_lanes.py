"""Stages that run beside others: both at once, one failing, one interrupted."""

import contextvars
import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifacts.reference import Ref
from artifacts.runs import RunRecord, load_runs
from flows.account import PATIENCE
from flows.lanes import Abandoned, Lanes
from flows.pipeline import Runner, SideRunner, pipeline
from flows.selection import read_graph
from models.config import Config
from models.interruption import interruptibly
from models.sources import Source
from tasks import progress
from tasks.progress import Event
from tasks.stage import Stage, Work
from tests.imitation import ImitatedBeside

GRAPH = read_graph(Config())
LIMIT = 30.0
Body = Callable[[Work], object]


def tell() -> None:
    progress.emit(Event("any", "progress"))


# --- Lanes alone ---


def test_lanes_run_at_once_and_give_what_they_found() -> None:
    together = threading.Barrier(3)
    lanes = Lanes()
    waits = [lanes.begin(lambda n=n: (together.wait(LIMIT), n)[1]) for n in (1, 2)]
    together.wait(LIMIT)
    assert [wait() for wait in waits] == [1, 2]


def test_a_lane_raises_where_it_is_waited_for() -> None:
    wait = Lanes().begin(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        wait()


def test_a_lane_knows_what_whoever_began_it_knows() -> None:
    known = contextvars.ContextVar("known", default="nothing")
    known.set("something")
    assert Lanes().begin(known.get)() == "something"


def test_an_abandoned_lane_ends_at_its_next_progress_and_the_main_line_goes_on() -> None:
    lanes, begun = Lanes(), threading.Event()

    def work() -> None:
        while True:
            tell()
            begun.set()

    with progress.listening(lanes):
        wait = lanes.begin(work)
        assert begun.wait(LIMIT)
        assert not lanes.abandoned
        lanes.abandon(None)
        tell()
    with pytest.raises(Abandoned):
        wait()


def test_an_abandoned_lane_does_not_wait_for_what_it_has_computed() -> None:
    lanes, begun, may_end = Lanes(), threading.Event(), threading.Event()

    def compute() -> None:
        begun.set()
        may_end.wait(LIMIT)

    def work() -> None:
        with interruptibly() as call:
            call(compute)

    wait = lanes.begin(work)
    assert begun.wait(LIMIT)
    lanes.abandon(None)
    with pytest.raises(Abandoned):
        wait()
    may_end.set()


def test_a_lane_that_tells_nothing_is_not_waited_for_longer_than_there_is_patience() -> None:
    lanes, may_end = Lanes(), threading.Event()
    wait = lanes.begin(lambda: may_end.wait(LIMIT))
    began = time.monotonic()
    lanes.abandon(0.05)
    assert 0.05 <= time.monotonic() - began < LIMIT / 2
    may_end.set()
    assert wait()


def test_listeners_hear_one_event_at_a_time() -> None:
    inside, most = [0], [0]

    def listen(_: Event) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.001)
        inside[0] -= 1

    def tell_often() -> None:
        for _ in range(20):
            tell()

    with progress.listening(listen):
        waits = [Lanes().begin(tell_often) for _ in range(3)]
        for wait in waits:
            wait()
    assert most == [1]


# --- In a flow ---


def with_body(bodies: dict[str, Body], stage: Stage) -> Stage:
    """A stage that does what its body does, and leaves its name."""

    @functools.wraps(stage.function)
    def function(work: Work, **_: Any) -> dict[str, Any]:
        bodies.get(stage.name, lambda _: None)(work)
        work.save_array("name.npy", np.frombuffer(stage.name.encode(), np.uint8))
        return {}

    return dataclasses.replace(stage, function=function)


@pytest.fixture
def run(prefect_api, tmp_path: Path, monkeypatch) -> Callable[[dict[str, Body]], RunRecord]:
    """Runs the flow with other bodies of its stages."""
    from flows.transfer_learning import transfer_learning

    images, labels = np.ones((400, 4), np.float32), np.arange(400) % 10
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "images.npz", **arrays)
    few = {"few_shot": 2, "few_shot_validation": 1, "validation_rows": 100}
    data = {"dataset": str(tmp_path / "images.npz"), **few}
    config = Config.model_validate({"data": data})

    def run(bodies: dict[str, Body]) -> RunRecord:
        imitate = functools.partial(with_body, bodies)

        def job(config: Config, source: Source, call: Runner) -> Ref:
            both = isinstance(call, SideRunner)
            return pipeline(config, source, ImitatedBeside(imitate, call) if both else call)

        monkeypatch.setattr("flows.transfer_learning.pipeline", job)
        monkeypatch.setattr("flows.transfer_learning.post_artifacts", lambda *_: None)
        return transfer_learning(config, store=str(tmp_path / "store"))

    return run


def last_record(tmp_path: Path) -> RunRecord:
    return next(iter(load_runs(tmp_path / "store")))


def wait_in(barrier: threading.Barrier) -> Body:
    return lambda _: barrier.wait(LIMIT)


def test_baselines_are_trained_beside_the_trunk_and_told_in_the_usual_order(run) -> None:
    both, later = threading.Barrier(2), threading.Barrier(2)
    record = run(
        {
            "pretrain": wait_in(both),
            "train-pixels": wait_in(both),
            "fine-tune": wait_in(later),
            "train-scratch": wait_in(later),
        }
    )
    assert [stage.name for stage in record.stages] == list(GRAPH)
    assert {stage.state for stage in record.stages} == {"ran"}


def test_a_run_fails_with_the_stage_beside_and_keeps_what_came_before(run, tmp_path) -> None:
    def fail(_: Work) -> None:
        msg = "no such thing"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="no such thing"):
        run({"train-scratch": fail})
    record = last_record(tmp_path)
    assert (record.status, record.error) == ("failed", "train-scratch: no such thing")
    states = {stage.name: stage.state for stage in run({}).stages}
    assert {name for name, state in states.items() if state == "ran"} == {
        "train-scratch",
        "evaluate",
        "publish",
    }


def test_a_run_names_the_stage_that_ended_it_not_the_one_that_failed_beside(run, tmp_path) -> None:
    failing = threading.Event()

    def fail_first(_: Work) -> None:
        failing.set()
        msg = "not yet heard of"
        raise ValueError(msg)

    def fail(_: Work) -> None:
        assert failing.wait(LIMIT)
        time.sleep(0.5)
        msg = "no such thing"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="no such thing"):
        run({"train-pixels": fail_first, "pretrain": fail})
    assert last_record(tmp_path).error == "pretrain: no such thing"


def test_a_run_that_fails_ends_the_stage_beside_it(run, tmp_path) -> None:
    begun, ended = threading.Event(), threading.Event()

    def train(work: Work) -> None:
        try:
            while True:
                begun.set()
                work.progress("network", 1, 10)
        finally:
            ended.set()

    def fail(_: Work) -> None:
        assert begun.wait(LIMIT)
        msg = "no such thing"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="no such thing"):
        run({"train-pixels": train, "pretrain": fail})
    assert ended.is_set()
    record = last_record(tmp_path)
    assert (record.status, record.error) == ("failed", "pretrain: no such thing")
    assert run({}).status == "completed"


def test_who_interrupts_a_run_does_not_wait_for_the_stage_beside(run, tmp_path) -> None:
    begun, may_end = threading.Event(), threading.Event()
    interrupted: list[float] = []

    def train(_: Work) -> None:
        begun.set()
        may_end.wait(LIMIT)

    def interrupt(_: Work) -> None:
        assert begun.wait(LIMIT)
        interrupted.append(time.monotonic())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"train-pixels": train, "pretrain": interrupt})
    assert PATIENCE <= time.monotonic() - interrupted[0] < LIMIT / 2
    may_end.set()
    # What it still came to changes nothing in the account.
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name.startswith("lane"):
            thread.join(LIMIT)
    assert last_record(tmp_path).status == "interrupted"

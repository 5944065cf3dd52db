import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from artifacts.garbage import describe_size, find_garbage, remove
from artifacts.runs import (
    RunRecord,
    StageRecord,
    load_runs,
    report_path,
    save_run,
    staying_alive,
)
from artifacts.store import Store

NOTHING, A_MONTH = timedelta(0), timedelta(days=30)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def make_entry(store, stage, key, content=b"result"):
    with store.draft(stage, key) as draft:
        (draft.path / "file").write_bytes(content)
        return store.commit(draft, seconds=1.0)


def make_run(store, name, *refs, status="completed", age=timedelta(days=1)):
    stages = [
        StageRecord(name=ref.stage, state="ran", key=ref.key, digest=ref.digest, seconds=1.0)
        for ref in refs
    ]
    started = (datetime.now(UTC) - age).isoformat()
    record = RunRecord(run=name, started=started, status=status, stages=tuple(stages))
    save_run(store.root, record)
    return record


def collect(store, keep_runs, older_than=NOTHING):
    for garbage in list(find_garbage(store, keep_runs, older_than)):
        remove(store, garbage)


def test_only_what_no_kept_run_reaches_goes(store):
    make_run(store, "1-old", make_entry(store, "pretrain", "a"), make_entry(store, "split", "s"))
    make_run(store, "2-new", make_entry(store, "pretrain", "b"), make_entry(store, "split", "s"))
    collect(store, keep_runs=1)
    assert list(store.entries()) == [("pretrain", "b"), ("split", "s")]
    assert [record.run for record in load_runs(store.root)] == ["2-new"]


def test_what_is_young_stays(store):
    make_run(store, "1", make_entry(store, "pretrain", "a"))
    make_entry(store, "pretrain", "of-no-run")
    collect(store, keep_runs=0, older_than=A_MONTH)
    assert len(list(store.entries())) == 2


def test_what_a_run_under_way_uses_or_has_made_since_it_began_stays(store):
    used = make_entry(store, "split", "s")
    make_run(store, "1-alive", used, status="running", age=timedelta(seconds=1))
    make_entry(store, "pretrain", "made-since")
    with staying_alive(store.root, "1-alive"):
        collect(store, keep_runs=0)
    assert list(store.entries()) == [("pretrain", "made-since"), ("split", "s")]


def test_a_run_that_died_is_no_longer_under_way(store):
    make_run(store, "1-dead", make_entry(store, "split", "s"), status="running")
    collect(store, keep_runs=0)
    assert not list(store.entries())


def test_a_draft_of_a_dead_run_goes_and_one_being_made_stays(store):
    (store.root / "pretrain" / ".tmp-a-99999-cafe").mkdir(parents=True)
    (store.root / "pretrain" / ".tmp-b-99999-cafe").mkdir(parents=True)
    with store.lock("pretrain", "b"):
        collect(store, keep_runs=10)
    assert [path.name for path in store.root.glob("*/.tmp-*")] == [".tmp-b-99999-cafe"]


def test_a_file_that_was_never_finished_goes_and_one_being_written_stays(store):
    for folder, age in (("runs", 0), ("runs", 3600), (".prefect", 0), (".prefect", 3600)):
        path = store.root / folder / f".tmp-file-{age}"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    (found, other) = find_garbage(store, 10, timedelta(0))
    assert (found.size, other.size) == (4, 4)
    collect(store, keep_runs=10)
    left = store.root.glob("*/.tmp-*")
    assert sorted((path.parent.name, path.name) for path in left) == [
        (".prefect", ".tmp-file-0"),
        ("runs", ".tmp-file-0"),
    ]


def test_traces_beside_an_entry_go_with_it(store):
    make_entry(store, "pretrain", "a")
    record = store.records_path() / "pretrain-a"
    record.parent.mkdir()
    record.write_text("{}")
    collect(store, keep_runs=0)
    assert not record.exists()
    assert not (store.root / ".stamps" / "pretrain" / "a").exists()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345_678, "12.3 MB")]
    + [(7_000_000_000, "7.0 GB"), (8_000_000_000_000, "8000.0 GB")],
)
def test_sizes_are_for_people(size, text):
    assert describe_size(size) == text


def test_a_runs_report_goes_with_it(store):
    for name in ("1-old", "2-new"):
        make_run(store, name)
        report_path(store.root, name).write_text("<!doctype html>")
    collect(store, keep_runs=1)
    assert sorted(path.name for path in (store.root / "runs").iterdir()) == [
        "2-new.html",
        "2-new.json",
    ]

from datetime import timedelta

import pytest

from artifacts import registry
from artifacts.garbage import find_garbage, remove
from artifacts.registry import champion, history, promote, rollback
from artifacts.store import Store, StoreError
from tests.faults import Disk, Fault, photograph, standing_between

NOBODY = {"who": "the test", "why": "to see"}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def make_model(store, key):
    with store.draft(registry.MODEL_STAGE, key) as draft:
        (draft.path / "target.keras").write_bytes(key.encode() * 100)
        return store.commit(draft, seconds=1.0)


def champion_key(store):
    present = champion(store)
    return present.model.key if present else None


def test_the_latest_promoted_is_the_champion_and_the_history_says_why(store):
    assert champion(store) is None
    first, second = make_model(store, "a"), make_model(store, "b")
    promote(store, first, who="ada", why="the first")
    promote(store, second, who="nightly-retrain", why="better, p = 0.001")
    assert champion_key(store) == "b"
    told = [(record.model.key, record.who, record.why) for record in history(store)]
    assert told == [("b", "nightly-retrain", "better, p = 0.001"), ("a", "ada", "the first")]


def test_rolling_back_twice_goes_back_twice(store):
    for key in "abc":
        promote(store, make_model(store, key), **NOBODY)
    assert [rollback(store, **NOBODY).model.key for _ in range(2)] == ["b", "a"]
    assert [record.action for record in history(store)] == ["rollback"] * 2 + ["promote"] * 3
    with pytest.raises(StoreError, match="no champion before this one"):
        rollback(store, **NOBODY)


def test_what_is_promoted_after_a_rollback_rolls_back_to_what_was_champion_then(store):
    for key in "ab":
        promote(store, make_model(store, key), **NOBODY)
    rollback(store, **NOBODY)
    promote(store, make_model(store, "c"), **NOBODY)
    assert rollback(store, **NOBODY).model.key == "a"


def test_a_damaged_model_is_no_champion(store):
    promote(store, make_model(store, "a"), **NOBODY)
    bad = make_model(store, "b")
    (store.entry_path(bad.stage, bad.key) / "target.keras").write_bytes(b"?" * 100)
    with pytest.raises(StoreError, match="cannot be champion: target.keras is damaged"):
        promote(store, bad, **NOBODY)
    assert champion_key(store) == "a"


def test_rolling_back_passes_over_a_damaged_model(store):
    models = [make_model(store, key) for key in "abc"]
    for model in models:
        promote(store, model, **NOBODY)
    (store.entry_path(models[1].stage, "b") / "target.keras").unlink()
    assert rollback(store, **NOBODY).model.key == "a"


@pytest.mark.parametrize("name", ["champion", "records"])
def test_a_damaged_registry_is_told_and_never_guessed_at(store, name):
    promote(store, make_model(store, "a"), **NOBODY)
    place = store.root / ".registry" / name
    path = place if place.is_file() else next(place.iterdir())
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        champion(store)
    with pytest.raises(StoreError, match="damaged"):
        list(find_garbage(store, 0, timedelta(0)))


@pytest.mark.parametrize("change", [promote, rollback])
def test_killed_anywhere_the_champion_is_one_whole_model(store, tmp_path, change):
    for key in "ab":
        promote(store, make_model(store, key), **NOBODY)
    new = make_model(store, "c")
    before, after = "b", "c" if change is promote else "a"
    seen = []

    def look(disk, operation):
        copy = photograph(store.root, tmp_path / "copy")
        disk.cut_power(copy)
        left = Store(copy)
        present = champion(left)
        assert left.damage(present.model.stage, present.model.key) == []
        seen.append(present.model.key)

    arguments = (new,) if change is promote else ()
    disk = Disk(store.root, watch=look)
    # What was there before was synced long ago.
    for path in store.root.rglob("*"):
        facts = path.stat()
        disk.synced[facts.st_ino] = (facts.st_size, facts.st_mtime_ns)
    with standing_between(disk):
        change(store, *arguments, **NOBODY)
    assert champion_key(store) == after
    assert set(seen) <= {before, after}
    assert len(seen) > 5


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO", "torn"])
def test_a_failing_disk_leaves_the_champion_or_makes_the_new_one(store, kind):
    promote(store, make_model(store, "a"), **NOBODY)
    new = make_model(store, "b")
    for nth in range(1, 100):
        disk = Disk(store.root, fault=Fault(kind, nth))
        with standing_between(disk):
            try:
                promote(store, new, **NOBODY)
            except OSError:
                assert champion_key(store) in ("a", "b")
        if disk.hit is None:
            break
    assert nth > 5
    assert champion_key(store) == "b"


def test_garbage_collection_keeps_the_last_champions_and_no_others(store):
    for key in "abcd":
        promote(store, make_model(store, key), **NOBODY)
    make_model(store, "e")
    for garbage in list(find_garbage(store, 0, timedelta(0), keep_champions=2)):
        remove(store, garbage)
    assert [key for _, key in store.entries()] == ["c", "d"]
    assert rollback(store, **NOBODY).model.key == "c"

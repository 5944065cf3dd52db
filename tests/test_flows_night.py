import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from artifacts import files, registry
from artifacts.nights import load_nights
from artifacts.store import Store
from flows.night import Around, decide, run_night, tidy_up
from models.config import Config, load_config
from tests.faults import Disk, photograph, standing_between

LABELS = np.arange(1000) % 2
NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def make_model(store, key, wrong, holdout="the same"):
    """A packaged model with so many wrong answers on a hold-out; it cannot predict."""
    predicted = LABELS.copy()
    predicted[:wrong] = 1 - predicted[:wrong]
    answers = {
        "source_labels": LABELS[:500],
        "source_predicted": predicted[:500],
        "target_labels": LABELS[500:],
        "target_predicted": predicted[500:],
    }
    with store.draft("package", key) as draft:
        (draft.path / "answers.npz").write_bytes(files.pack_arrays(answers))
        draft.metrics = {"accuracy": 1 - wrong / 1000, "holdout": holdout}
        return store.commit(draft, seconds=1.0)


def champion_key(store):
    return registry.champion(store).model.key


def try_out(store, challenger):
    return decide(store, challenger, Config())


def test_the_first_is_promoted_then_only_the_better_one(store):
    first = make_model(store, "first", wrong=100)
    assert try_out(store, first).promote
    same, better = make_model(store, "same", wrong=98), make_model(store, "better", wrong=50)
    assert not try_out(store, same).promote
    assert champion_key(store) == "first"
    assert try_out(store, better).promote
    assert champion_key(store) == "better"
    assert "50 won, 0 lost" in registry.champion(store).why
    assert registry.champion(store).who == "nightly-retrain"


def test_a_model_is_not_compared_with_itself_nor_across_hold_outs(store):
    first = make_model(store, "first", wrong=100)
    try_out(store, first)
    assert "nothing new" in try_out(store, first).why
    other = make_model(store, "other", wrong=0, holdout="another")
    verdict = try_out(store, other)
    assert not verdict.promote
    assert "another hold-out" in verdict.why


def test_housekeeping_keeps_the_champions_it_is_told_to(store):
    for number in range(4):
        model = make_model(store, f"model{number}", wrong=100 - number)
        registry.promote(store, model, "the test", "to see")
    settings = ["nightly.keep_champions=2", "nightly.keep_runs=0", "nightly.keep_days=0"]
    assert tidy_up(store, load_config(None, settings)) > 0
    assert [key for _, key in store.entries()] == ["model2", "model3"]


# --- a whole night, with a pipeline that only pretends ---


def spend(store, monkeypatch, wrong, key=None, night=0, **nightly):
    """One night whose challenger has so many wrong answers; the record and what was told."""
    told = []
    name = key or f"model{night}"
    monkeypatch.setattr(
        "flows.night.make_candidate", lambda store, evaluation: make_model(store, name, wrong)
    )
    around = Around(
        retrain=lambda config: None,
        tell=told.append,
        now=lambda: NOW + timedelta(days=night),
        step=lambda name, part: part(),
    )
    settings = [f"nightly.{field}={value}" for field, value in nightly.items()]
    record = run_night(load_config(None, settings), store, around)
    return record, [notice.title for notice in told]


def test_a_promotion_is_told(store, monkeypatch):
    record, told = spend(store, monkeypatch, wrong=100)
    assert record.promoted
    assert told == ["headstart: new champion model0"]
    assert (record.accuracy, record.champion) == (0.9, "model0")
    assert record.store_bytes > 0


def test_too_many_nights_without_promotion_are_told_now_and_then(store, monkeypatch):
    titles = []
    for night in range(8):
        _, told = spend(store, monkeypatch, wrong=100, night=night, patience=3)
        titles.append(told)
    assert [bool(told) for told in titles] == [True, False, False, True, False, False, True, False]
    assert titles[3] == ["headstart: no promotion for 3 nights"]


def test_a_damaged_champion_gives_way_to_the_one_before_it(store, monkeypatch):
    spend(store, monkeypatch, wrong=200, night=0)
    spend(store, monkeypatch, wrong=100, night=1)
    answers = store.entry_path("package", "model1") / "answers.npz"
    answers.write_bytes(b"?" * answers.stat().st_size)
    record, _ = spend(store, monkeypatch, wrong=201, night=2)
    assert (record.champion, record.promoted) == ("model0", False)
    assert "answers.npz is damaged" in registry.champion(store).why


def test_if_every_champion_is_damaged_the_new_model_is_champion(store, monkeypatch):
    spend(store, monkeypatch, wrong=100, night=0)
    (store.entry_path("package", "model0") / "answers.npz").unlink()
    record, _ = spend(store, monkeypatch, wrong=300, night=1)
    assert (record.champion, record.promoted) == ("model1", True)


def test_a_failed_night_leaves_its_record_and_the_champion(store, monkeypatch):
    spend(store, monkeypatch, wrong=100)

    def fail(config):
        raise OSError(28, "No space left on device")

    make_model(store, "nobody-needs-this", wrong=500)
    around = Around(fail, print, lambda: NOW + timedelta(days=1), lambda name, part: part())
    with pytest.raises(OSError, match="No space left"):
        run_night(load_config(None, ["nightly.keep_days=0"]), store, around)
    # Room is made all the same: a full disk must not stay full for want of a night that ends.
    assert [key for _, key in store.entries()] == ["model0"]
    latest = next(load_nights(store.root))
    assert (latest.status, "No space left" in latest.error) == ("failed", True)
    assert champion_key(store) == "model0"


def test_killed_anywhere_the_next_night_needs_no_hand(store, tmp_path, monkeypatch):
    spend(store, monkeypatch, wrong=100)
    moments = itertools.count()
    left = []

    def look(disk, operation):
        left.append(photograph(store.root, tmp_path / f"copy{next(moments)}"))

    with standing_between(Disk(store.root, watch=look)):
        spend(store, monkeypatch, wrong=50, night=1, keep_days=0)
    assert len(left) > 20
    for copy in left:
        found = Store(copy)
        model = registry.champion(found).model
        assert model.key in ("model0", "model1")
        assert found.damage(model.stage, model.key) == []
        record, _ = spend(found, monkeypatch, wrong=50, key="model1", night=2, keep_days=0)
        assert (record.status, record.champion) == ("completed", "model1")

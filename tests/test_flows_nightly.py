"""The nightly flow on a Prefect server of the tests' own, with a pipeline that only pretends."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Running

from artifacts.nights import NightRecord, begin_night, load_nights, save_night
from flows import nightly
from flows.notices import Notice
from models.config import load_config


@pytest.fixture
def told(monkeypatch):
    """The notices that are sent."""
    sent: list[Notice] = []
    monkeypatch.setattr("flows.nightly.send", lambda notice, urls: sent.append(notice))
    return sent


@pytest.fixture
def pretend(monkeypatch):
    """Replaces the work of a night."""

    def replace(work):
        monkeypatch.setattr("flows.night._work", work)

    return replace


def complete(config, store, around, record: NightRecord) -> NightRecord:
    done = record.model_copy(update={"status": "completed", "why": "for the test"})
    save_night(store.root, done)
    return done


def run(store, **settings):
    config = load_config(None, [f"nightly.{name}={value}" for name, value in settings.items()])
    return nightly.nightly_retrain(config=config, store=str(store), return_state=True)


def test_a_night_is_recorded(prefect_api, tmp_path, told, pretend):
    pretend(complete)
    assert run(tmp_path).name == "Completed"
    assert [record.status for record in load_nights(tmp_path)] == ["completed"]
    assert told == []


def test_a_night_that_another_has_done_is_skipped(prefect_api, tmp_path, told, pretend):
    pretend(complete)
    later = begin_night(datetime.now(UTC) + timedelta(hours=1))
    save_night(tmp_path, later.model_copy(update={"status": "completed"}))
    assert run(tmp_path).name == "Skipped"
    assert len(list(load_nights(tmp_path))) == 1


def test_a_night_that_died_is_marked_and_told_by_the_next(prefect_api, tmp_path, told, pretend):
    """Killed without a word, a night is Running in Prefect for ever unless somebody looks."""
    with get_client(sync_client=True) as client:
        dead = client.create_flow_run(nightly.nightly_retrain, state=Running()).id
        yesterday = datetime.now(UTC) - timedelta(days=1)
        save_night(tmp_path, begin_night(yesterday, str(dead)))
        pretend(complete)
        assert run(tmp_path).name == "Completed"
        assert client.read_flow_run(dead).state.type.value == "CRASHED"
    assert [record.status for record in load_nights(tmp_path)] == ["completed", "died"]
    assert [notice.title for notice in told] == ["headstart: a night died"]


def test_a_crash_that_prefect_sees_is_told_at_once(prefect_api, tmp_path, told, pretend):
    def die(config, store, around, record):
        raise KeyboardInterrupt

    pretend(die)
    with pytest.raises(KeyboardInterrupt):
        nightly.nightly_retrain(config=load_config(), store=str(tmp_path))
    assert [notice.title for notice in told] == ["headstart: nightly-retrain crashed"]


def test_a_failure_is_told_with_its_reason(prefect_api, tmp_path, told, pretend):
    def fail(config, store, around, record):
        raise OSError(28, "No space left on device")

    pretend(fail)
    assert run(tmp_path).type.value == "FAILED"
    (notice,) = told
    assert (notice.kind, notice.title) == ("failure", "headstart: nightly-retrain failed")
    assert "No space left on device" in notice.text
    assert [record.status for record in load_nights(tmp_path)] == ["failed"]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_an_address_that_nobody_serves_fails_before_any_work(prefect_api, tmp_path, told, pretend):
    pretend(complete)
    assert run(tmp_path, notify="nosuch://a").type.value == "FAILED"
    assert list(load_nights(tmp_path)) == []

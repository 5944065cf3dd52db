"""What Prefect's UI is told while a run goes on, and that nobody's result depends on it."""

import dataclasses
import functools
import logging
import uuid
from types import SimpleNamespace

import pytest

from artifacts.report import render
from artifacts.runs import load_runs
from artifacts.store import Store
from flows.live import LiveProgress, describe, share_done
from flows.pipeline import pipeline
from models.config import TINY, Config
from tasks.progress import Event, emit, listening

EPOCH = Event("pretrain", "progress", "trunk", 12, 1000, {"val_loss": 0.03125})
END = Event("pretrain", "end", "ran", values={"seconds": 3.0})


class Client:
    """Keeps what Prefect's server would be told."""

    def __init__(self):
        self.created, self.updated, self.tags = [], [], None

    def update_flow_run(self, flow_run_id, tags):
        self.tags = tags

    def create_artifact(self, artifact):
        self.created.append((artifact.key, artifact.type, artifact.data, artifact.description))
        return SimpleNamespace(id=uuid.uuid4())

    def update_artifact(self, artifact_id, artifact):
        self.updated.append((artifact.data, artifact.description))


@pytest.fixture
def client(monkeypatch):
    made = Client()
    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda **_: made)
    return made


def live(**more):
    return LiveProgress(str(uuid.uuid4()), {"seed-42", "headstart"}, **more)


def test_an_epoch_is_a_share_of_the_most_there_can_be():
    assert share_done(EPOCH) == 1.2
    assert describe(EPOCH) == "pretrain: trunk, 12 of at most 1000, val_loss 0.0312"
    assert share_done(END) == 100.0
    assert share_done(dataclasses.replace(EPOCH, total=0)) == 0.0


def test_a_stage_has_one_artifact_that_is_kept_up_to_date(client):
    told, watcher = {}, live()
    for event in (EPOCH, dataclasses.replace(EPOCH, done=500), END):
        watcher(event)
        watcher._tell(client, told)
        watcher._tell(client, told)
    assert client.created == [("progress-pretrain", "progress", 1.2, describe(EPOCH))]
    assert [data for data, _ in client.updated] == [50.0, 100.0]


def test_a_stage_that_tells_of_no_progress_gets_no_artifact(client):
    with live() as watcher, listening(watcher):
        emit(dataclasses.replace(END, stage="split-source"))
    assert client.created == []
    assert client.tags == ["headstart", "seed-42"]


def test_what_happened_last_is_told_before_the_run_ends(client):
    with live() as watcher, listening(watcher):
        emit(EPOCH)
        emit(END)
    assert client.created == [("progress-pretrain", "progress", 100.0, "pretrain: ran")]


def test_a_server_that_does_not_answer_only_ends_the_telling(client, monkeypatch, caplog):
    def refuse(*arguments):
        raise ConnectionError("gone")  # noqa: EM101 - as a library would

    monkeypatch.setattr(client, "create_artifact", refuse)
    with caplog.at_level(logging.WARNING), live() as watcher, listening(watcher):
        emit(EPOCH)
    assert "live progress ends: gone" in caplog.text


def breaking_off(config, source, call):
    """The pipeline, in which a stage fails."""

    def call_or_break(stage, /, **arguments):
        @functools.wraps(stage.function)  # With its name and module it keeps its key.
        def fail(work, **arguments):
            raise ValueError("no <b>more</b>")  # noqa: EM101 - any message

        broken = dataclasses.replace(stage, function=fail)
        return call(broken if stage.name == "split-source" else stage, **arguments)

    return pipeline(config, source, call_or_break)


@pytest.mark.slow
def test_a_run_that_fails_half_way_leaves_a_record_and_a_page_that_say_so(
    prefect_api, tmp_path, monkeypatch
):
    from flows.transfer_learning import transfer_learning

    monkeypatch.setattr("flows.transfer_learning.pipeline", breaking_off)
    store = Store(tmp_path / "store")
    with pytest.raises(ValueError, match="more"):
        transfer_learning(Config.model_validate(TINY), store=str(store.root))
    (record,) = load_runs(store.root)
    assert (record.status, record.error) == ("failed", "split-source: no <b>more</b>")
    assert [stage.name for stage in record.stages] == ["load-dataset"]
    html = render(store, record)
    assert "This run failed" in html
    assert "no &lt;b&gt;more&lt;/b&gt;" in html

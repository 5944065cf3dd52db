"""TensorBoard's event files: what was recorded, and the same bytes each time."""

import math

import pytest

tf = pytest.importorskip("tensorflow")

from models.events import NAME, write_events  # noqa: E402 - after it is known to be there

HISTORY = {"loss": [0.9, 0.5], "val_loss": [0.8, math.nan]}


def read(folder):
    """Step, tag and value of everything in an event file."""
    records = tf.data.TFRecordDataset(str(folder / NAME)).as_numpy_iterator()
    events = [tf.compat.v1.Event.FromString(record) for record in records]
    assert events[0].file_version == "brain.Event:2"
    return [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]


def test_every_epoch_is_a_step(tmp_path):
    write_events(HISTORY, tmp_path / "head on hidden1")
    found = read(tmp_path / "head on hidden1")
    assert found[:3] == [
        (1, "loss", pytest.approx(0.9)),
        (1, "val_loss", pytest.approx(0.8)),
        (2, "loss", 0.5),
    ]
    assert math.isnan(found[3][2])


def test_the_same_history_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        write_events(HISTORY, tmp_path / name)
    assert (tmp_path / "first" / NAME).read_bytes() == (tmp_path / "second" / NAME).read_bytes()


def test_an_empty_history_is_written(tmp_path):
    write_events({}, tmp_path)
    assert read(tmp_path) == []

import contextlib
import itertools
import json
import shutil
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem

from artifacts import versions
from artifacts.garbage import find_garbage, remove
from artifacts.store import DamagedEntry, Store
from flows.ingest import grow_few_shot, ingest
from models.config import Config, load_config
from models.datasets import find_dataset, load_dataset
from tests.faults import Disk, Fault, photograph, standing_between

GENERATOR = np.random.default_rng(7)


def draw(rows, classes=4):
    labels = np.arange(rows) % classes
    images = GENERATOR.integers(0, 60, (rows, 3, 3)) + 50 * labels[:, None, None]
    return images.astype(np.uint8), labels


BASE = (*draw(80), *draw(20))


@pytest.fixture
def place(tmp_path):
    """A folder with a dataset, an inbox and a store."""
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "base.npz", **dict(zip(names, BASE, strict=True)))
    (tmp_path / "inbox").mkdir()
    return tmp_path


def configure(place, **nightly):
    settings = [
        f"data.dataset={place / 'base.npz'}",
        "data.source_classes=0,1",
        "data.target_classes=2,3",
        "data.validation_rows=16",
        "data.few_shot=4",
        f"nightly.inbox={place / 'inbox'}",
        "nightly.settle_seconds=0",
        *(f"nightly.{name}={value}" for name, value in nightly.items()),
    ]
    return load_config(None, settings)


def deliver(place, name, images, labels):
    np.savez(place / "inbox" / name, x=images, y=labels)


def believe(images, labels):
    return ""


def take(place, doubt=believe, **nightly):
    return ingest(Store(place / "store"), configure(place, **nightly), doubt)


def quarantined(place):
    store = Store(place / "store")
    found = [store.manifest(*entry) for entry in store.entries() if entry[0] == "quarantine"]
    return [json.loads(store.read_bytes(m.ref, "account.json"))["reasons"] for m in found]


def test_what_is_good_joins_the_training_rows_after_those_held_for_validation(place):
    images, labels = draw(12)
    deliver(place, "monday.npz", images, labels)
    done = take(place)
    assert (done.total("accepted"), done.rows) == (12, {0: 3, 1: 3, 2: 3, 3: 3})
    grown = load_dataset(done.dataset)
    assert len(grown.x_train) == 92
    assert grown.x_train[:16].tolist() == BASE[0].reshape(80, 9)[:16].tolist()
    assert grown.x_train[16:28].tolist() == images.reshape(12, 9).tolist()
    assert grown.y_train[16:28].tolist() == labels.tolist()
    assert grown.x_test.tolist() == BASE[2].reshape(20, 9).tolist()
    assert list((place / "inbox").iterdir()) == []


def test_versions_grow_and_the_earlier_ones_stay_readable(place):
    sizes, versions_seen = [], []
    for night in range(3):
        deliver(place, f"{night}.npz", *draw(8))
        done = take(place)
        versions_seen.append(done.dataset)
        sizes.append(len(load_dataset(done.dataset).x_train))
    assert sizes == [88, 96, 104]
    assert [len(load_dataset(v).x_train) for v in versions_seen] == sizes
    assert len({str(find_dataset(v)) for v in versions_seen}) == 3


def test_without_deliveries_the_dataset_stays_what_it_is(place):
    assert take(place).dataset == str(place / "base.npz")
    deliver(place, "monday.npz", *draw(8))
    first = take(place)
    again = take(place)
    assert (again.dataset, again.rows, again.outcomes) == (first.dataset, first.rows, ())


def test_the_limit_is_for_the_dataset_that_was_there_first(place):
    deliver(place, "monday.npz", *draw(8))
    grown = load_dataset(take(place).dataset, limit=20)
    assert (len(grown.x_train), len(grown.x_test)) == (28, 20)


def test_the_same_delivery_again_counts_once(place):
    images, labels = draw(8)
    for name in ("monday.npz", "again.npz", "part.npz"):
        deliver(place, name, images, labels)
    deliver(place, "part.npz", images[:3], labels[:3])
    done = take(place)
    assert (done.total("accepted"), done.total("duplicates")) == (8, 11)
    deliver(place, "monday.npz", images, labels)
    done = take(place)
    assert (done.total("accepted"), len(load_dataset(done.dataset).x_train)) == (0, 88)


def test_bad_rows_go_to_quarantine_with_the_reason_and_the_good_ones_join(place):
    images, labels = draw(8)
    images[2], labels[5] = BASE[2][0], 9
    deliver(place, "monday.npz", images, labels)
    done = take(place)
    assert (done.total("accepted"), done.total("rejected")) == (6, 2)
    (reasons,) = quarantined(place)
    assert reasons == {
        "row 2": "is in the hold-out, which must stay unseen",
        "row 5": "has label 9; the classes are 0, 1, 2, 3",
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("evil.zip", b"PK", "archives are not unpacked"),
        ("torn.npz", b"PK\x03\x04", "cut short"),
        ("notes.txt", b"hello", "the inbox takes"),
    ],
)
def test_what_cannot_be_read_is_kept_as_it_came(place, name, content, reason):
    (place / "inbox" / name).write_bytes(content)
    done = take(place)
    assert reason in done.outcomes[0].reason
    store = Store(place / "store")
    (entry,) = [entry for entry in store.entries() if entry[0] == "quarantine"]
    ref = store.manifest(*entry).ref
    (kept,) = [file for file in ref.files if file != "account.json"]
    assert store.read_bytes(ref, kept) == content
    assert list((place / "inbox").iterdir()) == []


def test_a_link_that_climbs_out_is_refused_and_its_target_left(place):
    (place / "secret.npz").write_bytes(b"secret")
    (place / "inbox" / "monday.npz").symlink_to(place / "secret.npz")
    done = take(place)
    assert "links are not followed" in done.outcomes[0].reason
    assert (place / "secret.npz").read_bytes() == b"secret"


def test_drifted_images_and_doubted_labels_are_refused_as_a_whole(place):
    images, labels = draw(40)
    deliver(place, "dark.npz", images // 4, labels)
    assert "brighter or darker" in take(place).outcomes[0].reason
    deliver(place, "wrong.npz", images, labels)
    done = take(place, doubt=lambda images, labels: "they look wrong")
    assert (done.outcomes[0].reason, done.total("rejected")) == ("they look wrong", 40)
    assert len(quarantined(place)) == 2
    assert done.dataset == str(place / "base.npz")


def test_what_cannot_be_opened_waits_and_is_told_and_the_rest_joins(place, monkeypatch):
    deliver(place, "good.npz", *draw(8))
    deliver(place, "shut.npz", *draw(8))
    cat_file = LocalFileSystem.cat_file

    def refuse(self, path, *words, **more):
        if "shut" in path:
            raise PermissionError(13, "Permission denied")
        return cat_file(self, path, *words, **more)

    monkeypatch.setattr(LocalFileSystem, "cat_file", refuse)
    good, shut = take(place).outcomes
    assert (good.accepted, shut.left, shut.refused) == (8, True, True)
    assert shut.reason == "cannot be read: Permission denied"
    assert [path.name for path in (place / "inbox").iterdir()] == ["shut.npz"]


def test_parquet_waits_in_the_inbox_for_its_reader(place, monkeypatch):
    def refuse(*words, **more):
        raise ImportError

    monkeypatch.setattr(pd, "read_parquet", refuse)
    (place / "inbox" / "monday.parquet").write_bytes(b"PAR1")
    (outcome,) = take(place).outcomes
    assert outcome.left
    assert "pip install pyarrow" in outcome.reason
    assert (place / "inbox" / "monday.parquet").exists()


def test_a_damaged_batch_is_told_and_never_trained_on(place):
    deliver(place, "monday.npz", *draw(8))
    take(place)
    (batch,) = (place / "store" / "batch").glob("*/batch.npz")
    content = bytearray(batch.read_bytes())
    content[len(content) // 2] ^= 1
    batch.write_bytes(content)
    with pytest.raises(DamagedEntry):
        take(place)


def test_garbage_collection_leaves_what_came_in(place):
    deliver(place, "monday.npz", *draw(8))
    done = take(place)
    store = Store(place / "store")
    for garbage in list(find_garbage(store, 0, timedelta(0))):
        remove(store, garbage)
    assert len(load_dataset(done.dataset).x_train) == 88


def test_each_class_gets_as_many_more_images_as_the_rarest_got():
    config = Config()
    assert grow_few_shot(config, {5: 3, 6: 4, 7: 5, 8: 6, 9: 7, 0: 1}) == 103
    assert grow_few_shot(config, {0: 50}) == 100


# --- whatever dies half-way ---


def fill(place):
    """An inbox with something of everything; what must be in the dataset in the end."""
    good, labels = draw(8)
    mixed, mixed_labels = draw(6)
    mixed[1] = BASE[2][1]
    deliver(place, "a.npz", good, labels)
    deliver(place, "b.npz", mixed, mixed_labels)
    (place / "inbox" / "c.zip").write_bytes(b"PK")
    rows = [*good, *(mixed[row] for row in (0, 2, 3, 4, 5))]
    return sorted(image.tobytes() for image in rows)


def settle(place):
    """Takes in whatever is there, as the next night does; the new rows of the dataset."""
    done = take(place)
    grown = load_dataset(done.dataset)
    before = {image.tobytes() for image in BASE[0]}
    new = [row.tobytes() for row in np.ascontiguousarray(grown.x_train)]
    assert list((place / "inbox").iterdir()) == []
    assert len(quarantined(place)) == 2
    return sorted(row for row in new if row not in before)


@pytest.mark.slow
def test_killed_anywhere_nothing_is_lost_and_nothing_counts_twice(place, tmp_path):
    expected = fill(place)
    moments = itertools.count()
    left = []

    def look(disk, operation):
        copy = photograph(place, tmp_path.parent / f"{tmp_path.name}-{next(moments)}")
        disk.cut_power(copy)
        left.append(copy)

    # Everything that is there beforehand is safe on the disk.
    disk = Disk(place, watch=look)
    for path in place.rglob("*"):
        facts = path.stat()
        disk.synced[facts.st_ino] = (facts.st_size, facts.st_mtime_ns)
    with standing_between(disk):
        take(place)
    assert len(left) > 50
    for copy in left:
        # The dataset's own path is part of what a version says.
        shutil.rmtree(place)
        shutil.copytree(copy, place)
        shutil.rmtree(copy)
        assert settle(place) == expected


@pytest.mark.parametrize(("kind", "first"), [("ENOSPC", 1), ("EIO", 2), ("torn", 3)])
def test_a_failing_disk_loses_nothing_either(place, tmp_path, kind, first):
    expected = fill(place)
    kept = shutil.copytree(place, tmp_path.with_name(f"{tmp_path.name}-kept"))
    # Each operation fails in one of the ways.
    for nth in itertools.count(first, 3):
        shutil.rmtree(place)
        shutil.copytree(kept, place)
        disk = Disk(place, fault=Fault(kind, nth))
        with standing_between(disk), contextlib.suppress(OSError):
            take(place)
        assert settle(place) == expected, f"{kind} at {disk.hit}"
        if disk.hit is None:
            break
    assert nth > 100
    assert versions.present_version(Store(place / "store"), next_base(place)) is not None


def next_base(place):
    (pointer,) = (place / "store" / ".registry" / "versions").iterdir()
    return pointer.name

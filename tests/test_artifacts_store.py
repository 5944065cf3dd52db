"""The store: whole or absent, checked before a byte is used, shared by processes."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from artifacts import files
from artifacts.reference import Ref
from artifacts.store import MANIFEST, DamagedEntry, Manifest, Store, StoreError, is_transient

KEY = "0" * 40
# 1,000 take seconds; `HEADSTART_FUZZ=10000` takes a minute.
FUZZ = int(os.environ.get("HEADSTART_FUZZ", "1000"))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def save(store: Store, stage: str = "sample", key: str = KEY, value: float = 1.0, **facts) -> Ref:
    """An entry with a file of each kind that stages write."""
    with store.draft(stage, key) as draft:
        (draft.path / "deep" / "er").mkdir(parents=True)
        np.save(draft.path / "deep" / "er" / "array.npy", np.arange(50.0) * value)
        weights = {"kernel": np.eye(4) * value, "bias": np.zeros(4)}
        (draft.path / "weights.npz").write_bytes(files.pack_arrays(weights))
        (draft.path / "history.json").write_text(json.dumps({"loss": [value, 0.5]}))
        draft.metrics = {"accuracy": value, "classes": (1, 2)}
        return store.commit(draft, seconds=1.0, **facts)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def wait_for_tick(path: Path) -> None:
    """Returns once a write would get a later time; kernels before 6.13 count in steps of 4 ms."""
    probe = path.with_name(".probe")
    probe.touch()
    while probe.stat().st_ctime_ns <= path.stat().st_ctime_ns:
        probe.touch()
    probe.unlink()


def put_back_times(path: Path, facts: os.stat_result) -> None:
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def forge_stamp(store: Store, ref: Ref) -> None:
    """Makes the quick check believe all files: what bit rot, which moves no times, looks like."""
    stamp = store.root / ".stamps" / ref.stage / ref.key
    facts = {}
    for name in ref.files:
        found = (store.entry_path(ref.stage, ref.key) / name).stat()
        facts[name] = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    stamp.write_bytes(files.canonical_json({"digest": ref.digest, "files": facts}))


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Names of the files whose every byte was read, in order."""
    names: list[str] = []
    whole = files.sha256_file

    def note(path: Path) -> str:
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(files, "sha256_file", note)
    return names


# --- whole or absent ----------------------------------------------------------------------


def test_a_committed_entry_is_found_with_its_content(store):
    ref = save(store)
    assert store.find("sample", KEY) == ref
    assert set(ref.files) == {"deep/er/array.npy", "weights.npz", "history.json"}
    assert ref.metrics == {"accuracy": 1.0, "classes": [1, 2]}
    assert store.array(ref, "deep/er/array.npy").tolist() == list(range(50))
    assert json.loads(store.read_bytes(ref, "history.json")) == {"loss": [1.0, 0.5]}
    assert store.damage("sample", KEY) == []


def test_a_draft_is_no_entry_until_it_is_committed(store):
    with store.draft("sample", KEY) as draft:
        (draft.path / "file").write_bytes(b"content")
        assert store.find("sample", KEY) is None
        assert list(store.entries()) == []
    assert store.damage("sample", KEY) == ["entry is missing"]
    assert list((store.root / "sample").iterdir()) == []


def test_a_draft_that_fails_is_gone(store):
    with contextlib.suppress(ZeroDivisionError), store.draft("sample", KEY) as draft:
        (draft.path / "file").write_bytes(b"content")
        raise ZeroDivisionError
    assert list((store.root / "sample").iterdir()) == []


def test_metrics_that_json_cannot_hold_are_refused_and_leave_nothing(store):
    with pytest.raises(ValueError, match="JSON compliant"):
        save(store, value=float("nan"))
    assert list(store.entries()) == []


def test_a_file_of_the_manifests_name_is_refused(store):
    with store.draft("sample", KEY) as draft:
        (draft.path / MANIFEST).write_bytes(b"{}")
        with pytest.raises(StoreError, match=r"sample wrote a manifest\.json"):
            store.commit(draft, seconds=1.0)
    assert list(store.entries()) == []


COMMIT_FOR_EVER = """
import sys
from pathlib import Path
from artifacts.store import Store
store = Store(Path(sys.argv[1]))
print("writing", flush=True)
number = 0
while True:
    number += 1
    with store.draft("sample", "0" * 40) as draft:
        for name in "abcdefgh":
            (draft.path / name).write_bytes(bytes([number % 256]) * 100_000)
        store.commit(draft, seconds=1.0)
"""


def test_a_killed_writer_leaves_a_whole_entry_or_none(store):
    left = set()
    for delay in (0.02, 0.06, 0.1, 0.15, 0.2):
        command = [sys.executable, "-c", COMMIT_FOR_EVER, str(store.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"writing\n"
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        assert store.damage("sample", KEY) in ([], ["entry is missing"])
        assert set(store.entries()) <= {("sample", KEY)}
        left |= {path.name for path in (store.root / "sample").iterdir()} - {KEY}
    # What it was about to make lies about, and counts for nothing.
    assert all(name.startswith(".tmp-") for name in left)


# --- the quick check ----------------------------------------------------------------------


def test_an_unchanged_entry_is_found_without_reading_a_byte_of_it(store, hashed):
    ref = save(store)
    hashed.clear()
    for _ in range(3):
        assert Store(store.root).find("sample", KEY) == ref
    assert hashed == []


def test_an_entry_of_two_gigabytes_is_found_without_reading_it(store, hashed, monkeypatch):
    monkeypatch.setattr(files, "sha256_file", lambda path: hashed.append(path.name) or "made up")
    with store.draft("sample", KEY) as draft:
        with (draft.path / "large.npy").open("wb") as file:
            file.truncate(2 << 30)
        ref = store.commit(draft, seconds=1.0)
    hashed.clear()
    assert store.find("sample", KEY) == ref
    assert hashed == []
    assert store.damage("sample", KEY) == []
    assert hashed == ["large.npy"]


def test_only_a_file_whose_times_changed_is_read_and_only_once(store, hashed):
    ref = save(store)
    (store.entry_path("sample", KEY) / "weights.npz").touch()
    hashed.clear()
    assert store.find("sample", KEY) == store.find("sample", KEY) == ref
    assert hashed == ["weights.npz"]


def test_a_flip_behind_an_old_modification_time_is_found(store):
    ref = save(store)
    path = store.entry_path("sample", KEY) / "weights.npz"
    facts = path.stat()
    wait_for_tick(path)
    flip(path, 999)
    put_back_times(path, facts)
    assert path.stat().st_mtime_ns == facts.st_mtime_ns
    assert store.find("sample", KEY) is None
    assert ref.metrics
    assert store.damage("sample", KEY) == ["weights.npz is damaged"]


def test_a_found_damage_is_not_forgotten(store):
    save(store)
    flip(store.entry_path("sample", KEY) / "history.json", 3)
    assert store.find("sample", KEY) is None
    assert Store(store.root).find("sample", KEY) is None


def test_full_damage_names_every_file(store):
    save(store)
    entry = store.entry_path("sample", KEY)
    flip(entry / "weights.npz", 5)
    (entry / "history.json").write_bytes(b"")
    (entry / "deep" / "er" / "array.npy").unlink()
    assert store.damage("sample", KEY) == [
        "deep/er/array.npy is missing",
        "history.json is damaged",
        "weights.npz is damaged",
    ]


# --- reading ------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [Store.file, Store.read_bytes, Store.array])
def test_bit_rot_that_moves_no_times_is_found_when_read(store, read):
    ref = save(store)
    flip(store.entry_path("sample", KEY) / "deep/er/array.npy", 2000)
    forge_stamp(store, ref)
    assert store.find("sample", KEY) == ref  # Nobody has looked at the bytes.
    with pytest.raises(DamagedEntry, match=r"sample/000000000000: deep/er/array\.npy is damaged"):
        read(store, ref, "deep/er/array.npy")
    assert store.find("sample", KEY) is None


@pytest.mark.parametrize("read", [Store.file, Store.read_bytes, Store.array])
def test_a_missing_file_is_damage(store, read):
    ref = save(store)
    (store.entry_path("sample", KEY) / "deep/er/array.npy").unlink()
    with pytest.raises(DamagedEntry, match="No such file") as caught:
        read(store, ref, "deep/er/array.npy")
    assert (caught.value.stage, caught.value.key) == ("sample", KEY)


def test_a_file_that_an_entry_does_not_have_is_no_damage(store):
    ref = save(store)
    with pytest.raises(StoreError, match=r"has no weights\.npy; it has deep/er/array\.npy, hist"):
        store.array(ref, "weights.npy")


def test_a_file_read_twice_is_hashed_once_and_again_when_it_changes(store, hashed):
    ref = save(store)
    hashed.clear()
    store.file(ref, "weights.npz")
    store.file(ref, "weights.npz")
    assert hashed == ["weights.npz"]
    path = store.entry_path("sample", KEY) / "weights.npz"
    facts = path.stat()
    wait_for_tick(path)
    flip(path, 77)
    put_back_times(path, facts)
    with pytest.raises(DamagedEntry):
        store.file(ref, "weights.npz")


def test_a_reference_to_other_content_is_not_served_from_what_was_read_before(store):
    old = save(store, value=1.0)
    new = save(store, value=2.0)
    assert store.file(new, "weights.npz")
    with pytest.raises(DamagedEntry):
        store.file(old, "weights.npz")


def test_an_array_cannot_be_written_to(store):
    array = store.array(save(store), "deep/er/array.npy")
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


# --- stamps -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b'{"digest": "', b'{"files": 3}']
)
def test_a_damaged_stamp_leads_to_a_full_check(store, hashed, content):
    ref = save(store)
    (store.root / ".stamps" / "sample" / KEY).write_bytes(content)
    hashed.clear()
    assert store.find("sample", KEY) == ref
    assert sorted(hashed) == ["array.npy", "history.json", "weights.npz"]


def test_no_flip_in_a_stamp_hides_damage(store):
    ref = save(store)
    stamp = store.root / ".stamps" / "sample" / KEY
    good = stamp.read_bytes()
    flip(store.entry_path("sample", KEY) / "weights.npz", 800)
    for bit in range(len(good) * 8):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        stamp.write_bytes(damaged)
        assert store.find("sample", KEY) is None
    assert ref.files


def test_a_stamp_of_another_content_vouches_for_nothing(store, hashed):
    ref = save(store)
    forge_stamp(store, ref.model_copy(update={"digest": "another"}))
    hashed.clear()
    assert store.find("sample", KEY) == ref
    assert len(hashed) == 3


def test_an_entry_may_hold_files_called_as_a_stamps_fields(store, hashed):
    with store.draft("sample", KEY) as draft:
        (draft.path / "digest").write_bytes(b"1")
        (draft.path / "files").write_bytes(b"2")
        store.commit(draft, seconds=1.0)
    hashed.clear()
    assert store.find("sample", KEY)
    assert hashed == []


# --- manifests ----------------------------------------------------------------------------


def test_every_flip_and_every_cut_of_a_manifest_is_seen(store):
    save(store, settings={"text": "grüße", "rate": 1e-3, "none": None})
    good = store.raw_manifest("sample", KEY)
    assert good
    assert Manifest.from_bytes(good).to_bytes() == good
    for bit in range(len(good) * 8):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the flip has made of it
            Manifest.from_bytes(bytes(damaged))
    for length in range(len(good)):
        with pytest.raises(ValueError):  # noqa: PT011 - likewise
            Manifest.from_bytes(good[:length])


@pytest.mark.parametrize("more", [b" ", b"\n", b"{}", b"\0"])
def test_bytes_after_a_manifest_are_damage(store, more):
    save(store)
    with (store.entry_path("sample", KEY) / MANIFEST).open("ab") as file:
        file.write(more)
    assert store.find("sample", KEY) is None
    assert store.damage("sample", KEY) == ["manifest.json is damaged or missing"]


def test_an_entry_in_another_ones_place_is_none(store):
    save(store)
    other = "1" * 40
    shutil.copytree(store.entry_path("sample", KEY), store.entry_path("sample", other))
    shutil.copytree(store.entry_path("sample", KEY), store.entry_path("other", KEY))
    assert store.find("sample", other) is None
    assert store.find("other", KEY) is None


def test_a_sealed_manifest_with_a_wrong_digest_is_damage(store):
    save(store)
    manifest = store.manifest("sample", KEY)
    assert manifest
    wrong = manifest.ref.model_copy(update={"metrics": {"accuracy": 0.99}})
    forged = manifest.model_copy(update={"ref": wrong}).to_bytes()
    (store.entry_path("sample", KEY) / MANIFEST).write_bytes(forged)
    assert store.find("sample", KEY) is None
    assert store.damage("sample", KEY) == ["manifest.json does not match its digest"]


@pytest.mark.parametrize("place", ["entry is a file", "manifest is a folder"])
def test_things_of_the_wrong_kind_are_damage_and_heal(store, place):
    ref = save(store)
    entry = store.entry_path("sample", KEY)
    if place == "entry is a file":
        shutil.rmtree(entry)
        entry.write_bytes(b"")
    else:
        (entry / MANIFEST).unlink()
        (entry / MANIFEST).mkdir()
    assert store.find("sample", KEY) is None
    assert save(store).digest == ref.digest
    assert store.damage("sample", KEY) == []


# --- making an entry again ----------------------------------------------------------------


def inodes(store: Store) -> dict[str, int]:
    entry = store.entry_path("sample", KEY)
    return {path.name: path.stat().st_ino for path in entry.rglob("*") if path.name != MANIFEST}


def test_the_same_content_again_renews_only_the_manifest(store, hashed):
    first = save(store, code={"a.py: f": "1"})
    before = inodes(store)
    second = save(store, code={"a.py: f": "2"})
    assert second == first
    assert inodes(store) == before
    assert store.manifest("sample", KEY).code == {"a.py: f": "2"}
    hashed.clear()
    assert store.find("sample", KEY) == first
    assert hashed == []


def test_other_content_replaces_the_entry(store):
    first, second = save(store, value=1.0), save(store, value=2.0)
    assert first.digest != second.digest
    assert store.find("sample", KEY) == second
    assert store.damage("sample", KEY) == []
    assert [path.name for path in (store.root / "sample").iterdir()] == [KEY]


def test_a_damaged_entry_is_replaced_by_the_same_content(store):
    first = save(store)
    flip(store.entry_path("sample", KEY) / "weights.npz", 4)
    forge_stamp(store, first)  # Even where the quick check would believe the old files.
    assert save(store) == first
    assert store.damage("sample", KEY) == []


def test_who_has_an_array_open_is_not_disturbed_by_a_new_entry(store):
    array = store.array(save(store, value=1.0), "deep/er/array.npy")
    save(store, value=2.0)
    assert array.tolist() == list(range(50))


# --- volatile files -----------------------------------------------------------------------


def save_volatile(store: Store, noise: bytes) -> Ref:
    with store.draft("sample", KEY) as draft:
        (draft.path / "model").mkdir()
        (draft.path / "model" / "graph.pb").write_bytes(noise)
        (draft.path / "weights").write_bytes(b"weights")
        draft.volatile = ("model/",)
        return store.commit(draft, seconds=1.0)


def test_volatile_files_are_outside_the_digest(store):
    first = save_volatile(store, b"random id 1")
    second = save_volatile(store, b"random id 2")
    assert second == first
    assert store.read_bytes(second, "model/graph.pb") == b"random id 1"


def test_volatile_files_are_checked_all_the_same(store):
    first = save_volatile(store, b"random id 1")
    flip(store.entry_path("sample", KEY) / "model" / "graph.pb", 3)
    assert store.find("sample", KEY) is None
    with pytest.raises(DamagedEntry):
        store.read_bytes(first, "model/graph.pb")
    healed = save_volatile(store, b"random id 2")
    assert healed.digest == first.digest
    assert store.read_bytes(healed, "model/graph.pb") == b"random id 2"


# --- stores elsewhere ---------------------------------------------------------------------


def test_a_copied_store_and_a_moved_one_stay_valid(store, tmp_path):
    ref = save(store)
    shutil.copytree(store.root, tmp_path / "copy")
    store.root.rename(tmp_path / "moved")
    for name in ("copy", "moved"):
        elsewhere = Store(tmp_path / name)
        assert elsewhere.find("sample", KEY) == ref
        assert elsewhere.damage("sample", KEY) == []
        assert elsewhere.array(ref, "deep/er/array.npy")[3] == 3


def test_a_copied_store_is_checked_in_full_once(store, tmp_path, hashed):
    save(store)
    shutil.copytree(store.root, tmp_path / "copy")
    hashed.clear()
    assert Store(tmp_path / "copy").find("sample", KEY)
    assert len(hashed) == 3
    assert Store(tmp_path / "copy").find("sample", KEY)
    assert len(hashed) == 3


def test_a_store_that_cannot_be_written_is_read_and_checked_in_full(store, hashed):
    ref = save(store)
    # A file where a folder must be stops every write, whoever the user is.
    shutil.rmtree(store.root / ".stamps")
    (store.root / ".stamps").write_bytes(b"")
    hashed.clear()
    assert store.find("sample", KEY) == store.find("sample", KEY) == ref
    assert len(hashed) == 6
    flip(store.entry_path("sample", KEY) / "weights.npz", 8)
    assert store.find("sample", KEY) is None
    with pytest.raises(DamagedEntry):
        store.file(ref, "weights.npz")


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="choose another with --store PATH or HEADSTART_STORE"):
        Store(tmp_path / "file" / "store").check_writable()


def test_checking_for_writing_leaves_nothing(store):
    store.check_writable()
    assert list(store.root.iterdir()) == []


def test_an_empty_or_missing_store_has_no_entries(store):
    assert list(store.entries()) == []
    assert store.latest("sample") is None
    assert store.find("sample", KEY) is None


def test_the_latest_manifest_is_the_youngest_whole_one(store):
    keys = [digit * 40 for digit in "123"]
    for key in keys:
        save(store, key=key)
        time.sleep(0.002)
    assert store.latest("sample").ref.key == keys[2]
    flip(store.entry_path("sample", keys[2]) / MANIFEST, 40)
    assert store.latest("sample").ref.key == keys[1]


# --- locks --------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from artifacts.store import Store
with Store(Path(sys.argv[1])).lock("sample", "key"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(store) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", HOLD, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


TRY = """
import signal, sys
from pathlib import Path
from artifacts.store import Store
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[3]))
with Store(Path(sys.argv[1])).lock("sample", sys.argv[2]):
    print("held", flush=True)
"""


def can_lock(store: Store, key: str, within: float) -> bool:
    command = [sys.executable, "-c", TRY, str(store.root), key, str(within)]
    return subprocess.run(command, capture_output=True, check=False).stdout == b"held\n"


def test_a_lock_excludes_other_processes_from_this_entry_only(store, holder):
    assert not can_lock(store, "key", within=0.3)
    assert can_lock(store, "another", within=5)


def test_the_lock_of_a_killed_process_is_free_at_once(store, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert can_lock(store, "key", within=5)


def test_a_lock_can_be_taken_again(store):
    for _ in range(2):
        with store.lock("sample", "key"):
            pass


# --- faults -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError(104, "reset"), True),
        (TimeoutError(110, "timed out"), True),
        (OSError(5, "Input/output error"), True),
        (FileNotFoundError(2, "no such file"), False),
        (OSError(28, "No space left on device"), False),
        (PermissionError(13, "denied"), False),
        (ValueError("wrong"), False),
        (DamagedEntry("sample", KEY, "file is damaged"), False),
    ],
)
def test_only_faults_of_the_machine_are_worth_another_try(error, transient):
    assert is_transient(error) is transient


# --- everything at once -------------------------------------------------------------------


def harm(path: Path, chance: random.Random) -> str:
    """Flips one bit, or cuts the file short."""
    size = path.stat().st_size
    if chance.random() < 0.25:
        length = chance.randrange(size)
        os.truncate(path, length)
        return f"{path.name} cut to {length} of {size}"
    bit = chance.randrange(size * 8)
    flip(path, bit)
    return f"{path.name} bit {bit}"


def test_random_damage_is_always_detected_before_a_byte_is_used(store):
    chance = random.Random(42)  # noqa: S311 - not for secrets
    refs = [save(store, key=digit * 40, value=float(digit)) for digit in "123"]
    missed = []
    for _ in range(FUZZ):
        ref = chance.choice(refs)
        entry = store.entry_path(ref.stage, ref.key)
        name = chance.choice([*ref.files, MANIFEST])
        path, good, facts = entry / name, (entry / name).read_bytes(), (entry / name).stat()
        wait_for_tick(path)
        what = harm(path, chance)
        if chance.random() < 0.5:
            put_back_times(path, facts)
        if store.find(ref.stage, ref.key) is not None:
            missed.append(f"find: {what}")
        if not store.damage(ref.stage, ref.key):
            missed.append(f"damage: {what}")
        if name != MANIFEST:
            forge_stamp(store, ref)
            missed += [f"{how}: {what}" for how in readers_fooled(store, ref, name)]
        path.write_bytes(good)
        assert store.find(ref.stage, ref.key) == ref, what
    assert missed == []


def readers_fooled(store: Store, ref: Ref, name: str) -> Iterator[str]:
    for read in (Store.file, Store.read_bytes):
        try:
            read(store, ref, name)
        except DamagedEntry:
            continue
        yield read.__name__

import os
import time

import fsspec
import pytest

from artifacts.inbox import Inbox, InboxError, digest, settled


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def write(path, content=b"content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_delivery_is_a_file_or_a_folder_with_all_in_it(folder):
    write(folder / "monday" / "5" / "a.png", b"a")
    write(folder / "monday" / "6" / "b.png", b"b")
    write(folder / "tuesday.npz", b"c")
    inbox = Inbox(str(folder))
    parcels = inbox.parcels()
    assert [parcel.name for parcel in parcels] == ["monday", "tuesday.npz"]
    assert inbox.read(parcels[0]) == {"monday/5/a.png": b"a", "monday/6/b.png": b"b"}
    assert inbox.read(parcels[1]) == {"tuesday.npz": b"c"}


def test_what_is_still_being_written_is_left_alone(folder):
    write(folder / ".monday.npz")
    write(folder / "tuesday.npz.part")
    assert Inbox(str(folder)).parcels() == []
    write(folder / "wednesday.npz")
    (parcel,) = Inbox(str(folder)).parcels()
    assert not settled(parcel, seconds=60)
    hour_ago = time.time() - 3600
    os.utime(folder / "wednesday.npz", (hour_ago, hour_ago))
    (parcel,) = Inbox(str(folder)).parcels()
    assert settled(parcel, seconds=60)


def test_no_inbox_yet_is_an_empty_one(tmp_path):
    assert Inbox(str(tmp_path / "none")).parcels() == []


@pytest.mark.parametrize("place", ["link.npz", "monday/5/link.png"])
def test_links_are_neither_read_nor_followed_nor_is_their_target_removed(folder, tmp_path, place):
    secret = write(tmp_path / "secret", b"secret")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).symlink_to(secret)
    inbox = Inbox(str(folder))
    (parcel,) = inbox.parcels()
    assert "links are not followed" in parcel.problem
    assert inbox.read(parcel) == {}
    inbox.remove(parcel)
    assert (secret.read_bytes(), list(folder.iterdir())) == (b"secret", [])


def test_a_linked_folder_is_not_entered(folder, tmp_path):
    secret = write(tmp_path / "elsewhere" / "5" / "secret.png", b"secret")
    (folder / "monday").symlink_to(tmp_path / "elsewhere")
    inbox = Inbox(str(folder))
    (parcel,) = inbox.parcels()
    assert (inbox.read(parcel), "links are not followed" in parcel.problem) == ({}, True)
    inbox.remove(parcel)
    assert secret.exists()


def test_what_came_or_changed_after_it_was_listed_stays(folder):
    write(folder / "monday" / "5" / "a.png", b"a")
    write(folder / "monday" / "5" / "b.png", b"b")
    inbox = Inbox(str(folder))
    (parcel,) = inbox.parcels()
    write(folder / "monday" / "5" / "b.png", b"another")
    write(folder / "monday" / "5" / "c.png", b"new")
    inbox.remove(parcel)
    left = {path.name: path.read_bytes() for path in folder.rglob("*.png")}
    assert left == {"b.png": b"another", "c.png": b"new"}


def test_the_inbox_itself_stays_when_it_is_empty(folder):
    write(folder / "monday" / "5" / "a.png")
    inbox = Inbox(str(folder))
    inbox.remove(inbox.parcels()[0])
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_another_file_system_works_alike():
    system = fsspec.filesystem("memory")
    system.pipe("/inbox/monday/5/a.png", b"a")
    inbox = Inbox("memory://inbox")
    (parcel,) = inbox.parcels()
    assert (parcel.name, inbox.read(parcel)) == ("monday", {"monday/5/a.png": b"a"})
    inbox.remove(parcel)
    assert not system.exists("/inbox/monday/5/a.png")


def test_the_digest_tells_contents_and_nothing_else(folder):
    write(folder / "a.npz", b"same")
    inbox = Inbox(str(folder))
    (parcel,) = inbox.parcels()
    first = digest(parcel, inbox.read(parcel))
    os.utime(folder / "a.npz", (1, 1))
    (parcel,) = inbox.parcels()
    assert digest(parcel, inbox.read(parcel)) == first
    write(folder / "a.npz", b"else")
    (parcel,) = inbox.parcels()
    assert digest(parcel, inbox.read(parcel)) != first


def test_an_address_nobody_knows_is_told():
    with pytest.raises(InboxError, match="nightly.inbox = nosuch://a"):
        Inbox("nosuch://a")

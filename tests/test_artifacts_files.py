"""Files that are whole or absent, and bytes that stand for values."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from artifacts import files


def test_canonical_json_does_not_depend_on_the_order_of_names():
    assert files.canonical_json({"b": 1, "a": [1.5, None]}) == b'{"a":[1.5,null],"b":1}'
    assert files.canonical_json({"a": [1.5, None], "b": 1}) == b'{"a":[1.5,null],"b":1}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"loss": float("-inf")}])
def test_canonical_json_refuses_what_json_cannot_hold(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        files.canonical_json(value)


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5000])
def test_a_file_and_its_bytes_have_one_digest(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert files.sha256_file(path) == files.sha256_bytes(content)


def test_sha256_is_the_published_one():
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_bytes(b"abc") == expected


def test_write_atomic_makes_folders_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    files.write_atomic(path, b"old")
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    files.write_atomic(path, b"old")
    with pytest.raises(TypeError):
        files.write_atomic(path, "text is no bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        files.write_atomic(tmp_path / "folder", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from artifacts.files import write_atomic
path, sizes = Path(sys.argv[1]), (1, 3_000_000)
print("writing", flush=True)
while True:
    for size in sizes:
        write_atomic(path, bytes([size % 251]) * size)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path, whole = tmp_path / "file", {bytes([size % 251]) * size for size in (1, 3_000_000)}
    for delay in (0.02, 0.05, 0.09, 0.14):
        command = [sys.executable, "-c", WRITE_FOR_EVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"writing\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(delay)
            writer.send_signal(signal.SIGKILL)
        assert not path.exists() or path.read_bytes() in whole


def test_temporary_names_are_fresh_hidden_and_beside_the_file(tmp_path):
    names = {files.temporary_name(tmp_path / "file") for _ in range(100)}
    assert len(names) == 100
    assert {name.parent for name in names} == {tmp_path}
    assert all(name.name.startswith(f".tmp-file-{os.getpid()}-") for name in names)


def test_packed_arrays_come_back_bit_for_bit():
    arrays = {
        "layer/kernel": np.array([[0.1, -0.0], [np.nan, np.inf]], np.float32),
        "step": np.array(7),
        "empty": np.zeros((0, 3), np.uint8),
    }
    unpacked = files.unpack_arrays(files.pack_arrays(arrays))
    assert set(unpacked) == set(arrays)
    for name, array in arrays.items():
        assert unpacked[name].dtype == array.dtype
        assert unpacked[name].shape == array.shape
        assert unpacked[name].tobytes() == array.tobytes()


def test_the_same_arrays_pack_to_the_same_bytes_whatever_their_order():
    a, b = np.arange(3), np.ones(2)
    assert files.pack_arrays({"a": a, "b": b}) == files.pack_arrays({"b": b, "a": a})


def test_no_pickle_goes_in_or_comes_out():
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        files.pack_arrays({"a": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="pickle"):
        files.unpack_arrays(_packed_with_pickle())


def _packed_with_pickle() -> bytes:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{}], dtype=object))
    return buffer.getvalue()

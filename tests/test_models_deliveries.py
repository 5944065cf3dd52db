import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from models.deliveries import NO_LABEL, DeliveryError, Form, ReaderMissing, read_delivery

BYTES = Form((2, 3), "uint8")
FLOATS = Form((6,), "float32")
IMAGES = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def as_npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def as_png(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def as_csv(labels, rows):
    table = pd.DataFrame(rows, columns=[f"pixel{n}" for n in range(6)])
    table.insert(0, "label", labels)
    return table.to_csv(index=False).encode()


FORMS = {
    "npz": {"a.npz": as_npz(x=IMAGES, y=np.array([5, 6]))},
    "npz-flat": {"a.npz": as_npz(images=IMAGES.reshape(2, 6), labels=np.array([5, 6]))},
    "csv": {"a.csv": as_csv([5, 6], IMAGES.reshape(2, 6))},
    "folders": {"mon/5/a.png": as_png(IMAGES[0]), "mon/6/a.png": as_png(IMAGES[1])},
    "one-folder-each": {"5/a.png": as_png(IMAGES[0]), "6/b.PNG": as_png(IMAGES[1])},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(form):
    found = read_delivery(FORMS[form], BYTES)
    assert found.images.dtype == np.uint8
    assert found.images.tolist() == IMAGES.reshape(2, 6).tolist()
    assert (found.labels.tolist(), found.problems) == ([5, 6], ("", ""))


def test_a_bad_picture_costs_only_itself():
    files = {
        "5/good.png": as_png(IMAGES[0]),
        "5/torn.png": as_png(IMAGES[0])[:40],
        "5/large.png": as_png(np.zeros((4, 4), np.uint8)),
        "5/colour.png": as_png(np.zeros((2, 3, 3), np.uint8)),
        "five/named.png": as_png(IMAGES[1]),
    }
    found = read_delivery(files, BYTES)
    problems = dict(zip(found.names, found.problems, strict=True))
    assert problems["5/good.png"] == ""
    assert "no readable PNG" in problems["5/torn.png"]
    assert "4 x 4" in problems["5/large.png"]
    assert "mode RGB" in problems["5/colour.png"]
    assert "'five', which names no class" in problems["five/named.png"]


def test_a_bad_row_of_a_table_costs_only_itself():
    rows = np.tile(np.arange(6.0), (5, 1))
    rows[1, 2], rows[2, 2], rows[3, 2] = np.nan, 256, 0.5
    found = read_delivery({"a.csv": as_csv([5, 5, 5, 5, 5.5], rows)}, BYTES)
    assert found.problems[0] == ""
    assert [problem.split()[-2:] for problem in found.problems[1:]] == [
        ["finite", "numbers"],
        ["above", "255"],
        ["to", "255"],
        ["a", "label"],
    ]
    assert found.labels.tolist() == [5, 5, 5, 5, NO_LABEL]


def test_floats_stay_floats():
    rows = np.array([[0, 0.5, 1, 0, 0, 0], [np.inf, 0, 0, 0, 0, 0], [1e300, 0, 0, 0, 0, 0]])
    found = read_delivery({"a.npz": as_npz(x=rows, y=np.array([1, 2, 3]))}, FLOATS)
    assert found.images.dtype == np.float32
    assert [bool(problem) for problem in found.problems] == [False, True, True]
    assert not found.images[1:].any()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.zip": b"PK"}, "archives are not unpacked"),
        ({"a.tar.gz": b""}, "archives are not unpacked"),
        ({"a.exe": b""}, "the inbox takes"),
        ({"a": b""}, "the inbox takes"),
        ({}, "is empty"),
        ({"m/5/a.png": b"", "m/notes.txt": b""}, "notes.txt is no PNG"),
        ({"a.npz": b"PK\x03\x04"}, "cut short"),
        ({"a.npz": as_npz(x=IMAGES)}, "has x; expected x and y"),
        ({"a.npz": as_npz(x=IMAGES, y=np.array([1]))}, "2 images and labels of shape"),
        ({"a.npz": as_npz(x=IMAGES[:, :, :2], y=np.array([1, 2]))}, "expected .rows, 2, 3."),
        ({"a.npz": as_npz(x=IMAGES[:0], y=np.zeros(0))}, "expected .rows, 2, 3."),
        ({"a.npz": as_npz(x=IMAGES.astype("U"), y=np.array([1, 2]))}, "expected numbers"),
        ({"a.npz": as_npz(x=IMAGES, y=np.array(["a", object()]))}, "Python objects"),
        ({"a.csv": b"\xff\xfe\x00"}, "no readable CSV"),
        ({"a.csv": b"a,b\n1,2\n"}, "no column label"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(files, reason):
    with pytest.raises(DeliveryError, match=reason):
        read_delivery(files, BYTES)


def test_a_member_that_climbs_out_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../x.npy", b"")
        archive.writestr("y.npy", b"")
    with pytest.raises(DeliveryError, match="leads out of the file"):
        read_delivery({"a.npz": buffer.getvalue()}, BYTES)


def test_a_picture_that_claims_gigabytes_is_not_unpacked():
    small = io.BytesIO()
    Image.new("L", (9000, 9000)).save(small, format="PNG")
    found = read_delivery({"5/bomb.png": small.getvalue()}, BYTES)
    assert "9000 x 9000" in found.problems[0]


def test_parquet_without_its_reader_says_what_to_install(monkeypatch):
    def refuse(*words, **more):
        raise ImportError

    monkeypatch.setattr(pd, "read_parquet", refuse)
    with pytest.raises(ReaderMissing, match="pip install pyarrow"):
        read_delivery({"a.parquet": b"PAR1"}, BYTES)


def test_unlabelled_pictures_are_read_where_labels_are_not_asked_for():
    found = read_delivery({"a.png": as_png(IMAGES[0])}, BYTES, labelled=False)
    assert found.problems == ("",)
    found = read_delivery({"a.npz": as_npz(x=IMAGES)}, BYTES, labelled=False)
    assert found.problems == ("", "")

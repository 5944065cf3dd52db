import shutil

import numpy as np
import pytest
from PIL import Image

from artifacts import registry
from artifacts.store import Store
from flows.champions import find_candidate
from models.datasets import load_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits():
    return load_dataset("mnist", limit=200)


@pytest.fixture
def pictures(tmp_path, digits):
    """A folder with a picture of each of the digits 5, 7 and 9."""
    for digit in (5, 7, 9):
        row = int(np.flatnonzero(digits.y_test == digit)[0])
        image = Image.fromarray(digits.x_test[row].reshape(28, 28))
        image.save(tmp_path / f"{digit}.png")
    return tmp_path


@pytest.fixture(scope="module")
def promoted(finished, tmp_path_factory):
    """The command on a copy of a finished shrunk run's store, with a champion."""
    command, _ = finished
    place = tmp_path_factory.mktemp("promoted") / "store"
    shutil.copytree(command.store, place)
    command = command.with_store(place)
    done = command("promote", "latest", "--why", "the first")
    assert done.returncode == 0, done.stderr
    return command


def test_a_run_s_models_are_packaged_and_answer_as_the_evaluation_says(promoted, finished):
    _, run = finished
    (model,) = promoted.json("models")["models"]
    results = {result["name"]: result["accuracy"] for result in run["results"]}
    assert model["champion"]
    assert model["source_accuracy"] == results["pretrained"]
    chosen = Store(promoted.store).manifest("package", model["key"]).ref.metrics["chosen"]
    assert model["target_accuracy"] == results[chosen]


def test_promoting_a_run_and_promoting_its_model_is_the_same(promoted):
    store = Store(promoted.store)
    model = registry.champion(store).model
    assert find_candidate(store, "latest") == model
    assert find_candidate(store, model.key[:6]) == model


def test_the_history_says_who_and_why(promoted):
    (first, *_) = reversed(promoted.json("models")["history"])
    assert (first["action"], first["why"]) == ("promote", "the first")
    assert first["who"]


def test_the_champion_predicts_pictures_and_arrays_alike(promoted, pictures, digits):
    rows = [int(np.flatnonzero(digits.y_test == digit)[0]) for digit in (5, 7, 9)]
    images = digits.x_test[rows].reshape(-1, 28, 28)
    np.savez(pictures / "digits.npz", x=images)
    told = promoted.json("predict", str(pictures), str(pictures / "digits.npz"))["predictions"]
    assert [entry["label"] for entry in told[:3]] == [entry["label"] for entry in told[3:]]
    assert [entry["name"].rpartition("/")[2] for entry in told[:4]] == [
        "5.png",
        "7.png",
        "9.png",
        "digits.npz: row 0",
    ]
    for entry in told:
        assert sum(entry["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert entry["probability"] == max(entry["probabilities"].values())


def test_every_picture_that_cannot_be_read_is_named_at_once(promoted, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    Image.new("RGB", (28, 28)).save(tmp_path / "colour.png")
    done = promoted("predict", str(tmp_path), str(tmp_path / "none.png"))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    for name, line in zip(("colour.png", "torn.png", "none.png"), lines, strict=True):
        assert name in line
    assert "8-bit greyscale" in done.stderr


def test_the_export_loads_without_this_project_and_is_the_champion(promoted, tmp_path):
    done = promoted("export", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    import tensorflow as tf

    served = tf.saved_model.load(tmp_path / "out/target/saved_model")
    answer = served.signatures["serving_default"](images=tf.zeros((1, 784)))
    assert int(answer["label"][0]) in (5, 6, 7, 8, 9)
    again = promoted("export", str(tmp_path / "out"))
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_without_a_champion_one_is_told_how_to_get_one(headstart, pictures):
    done = headstart("predict", str(pictures / "5.png"))
    assert done.returncode == 2
    assert "headstart promote latest" in done.stderr


def test_an_unknown_model_is_bad_input(promoted):
    done = promoted("promote", "nothing-such")
    assert done.returncode == 2
    assert "headstart models lists" in done.stderr


def test_a_damaged_champion_does_not_predict(promoted, pictures, tmp_path):
    shutil.copytree(promoted.store, tmp_path / "store")
    damaged = promoted.with_store(tmp_path / "store")
    (file,) = (tmp_path / "store" / "package").glob("*/target.keras")
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    done = damaged("predict", str(pictures / "5.png"))
    assert done.returncode == 2
    assert "headstart rollback" in done.stderr

"""Ways to pretrain: on forged classes, on same/different pairs; heads with hidden layers."""

import json
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

from artifacts.files import unpack_arrays
from artifacts.reference import Ref
from artifacts.store import Store
from artifacts.summary import percent
from flows.pipeline import pipeline
from flows.selection import read_graph
from flows.trials import search
from models.config import Config, ConfigError, load_config
from models.datasets import find_dataset
from models.strategies import make_strategy
from tasks import progress
from tasks.package import ANSWERS, package, package_arguments
from tasks.pretrain_pairs import pretrain_pairs
from tasks.stage import Stage
from tasks.train import train

SETTINGS = (
    "data.limit=1200",
    "network.hidden_layers=2",
    "network.units=8",
    "pretrain.task=pairs",
    "pairs.epoch_pairs=600",
    "fine_tune.hidden=7,5",
    "fine_tune.activation=tanh",
    "transfer.strategies=",
    "transfer.max_epochs=1",
    "transfer.augment=false",
)


def make_config() -> Config:
    return load_config(overrides=SETTINGS, tiny=True)


def run_stage(store: Store, refs: dict[str, Ref], stage: Stage, /, **arguments: Any) -> Ref:
    refs[stage.name], _ = stage.run(arguments, store, None)
    return refs[stage.name]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Store, dict[str, Ref]]:
    """A store after a run of the whole pipeline, and what each stage gave."""
    store, refs = Store(tmp_path_factory.mktemp("pairs") / "store"), {}
    pipeline(make_config(), find_dataset("mnist"), partial(run_stage, store, refs))
    return store, refs


def weights(store: Store, ref: Ref, folder: str) -> dict[str, Any]:
    return unpack_arrays(store.read_bytes(ref, f"{folder}/weights.npz"))


def test_pairs_are_a_stage_only_if_asked_for():
    assert "pretrain-pairs" not in read_graph(Config())
    graph = read_graph(load_config(overrides=["pretrain.task=pairs"]))
    assert graph["pretrain-pairs"] == ("load-dataset", "split-source")
    assert graph["pretrain"] == ("load-dataset", "split-source", "pretrain-pairs")
    assert [name for name in graph if "pretrain-pairs" in graph[name]] == ["pretrain"]


def test_a_search_does_not_pass_over_pairs_in_silence():
    config = load_config(overrides=["pretrain.task=pairs"])
    with pytest.raises(ConfigError, match="pretrain.task = pairs: a search tries trunks"):
        read_graph(config, search)


@pytest.mark.slow
@pytest.mark.parametrize(("forged", "further"), [("1.5", 100), ("0", 0)])
def test_of_forged_classes_nothing_is_left_but_what_the_trunk_learned(tmp_path, forged, further):
    store, refs = Store(tmp_path / "store"), {}
    changed = ["pretrain.task=classes", "pretrain.max_epochs=10", f"pretrain.forged={forged}"]
    config = load_config(overrides=[*SETTINGS, *changed], tiny=True)
    wanted = "load-dataset", "split-source", "pretrain", "export-checkpoint"

    def run_wanted(stage: Stage, /, **arguments: Any) -> Ref:
        if stage.name in wanted:
            return run_stage(store, refs, stage, **arguments)
        return Ref.pending(stage.name)

    pipeline(config, find_dataset("mnist"), run_wanted)
    classifier = weights(store, refs["pretrain"], "classifier")
    assert classifier["head/kernel"].shape == (8, 5)
    found = refs["pretrain"].metrics
    assert found["forged_classes"] == further
    assert found["validation_accuracy"] > 0.6
    card = store.read_bytes(refs["export-checkpoint"], "model-card.md").decode()
    assert (f"it had {further} forged classes" in card) == bool(further)


@pytest.mark.slow
def test_pretraining_on_pairs_leaves_a_model_its_history_and_its_accuracy(done):
    store, refs = done
    found = refs["pretrain-pairs"].metrics
    history = json.loads(store.read_bytes(refs["pretrain-pairs"], "history.json"))
    assert found["epochs"] == len(history["loss"]) == 3
    assert found["validation_loss"] == min(history["val_loss"])
    assert found["validation_accuracy"] == history["val_accuracy"][found["best_epoch"] - 1]
    assert 0.4 < found["test_accuracy"] <= 1
    assert found["test_accuracy"] * found["test_pairs"] == pytest.approx(
        round(found["test_accuracy"] * 200)
    )
    table = store.read_bytes(refs["pretrain-pairs"], "history.csv").decode().splitlines()
    assert table[0] == "training,epoch,accuracy,learning_rate,loss,val_accuracy,val_loss"
    assert len(table) == 1 + found["epochs"]


@pytest.mark.slow
def test_the_source_head_is_trained_on_the_frozen_first_stack(done):
    store, refs = done
    pairs = weights(store, refs["pretrain-pairs"], "classifier")
    classifier = weights(store, refs["pretrain"], "classifier")
    hidden = [path for path in classifier if path.startswith("hidden")]
    assert len(hidden) == 10
    for path in hidden:
        np.testing.assert_array_equal(classifier[path], pairs[path])
    accuracy = refs["pretrain-pairs"].metrics["validation_accuracy"]
    assert refs["pretrain"].metrics["pair_accuracy"] == accuracy
    card = store.read_bytes(refs["export-checkpoint"], "model-card.md").decode()
    assert f"of pairs of validation images {percent(accuracy)} % were told rightly" in card


@pytest.mark.slow
def test_killed_pretraining_on_pairs_goes_on_to_the_same_bits(done):
    store, refs = done
    whole = refs["pretrain-pairs"]
    config = make_config()
    arguments = {
        "dataset": refs["load-dataset"],
        "split": refs["split-source"],
        "network": config.network,
        "pairs": config.pairs,
        "run": config.run,
    }
    again = partial(
        pretrain_pairs.run, arguments, store, store.raw_manifest(whole.stage, whole.key)
    )

    def die(event: progress.Event) -> None:
        if event.done == 3:
            raise ConnectionError

    with progress.listening(die), pytest.raises(ConnectionError):
        again()
    ref, computed = again()
    assert computed
    assert store.manifest(ref.stage, ref.key).resumed
    assert ref == whole


@pytest.mark.slow
def test_a_network_for_pairs_is_a_checkpoint_to_train_on_from(done):
    store, refs = done
    config = make_config()
    arguments = {
        "checkpoint": refs["pretrain-pairs"],
        "dataset": refs["load-dataset"],
        "split": refs["split-target"],
        "network": config.network,
        "strategy": make_strategy("probe", config.transfer, depth=2),
        "augmentation": None,
        "run": config.run,
        "activations": None,
    }
    ref, _ = train.named("probe").run(arguments, store, None)
    pairs, network = (
        weights(store, refs["pretrain-pairs"], "classifier"),
        weights(store, ref, "network1"),
    )
    for path in (path for path in network if path.startswith("hidden")):
        np.testing.assert_array_equal(network[path], pairs[path])
    assert network["head/kernel"].shape == (8, 5)


@pytest.mark.slow
def test_each_cut_has_a_head_with_the_hidden_layers_asked_for(done):
    store, refs = done
    for layer in ("hidden1", "hidden2"):
        shapes = {path: v.shape for path, v in weights(store, refs["fine-tune"], layer).items()}
        assert shapes["dense1/kernel"] == (8, 7)
        assert shapes["dense2/kernel"] == (7, 5)
        assert shapes["head/kernel"] == (5, 5)
    names = [result["name"] for result in refs["evaluate"].metrics["results"]]
    assert names[:3] == ["pretrained", "head on hidden1", "head on hidden2"]
    assert refs["evaluate"].metrics["chosen"] == f"head on {refs['fine-tune'].metrics['best']}"


@pytest.mark.slow
def test_a_head_with_hidden_layers_is_packaged_and_answers_as_measured(done):
    store, refs = done
    manifest = store.manifest("evaluate", refs["evaluate"].key)
    arguments = package_arguments(manifest)
    packed, _ = package.run(arguments, store, None)
    measured = {r["name"]: r["accuracy"] for r in refs["evaluate"].metrics["results"]}
    assert packed.metrics["target"]["accuracy"] == measured[packed.metrics["chosen"]]
    assert packed.metrics["source"]["accuracy"] == measured["pretrained"]
    model = keras.models.load_model(store.file(packed, "target.keras"), safe_mode=True)
    answers = unpack_arrays(store.read_bytes(packed, ANSWERS))
    images = store.array(refs["load-dataset"], "x_test.npy")
    rows = store.array(refs["split-target"], "test_rows.npy")
    likeliest = model.predict(images[rows] / np.float32(255), verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(likeliest + 5, answers["target_predicted"])

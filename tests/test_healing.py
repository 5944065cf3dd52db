"""Damage to any file of any stage's result: the next run computes that stage again, and no other.

The stages are the pipeline's own, with their names, keys and inputs; what they compute is imitated
by a few bytes that depend on every byte of their inputs.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifacts import files
from artifacts.reference import Ref
from artifacts.store import MANIFEST, DamagedEntry, Store
from flows.pipeline import Runner, SideRunner, pipeline
from flows.selection import Rerun, read_graph
from models.config import Config
from models.datasets import find_dataset
from models.sources import Source
from tasks.stage import Arguments, Stage, Work, inputs_of
from tests.imitation import ImitatedBeside

GRAPH = read_graph(Config())
NOISE = "noise/"
RESULTS = ("deep/array.npy", "result.json", f"{NOISE}random.bin")
FIGURE = {"name": "figure", "title": "A figure", "alt": "what it shows"}
# What is shown of an evaluation and, of that, what is a list: here all are empty.
LISTS = ("results", "per_class", "mistakes", "target_classes", "confusion")
GAIN = {"sentence": "No gain.", "p_value": 1.0, "method": "none"}
MEASURED = {"chosen": "it", "confidence": 0.95, "gain": GAIN, **{name: [] for name in LISTS}}
PUBLISHED = ("results.md", "figure.png", "figure.svg")


class Imitation:
    """The pipeline with imitated stages; keeps the names of those that were computed."""

    def __init__(self) -> None:
        self.computed: list[str] = []

    def __call__(self, config: Config, source: Source, call: Runner) -> Ref:
        def call_imitated(stage: Stage, /, **arguments: Any) -> Ref:
            return call(self._imitate(stage), **arguments)

        both = isinstance(call, SideRunner)
        return pipeline(
            config, source, ImitatedBeside(self._imitate, call) if both else call_imitated
        )

    def _imitate(self, stage: Stage) -> Stage:
        # What is wrapped keeps its name and module, and so its code and its key.
        @functools.wraps(stage.function)
        def function(work: Work, **arguments: Any) -> dict[str, Any]:
            self.computed.append(stage.name)
            told = files.sha256_bytes(json.dumps([stage.name, *_read(work, arguments)]).encode())
            work.save_array("deep/array.npy", np.frombuffer(told.encode(), np.uint8))
            work.save_json("result.json", {"told": told})
            work.save_bytes(f"{NOISE}random.bin", os.urandom(20))
            work.draft.volatile = (NOISE,)
            for name in PUBLISHED if stage.name == "publish" else ():
                work.save_bytes(name, told.encode())
            return {"told": told, "figures": [FIGURE], **MEASURED}

        return dataclasses.replace(stage, function=function)


def _read(work: Work, arguments: Arguments) -> Iterator[str]:
    for ref in inputs_of(arguments).values():
        for name in ref.files:
            if not name.startswith(NOISE):
                yield files.sha256_bytes(work.content(ref, name))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    path = tmp_path_factory.mktemp("data") / "images.npz"
    labels = np.arange(400) % 10
    images = np.ones((400, 4), np.float32)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    few = {"few_shot": 2, "few_shot_validation": 1, "validation_rows": 100}
    return Config.model_validate({"data": {"dataset": str(path), **few}})


# --- damage -------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def flip_behind_old_times(path: Path) -> None:
    facts = path.stat()
    flip(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


KINDS = [Path.unlink, empty, truncate, flip, flip_behind_old_times]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
every_stage = pytest.mark.parametrize("name", GRAPH)


def damage_silently(store: Store, ref: Ref, name: str) -> None:
    """Flips a bit as a failing disk does: no time moves, so the quick check sees nothing."""
    entry = store.entry_path(ref.stage, ref.key)
    flip(entry / name)
    facts = {each: (entry / each).stat() for each in ref.files}
    listed = {n: [f.st_size, f.st_mtime_ns, f.st_ctime_ns, f.st_ino] for n, f in facts.items()}
    stamp = store.root / ".stamps" / ref.stage / ref.key
    stamp.write_bytes(files.canonical_json({"digest": ref.digest, "files": listed}))
    assert store.find(ref.stage, ref.key)


def assert_whole(store: Store) -> None:
    problems = {name: store.damage(*name) for name in store.entries()}
    assert problems == dict.fromkeys(problems, [])


# --- without Prefect ----------------------------------------------------------------------


def run(config: Config, store: Store) -> tuple[dict[str, Ref], list[str]]:
    """Every stage's result, and the stages computed, as the flow comes by them."""
    refs: dict[str, Ref] = {}
    imitation = Imitation()

    def call(stage: Stage, /, **arguments: Any) -> Ref:
        key = stage.key(arguments)
        before = store.raw_manifest(stage.name, key)
        ref = store.find(stage.name, key) or stage.run(arguments, store, before)[0]
        refs[stage.name] = ref
        return ref

    source = find_dataset(config.data.dataset)
    for _ in range(2 * len(GRAPH)):
        with contextlib.suppress(DamagedEntry):
            imitation(config, source, call)
            return refs, imitation.computed
    pytest.fail("does not heal")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@every_kind
@every_stage
def test_exactly_the_damaged_stage_is_computed_again(config, store, name, kind):
    refs, computed = run(config, store)
    assert computed == list(GRAPH)
    ref = refs[name]
    for file in (*ref.files, MANIFEST):
        kind(store.entry_path(name, ref.key) / file)
        healed, computed = run(config, store)
        assert computed == [name], file
        assert {n: r.digest for n, r in healed.items()} == {n: r.digest for n, r in refs.items()}
        assert_whole(store)


def test_damage_to_every_stage_at_once_heals(config, store):
    refs, _ = run(config, store)
    for ref in refs.values():
        flip(store.entry_path(ref.stage, ref.key) / "result.json")
    healed, computed = run(config, store)
    assert computed == list(GRAPH)
    assert {n: r.digest for n, r in healed.items()} == {n: r.digest for n, r in refs.items()}


def test_silent_damage_to_every_stage_heals_as_it_is_read(config, store):
    refs, _ = run(config, store)
    for ref in refs.values():
        damage_silently(store, ref, "result.json")
    empty(store.entry_path("publish", refs["publish"].key) / MANIFEST)
    healed, computed = run(config, store)
    assert {n: r.digest for n, r in healed.items()} == {n: r.digest for n, r in refs.items()}
    assert set(computed) >= set(GRAPH) - {"split-target"}


# --- as a flow ----------------------------------------------------------------------------


class Runs:
    """The flow on one store with imitated stages."""

    def __init__(self, imitation: Imitation, config: Config, root: Path) -> None:
        self.imitation, self.config, self.store = imitation, config, Store(root)
        self.refs: dict[str, Ref] = {}

    def __call__(self, **rerun: Any) -> tuple[dict[str, str], list[str]]:
        """What became of each stage, and the stages that were computed; results stay the same."""
        from flows.transfer_learning import transfer_learning

        self.imitation.computed.clear()
        record = transfer_learning(self.config, Rerun(**rerun), str(self.store.root))
        assert record.status == "completed"
        before = {name: ref.digest for name, ref in self.refs.items()}
        assert {stage.name: stage.digest for stage in record.stages} == before or not before
        states = {stage.name: stage.state for stage in record.stages}
        # Some are computed side by side.
        return states, sorted(self.imitation.computed, key=[*GRAPH].index)

    def path(self, name: str, file: str) -> Path:
        return self.store.entry_path(name, self.refs[name].key) / file


@pytest.fixture(scope="module")
def filled(prefect_api, config, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("filled") / "store"
    with pytest.MonkeyPatch.context() as patch:
        imitation = Imitation()
        patch.setattr("flows.transfer_learning.pipeline", imitation)
        assert Runs(imitation, config, root)() == (dict.fromkeys(GRAPH, "ran"), list(GRAPH))
    return root


@pytest.fixture
def runs(filled, config, tmp_path, monkeypatch) -> Runs:
    shutil.copytree(filled, tmp_path / "store")
    imitation = Imitation()
    monkeypatch.setattr("flows.transfer_learning.pipeline", imitation)
    found = Runs(imitation, config, tmp_path / "store")
    manifests = [found.store.manifest(*entry) for entry in found.store.entries()]
    found.refs = {manifest.ref.stage: manifest.ref for manifest in manifests if manifest}
    return found


def alone(*names: str) -> tuple[dict[str, str], list[str]]:
    """These stages ran, and no other."""
    return {stage: "ran" if stage in names else "cached" for stage in GRAPH}, list(names)


@pytest.mark.slow
@every_stage
def test_the_flow_heals_each_kind_of_damage_to_each_stage(runs, name):
    places = [*RESULTS, MANIFEST]
    for number, kind in enumerate(KINDS):
        kind(runs.path(name, places[number % len(places)]))
        assert runs() == alone(name)
        assert_whole(runs.store)


@pytest.mark.slow
@every_kind
def test_damage_to_prefects_own_records_computes_nothing(runs, kind):
    records = sorted(runs.store.records_path().iterdir())
    whole = [record.read_bytes() for record in records]
    assert len(whole) == len(GRAPH)
    for record in records:
        kind(record)
    assert runs() == alone()
    assert [json.loads(record.read_bytes())["result"] for record in records] == [
        json.loads(content)["result"] for content in whole
    ]


@pytest.mark.slow
def test_the_flow_heals_silent_damage_that_it_reads(runs):
    damage_silently(runs.store, runs.refs["cache-activations"], "result.json")
    states, computed = runs(refresh=["fine-tune"])
    assert computed == ["cache-activations", "fine-tune", "fine-tune"]
    assert states == alone("fine-tune", "cache-activations")[0]
    assert_whole(runs.store)


@pytest.mark.slow
def test_the_flow_heals_silent_damage_to_what_it_publishes(runs):
    damage_silently(runs.store, runs.refs["publish"], "results.md")
    assert runs() == alone("publish")


@pytest.mark.slow
def test_the_flow_heals_silent_damage_to_every_stage_in_one_run(runs):
    for name in GRAPH:
        damage_silently(runs.store, runs.refs[name], "result.json")
    states, _ = runs(refresh=["publish"])
    assert states["publish"] == "ran"


@pytest.mark.slow
def test_a_flow_without_records_or_stamps_computes_nothing(runs):
    for folder in (".prefect", ".stamps"):
        shutil.rmtree(runs.store.root / folder)
    assert runs() == alone()


# --- what is asked for --------------------------------------------------------------------


@pytest.mark.slow
@every_stage
def test_a_refreshed_stage_leaves_the_others_cached(runs, name):
    assert runs(refresh=[name]) == alone(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PREFECT_TASKS_REFRESH_CACHE", "PREFECT_TASKS_DISABLE_CACHING"])
def test_prefects_own_settings_compute_everything(runs, name):
    from prefect import settings

    with settings.temporary_settings({getattr(settings, name): True}):
        assert runs() == alone(*GRAPH)


# --- the real stages ----------------------------------------------------------------------


HEAL = """
import json, os, sys
from pathlib import Path
from artifacts.store import Store
from flows.running import Output, run
from flows.selection import Rerun
from models.config import load_config

store = Store(Path(sys.argv[1]))
for number, (name, key) in enumerate(list(store.entries())):
    names = sorted(store.manifest(name, key).ref.files)
    path = store.entry_path(name, key) / names[number % len(names)]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    run(load_config(tiny=True), Rerun(), store, Output(as_json=True, quiet=True), record=False)
    sys.stdout.write("next")
"""


@pytest.mark.slow
def test_real_stages_heal_to_the_same_bytes(finished, tiny):
    process = tiny.start_python("-c", HEAL, str(tiny.store))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    records = [json.loads(text) for text in out.split("next") if text]
    healed = [[s["name"] for s in r["stages"] if s["state"] != "cached"] for r in records]
    assert healed == [[name] for name in sorted(GRAPH)]
    assert all(digests_of(record) == digests_of(finished[1]) for record in records)
    assert_whole(Store(tiny.store))


def digests_of(record: Any) -> dict[str, str]:
    return {stage["name"]: stage["digest"] for stage in record["stages"]}


@pytest.mark.slow
@every_stage
def test_a_run_from_any_stage_on_gives_the_same_bytes(finished, tiny, name):
    record = tiny.json("run", "--tiny", "--from", name)
    assert record["stages"][list(GRAPH).index(name)]["state"] == "ran"
    assert digests_of(record) == digests_of(finished[1])


@pytest.mark.slow
def test_eight_runs_at_once_compute_each_stage_once(finished, tmp_path):
    command = finished[0].with_store(tmp_path / "store")
    started = [command.start("run", "--tiny", "--json") for _ in range(8)]
    answers = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0] * 8, answers
    records = [json.loads(out) for out, _ in answers]
    stages = [stage for record in records for stage in record["stages"]]
    assert sorted(s["name"] for s in stages if s["state"] == "ran") == sorted(GRAPH)
    assert all(digests_of(record) == digests_of(finished[1]) for record in records)
    assert_whole(Store(command.store))

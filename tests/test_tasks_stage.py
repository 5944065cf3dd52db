"""Stages: what their keys hold, how they run, what they leave behind."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from artifacts.reference import FileDigest, Ref
from artifacts.store import DamagedEntry, Store
from flows.pipeline import pipeline
from models.config import Config, Run, load_config
from models.sources import Source
from tasks import progress
from tasks.fingerprint import Project, library_versions
from tasks.stage import Stage, StageError, Untracked, Work, stage

SOURCE = """
from pathlib import Path

import numpy as np

from artifacts.reference import Ref
from models.config import Run
from tasks.stage import Untracked, Work, stage
from toy.helper import scale

ran = []


@stage("make", label="make {rows} rows")
def make(work: Work, *, rows: int, place: Untracked):
    '''Makes rows.

    No more.
    '''
    ran.append("make")
    work.save_array("x.npy", np.arange(float(rows)))
    return {"rows": rows}


@stage("train", label="train, seed {run.seed}")
def train(work: Work, *, rows: Ref, run: Run):
    '''Trains.'''
    ran.append("train")
    state = work.load_state("state.npz") or {"epoch": np.array(0)}
    for epoch in range(int(state["epoch"]), 4):
        work.save_state("state.npz", {"epoch": np.array(epoch + 1)})
        work.progress("epochs", epoch + 1, 4, loss=0.5)
        if Path(work.store.root / "fail").exists() and epoch == 2:
            raise ConnectionError("the machine is away")
    work.save_json("history.json", {"x": scale(work.array(rows, "x.npy")).tolist()})
    return {"started_at": int(state["epoch"])}


@stage("edit", label="edit")
def edit(work: Work, *, text: str):
    '''Edits its own helper while it runs.'''
    Path(__file__).with_name("helper.py").write_text(text)
    scale(1)
    return {}
"""
HELPER = "def scale(x):\n    return x * 2\n"
RUN = Run(seed=1)


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Iterator[ModuleType]:
    """A module of stages in a project of its own."""
    folder = tmp_path / "project" / "toy"
    folder.mkdir(parents=True)
    for name, text in {"__init__": "", "stages": SOURCE, "helper": HELPER}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder.parent)
    own = Project(folder.parent, ("toy",))
    monkeypatch.setattr("tasks.stage.project", lambda: own)
    yield importlib.import_module("toy.stages")
    for name in ("toy", "toy.stages", "toy.helper"):
        sys.modules.pop(name, None)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def rows(toy, store) -> Ref:
    ref, _ = toy.make.run({"rows": 3, "place": Untracked("here")}, store, None)
    toy.ran.clear()
    return ref


def manifest_of(store: Store, ref: Ref):
    return store.manifest(ref.stage, ref.key)


# --- keys ---------------------------------------------------------------------------------


def make_ref(digest: str, key: str = "k", stage_name: str = "load-dataset") -> Ref:
    return Ref(stage=stage_name, key=key, digest=digest)


def test_the_order_of_arguments_does_not_matter(toy):
    forth = toy.train.key({"rows": make_ref("d"), "run": RUN})
    assert toy.train.key({"run": RUN, "rows": make_ref("d")}) == forth
    assert len(forth) == 40
    assert set(forth) <= set("0123456789abcdef")


def test_an_untracked_argument_is_not_in_the_key(toy):
    here, there = (toy.make.key({"rows": 3, "place": Untracked(p)}) for p in ("here", "there"))
    assert here == there


def test_an_inputs_content_is_in_the_key_and_not_how_it_came_about(toy):
    known = FileDigest(sha256="1", size=1)
    keys = [
        toy.train.key({"rows": ref, "run": RUN})
        for ref in (
            make_ref("d"),
            make_ref("d", key="another"),
            make_ref("d").model_copy(update={"files": {"volatile": known}}),
            make_ref("e"),
        )
    ]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_every_argument_has_its_place(toy):
    one = toy.train.key({"rows": make_ref("d"), "other": make_ref("e")})
    assert toy.train.key({"rows": make_ref("e"), "other": make_ref("d")}) != one


@pytest.mark.parametrize("other", [1.0, True, "1", (1,), None])
def test_values_that_are_equal_or_look_equal_have_their_own_keys(toy, other):
    assert toy.make.key({"rows": other}) != toy.make.key({"rows": 1})


def test_a_value_that_json_cannot_hold_is_refused(toy):
    with pytest.raises(ValueError, match="JSON compliant"):
        toy.make.key({"rows": float("nan")})
    with pytest.raises(TypeError, match="not JSON serializable"):
        toy.make.key({"rows": object()})


def test_two_stages_never_share_a_key(toy):
    again = Stage(toy.make.function, "make-again", toy.make.label)
    assert again.key({"rows": 1}) != toy.make.key({"rows": 1})


def test_a_label_is_not_in_the_key(toy):
    renamed = Stage(toy.make.function, "make", "other words")
    assert renamed.key({"rows": 1}) == toy.make.key({"rows": 1})


@pytest.mark.parametrize("library", ["tensorflow", "keras", "numpy"])
def test_a_librarys_version_is_in_every_key(monkeypatch, library):
    before = keys_of(Config())
    versions = {**library_versions(), library: "99"}
    monkeypatch.setattr("tasks.stage.library_versions", lambda: versions)
    after = keys_of(Config())
    assert all(after[name] != before[name] for name in before)


def test_a_helper_is_in_the_key(toy, tmp_path, monkeypatch):
    arguments = {"rows": make_ref("d"), "run": RUN}
    train, make = toy.train.key(arguments), toy.make.key({"rows": 1})
    (tmp_path / "project" / "toy" / "helper.py").write_text(HELPER.replace("2", "3"))
    later = Project(tmp_path / "project", ("toy",))
    monkeypatch.setattr("tasks.stage.project", lambda: later)
    assert toy.train.key(arguments) != train
    assert toy.make.key({"rows": 1}) == make


def arguments_of(config: Config) -> dict[str, tuple[Stage, dict[str, Any]]]:
    """Every stage with its arguments, as if each had given what it gives whatever goes in."""
    found: dict[str, tuple[Stage, dict[str, Any]]] = {}

    def record(stage: Stage, /, **arguments: Any) -> Ref:
        found[stage.name] = stage, arguments
        return make_ref(stage.name, stage_name=stage.name)

    pipeline(config, Source(kind="mnist", files={"a": "1"}), record)
    return found


def keys_of(config: Config) -> dict[str, str]:
    return {name: each.key(with_) for name, (each, with_) in arguments_of(config).items()}


def stages_hit(*settings: str) -> set[str]:
    before, after = keys_of(Config()), keys_of(load_config(overrides=settings))
    return {name for name in before if after[name] != before[name]}


NETWORKS = {"train-full", "train-probe-then-tune", "train-pixels", "train-scratch"}


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("data.dataset=other.npz", set()),
        ("data.limit=5000", {"load-dataset"}),
        ("data.source_classes=0,1,2", {"split-source"}),
        ("data.few_shot=7", {"split-target"}),
        ("pretrain.learning_rate=0.0005", {"pretrain"}),
        ("network.dropout=0.1", {"pretrain"}),
        ("network.units=30", {"pretrain", *NETWORKS} - {"train-pixels"}),
        ("activations.layers=hidden1", {"cache-activations"}),
        ("fine_tune.patience=3", {"fine-tune"}),
        ("transfer.patience=3", NETWORKS),
        ("transfer.cut=hidden3", NETWORKS - {"train-pixels"}),
        ("transfer.top=3", set()),
        ("transfer.anchor=1", set()),
        ("augmentation.shift=3", {"pretrain", *NETWORKS}),
        ("evaluate.confidence=0.9", {"evaluate"}),
        ("run.seed=3", {"pretrain", "fine-tune", *NETWORKS}),
    ],
)
def test_a_setting_is_in_the_keys_of_the_stages_that_use_it(setting, stages):
    assert stages_hit(setting) == stages


def test_the_settings_of_pairs_are_in_the_key_of_their_stage_alone_and_only_if_it_runs():
    assert stages_hit("pairs.epoch_pairs=100") == set()
    asked = "pretrain.task=pairs"
    before = keys_of(load_config(overrides=[asked]))
    for setting, stages in {
        "pairs.epoch_pairs=100": {"pretrain-pairs"},
        "pretrain.learning_rate=0.0005": {"pretrain"},
        "network.units=30": {"pretrain-pairs", "pretrain", *NETWORKS} - {"train-pixels"},
    }.items():
        after = keys_of(load_config(overrides=[asked, setting]))
        assert {name for name in before if after[name] != before[name]} == stages


@pytest.mark.parametrize("section", ["pretrain", "fine_tune", "evaluate"])
def test_every_field_of_a_stages_own_section_is_in_its_key_alone(section):
    own = section.replace("_", "-")
    config = Config()
    before = keys_of(config)
    for field in type(getattr(config, section)).model_fields:
        value = getattr(getattr(config, section), field)
        if isinstance(value, bool):
            other: Any = not value
        elif isinstance(value, tuple):
            other = (*value, 1)
        else:
            other = "another" if isinstance(value, str) else value + 1
        changed = getattr(config, section).model_copy(update={field: other})
        after = keys_of(config.model_copy(update={section: changed}))
        assert {name for name in before if after[name] != before[name]} == {own}, field


# --- declaring ----------------------------------------------------------------------------


def make_closure(offset: int) -> Callable[..., dict[str, Any]]:
    def work(work: Work) -> dict[str, Any]:
        return {"offset": offset}

    return work


@pytest.mark.parametrize("function", [make_closure(1), lambda work: {}])
def test_what_is_made_inside_a_function_is_no_stage(function):
    with pytest.raises(TypeError, match="must be defined at the top of a module"):
        stage("work", label="")(function)


def test_a_stage_outside_the_project_has_no_key():
    outside = stage("work", label="")(make_closure)
    with pytest.raises(ValueError, match="is not at the top of a module in flows/ or tasks/"):
        outside.key({})


def test_a_stage_tells_what_it_does(toy):
    assert toy.make.summary == "Makes rows."
    assert toy.make.describe({"rows": (1, 2), "place": "here"}) == "make 1, 2 rows"
    assert toy.train.describe({"rows": None, "run": RUN}) == "train, seed 1"
    assert [parameter.name for parameter in toy.train.parameters] == ["rows", "run"]


@pytest.mark.parametrize("name", keys_of(Config()))
def test_every_stage_of_the_pipeline_tells_what_it_does(name):
    found, arguments = arguments_of(Config())[name]
    assert found.summary.endswith(".")
    assert "{" not in found.describe(arguments)
    assert {parameter.name for parameter in found.parameters} == set(arguments)


# --- running ------------------------------------------------------------------------------


def test_a_result_is_stored_with_all_that_made_it(toy, store, rows):
    ref, computed = toy.train.run({"rows": rows, "run": RUN}, store, None)
    manifest = manifest_of(store, ref)
    assert computed
    assert store.find("train", ref.key) == ref == manifest.ref
    assert manifest.inputs == {"rows": rows}
    assert manifest.settings == {"run.seed": 1, "run.threads": RUN.threads}
    assert set(manifest.code) == {
        "toy/helper.py: scale",
        "toy/stages.py: ran",
        "toy/stages.py: train",
    }
    assert set(manifest.versions) == {"tensorflow", "keras", "numpy"}
    assert (manifest.resumed, ref.metrics) == (False, {"started_at": 0})


def test_an_untracked_argument_is_not_among_the_settings(store, rows):
    assert manifest_of(store, rows).settings == {"rows": 3}


def test_an_entry_made_since_it_was_looked_for_is_taken(toy, store, rows):
    arguments = {"rows": rows, "run": RUN}
    first, _ = toy.train.run(arguments, store, None)
    assert toy.train.run(arguments, store, None) == (first, False)
    assert toy.ran == ["train"]


def test_an_entry_that_was_there_before_is_made_again(toy, store, rows):
    arguments = {"rows": rows, "run": RUN}
    first, _ = toy.train.run(arguments, store, None)
    seen = store.raw_manifest("train", first.key)
    assert toy.train.run(arguments, store, seen) == (first, True)
    assert toy.ran == ["train", "train"]
    # Whoever had decided on the same when there was that entry takes the new one.
    assert toy.train.run(arguments, store, seen) == (first, False)


def test_a_damaged_entry_made_since_is_not_taken(toy, store, rows):
    arguments = {"rows": rows, "run": RUN}
    first, _ = toy.train.run(arguments, store, None)
    (store.entry_path("train", first.key) / "history.json").write_bytes(b"{}")
    assert toy.train.run(arguments, store, None) == (first, True)
    assert store.damage("train", first.key) == []


def test_a_damaged_input_is_not_used(toy, store, rows):
    path = store.entry_path("make", rows.key) / "x.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DamagedEntry, match=r"x\.npy is damaged"):
        toy.train.run({"rows": rows, "run": RUN}, store, None)
    assert [name for name, _ in store.entries()] == ["make"]


def test_a_result_is_refused_if_its_code_changed_meanwhile(toy, store):
    with pytest.raises(
        StageError, match=r"toy/helper\.py: scale changed while edit ran.*Run again"
    ):
        toy.edit.run({"text": "def scale(x):\n    return 0\n"}, store, None)
    assert list(store.entries()) == []


def test_a_result_is_kept_if_its_code_was_only_written_again(toy, store):
    _, computed = toy.edit.run({"text": HELPER}, store, None)
    assert computed


def test_a_stage_that_died_goes_on_where_it_was(toy, store, rows):
    arguments = {"rows": rows, "run": RUN}
    (store.root / "fail").touch()
    with pytest.raises(ConnectionError):
        toy.train.run(arguments, store, None)
    assert [name for name, _ in store.entries()] == ["make"]
    (store.root / "fail").unlink()
    ref, _ = toy.train.run(arguments, store, None)
    assert ref.metrics == {"started_at": 3}
    assert manifest_of(store, ref).resumed
    assert not store.state_path("train", ref.key).exists()


def test_a_stage_with_other_settings_does_not_go_on_from_there(toy, store, rows):
    (store.root / "fail").touch()
    with pytest.raises(ConnectionError):
        toy.train.run({"rows": rows, "run": RUN}, store, None)
    (store.root / "fail").unlink()
    ref, _ = toy.train.run({"rows": rows, "run": Run(seed=2)}, store, None)
    assert ref.metrics == {"started_at": 0}
    assert not manifest_of(store, ref).resumed


def test_whoever_listens_hears_of_progress(toy, store, rows):
    heard: list[progress.Event] = []
    with progress.listening(heard.append):
        toy.train.run({"rows": rows, "run": RUN}, store, None)
    assert [(event.stage, event.text, event.done, event.total) for event in heard] == [
        ("train", "epochs", epoch, 4) for epoch in (1, 2, 3, 4)
    ]


# --- what a stage works with --------------------------------------------------------------


@pytest.fixture
def work(store) -> Iterator[Work]:
    with store.draft("sample", "key") as draft:
        yield Work(store, draft)


def test_what_is_saved_comes_back(work, store):
    arrays = {"kernel": np.eye(3, dtype=np.float32), "step": np.array(4)}
    work.save_array("deep/x.npy", np.arange(5))
    work.save_arrays("weights.npz", arrays)
    work.save_json("history.json", {"loss": [0.1, 1e-300]})
    work.save_bytes("figure.png", b"\x89PNG")
    ref = store.commit(work.draft, seconds=0.1)
    assert work.array(ref, "deep/x.npy").tolist() == [0, 1, 2, 3, 4]
    assert work.json(ref, "history.json") == {"loss": [0.1, 1e-300]}
    assert work.content(ref, "figure.png") == b"\x89PNG"
    assert {n: a.tobytes() for n, a in work.arrays(ref, "weights.npz").items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }


def test_no_pickle_and_no_nan_in_json(work):
    with pytest.raises(ValueError, match="array of Python objects"):
        work.save_array("x.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="JSON compliant"):
        work.save_json("x.json", [float("nan")])


def test_a_state_comes_back_and_says_that_it_did(work):
    assert work.load_state("state.npz") is None
    assert not work.resumed
    work.save_state("state.npz", {"epoch": np.array(3), "kernel": np.array([np.nan, -0.0])})
    state = work.load_state("state.npz")
    assert work.resumed
    assert state["epoch"] == 3
    assert state["kernel"].tobytes() == np.array([np.nan, -0.0]).tobytes()


def test_a_state_with_a_bit_flipped_or_cut_short_is_ignored(work):
    work.save_state("state.npz", {"epoch": np.array(3)})
    path = work.state("state.npz")
    good = path.read_bytes()
    for bit in range(0, len(good) * 8, 9):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert work.load_state("state.npz") is None
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        assert work.load_state("state.npz") is None
    assert not work.resumed


# --- several processes --------------------------------------------------------------------

TOGETHER = """
import json, sys, time
from pathlib import Path
import tasks.stage
from artifacts.store import Store
from tasks.fingerprint import Project
from tasks.stage import Untracked

root, go = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(root / "project"))
own = Project(root / "project", ("toy",))
tasks.stage.project = lambda: own
from toy.stages import make, train
from models.config import Run

store = Store(root / "store")
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
arguments = {"rows": 3, "place": Untracked("")}
rows, made = make.run(arguments, store, None)
trained, ran = train.run({"rows": rows, "run": Run(seed=1)}, store, None)
print(json.dumps([made, ran, rows.digest, trained.digest, store.damage("train", trained.key)]))
"""


def test_processes_that_want_the_same_compute_it_once_and_all_get_it(toy, store, tmp_path):
    command = [sys.executable, "-c", TOGETHER, str(tmp_path), str(tmp_path / "go")]
    started = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
        )
        for _ in range(8)
    ]
    assert [process.stdout.readline() for process in started] == ["ready\n"] * 8
    (tmp_path / "go").touch()
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert sum(made for made, *_ in answers) == 1
    assert sum(ran for _, ran, *_ in answers) == 1
    assert len({tuple(digests) for _, _, *digests, _ in answers}) == 1
    assert all(damage == [] for *_, damage in answers)


HOLD = """
import sys, time
from pathlib import Path
from artifacts.store import Store
store = Store(Path(sys.argv[1]))
with store.lock("make", sys.argv[2]), store.draft("make", sys.argv[2]) as draft:
    (draft.path / "x.npy").write_bytes(b"half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_work_of_a_killed_process_is_taken_over(toy, store):
    arguments = {"rows": 3, "place": Untracked("")}
    key = toy.make.key(arguments)
    command = [sys.executable, "-c", HOLD, str(store.root), key]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    ref, computed = toy.make.run(arguments, store, None)
    assert computed
    assert store.array(ref, "x.npy").tolist() == [0, 1, 2]

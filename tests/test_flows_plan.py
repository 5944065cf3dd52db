"""What a run would do and why, told from the store alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifacts.reference import Ref
from artifacts.store import MANIFEST, Store, StoreError
from flows.pipeline import pipeline
from flows.plan import Step, make_plan
from flows.preflight import prepare
from flows.selection import Rerun, read_graph, select
from models.config import Config, ConfigError, load_config
from models.datasets import find_dataset
from models.sources import Source
from tasks.fingerprint import PACKAGES, ROOT, Project, library_versions
from tasks.stage import Stage, inputs_of, settings_of

CONFIG = Config()
GRAPH = read_graph(CONFIG)
SOURCE = Source(kind="made-up", files={"npz": "1"})
DIRECT = {"split-source", "split-target"}


def fill(store: Store, config: Config = CONFIG, source: Source = SOURCE, **content: str) -> None:
    """Entries such as a run would leave, of a few bytes each; ``content`` by name of the stage."""

    def make(stage: Stage, /, **arguments: Any) -> Ref:
        with store.draft(stage.name, stage.key(arguments)) as draft:
            text = content.get(stage.name.replace("-", "_"), "as ever")
            (draft.path / "result.json").write_text(json.dumps([stage.name, text]))
            return store.commit(
                draft,
                inputs=inputs_of(arguments),
                settings=settings_of(arguments),
                code=stage.code(),
                versions=stage.versions(),
                seconds=1.5,
            )

    pipeline(config, source, make)


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("filled") / "store"
    fill(Store(root))
    return root


@pytest.fixture
def store(filled, tmp_path) -> Store:
    shutil.copytree(filled, tmp_path / "store")
    return Store(tmp_path / "store")


def plan(store: Store, *settings: str, **rerun: Any) -> dict[str, Step]:
    config = load_config(overrides=settings)
    steps = make_plan(config, SOURCE, store, select(Rerun(**rerun), GRAPH))
    return {step.name: step for step in steps}


def states(steps: dict[str, Step]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"cached": set(), "run": set(), "open": set()}
    for step in steps.values():
        found[step.state].add(step.name)
    return found


def after(name: str) -> set[str]:
    return set(select(Rerun(start=name), GRAPH).fresh) - {name}


def entry(store: Store, stage: str) -> Path:
    (path,) = (store.root / stage).iterdir()
    return path


# --- states -------------------------------------------------------------------------------


def test_everything_is_cached_after_a_run(store):
    steps = plan(store)
    assert list(steps) == list(GRAPH)
    assert states(steps)["cached"] == set(GRAPH)
    assert all(step.ref and step.created and step.reasons == () for step in steps.values())
    assert {step.seconds for step in steps.values()} == {1.5}


def test_in_an_empty_store_the_first_stage_runs_and_the_rest_depends(tmp_path):
    steps = plan(Store(tmp_path / "store"))
    assert states(steps) == {
        "cached": set(),
        "run": {"load-dataset"},
        "open": set(GRAPH) - {"load-dataset"},
    }
    assert steps["load-dataset"].reasons == ("never ran",)
    assert steps["split-source"].reasons == ("input load-dataset would run",)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", GRAPH)
def test_a_damaged_stage_runs_and_only_what_follows_depends_on_it(store, name):
    (entry(store, name) / "result.json").write_bytes(b"[]")
    found = states(plan(store))
    assert found["run"] == {name}
    assert found["open"] == after(name)


# --- reasons ------------------------------------------------------------------------------


def test_a_changed_setting_is_told_with_both_values(store):
    steps = plan(store, "pretrain.learning_rate=0.0005", "pretrain.schedule=constant")
    assert steps["pretrain"].reasons == (
        "pretrain.learning_rate 0.002 -> 0.0005",
        "pretrain.schedule cosine -> constant",
    )
    assert states(steps)["run"] == {"pretrain"}
    assert states(steps)["open"] == after("pretrain")


@pytest.mark.parametrize(
    ("setting", "stage", "reason"),
    [
        ("data.limit=900", "load-dataset", "data.limit 0 -> 900"),
        ("data.few_shot=7", "split-target", "data.few_shot 100 -> 7"),
        ("run.seed=1", "pretrain", "run.seed 42 -> 1"),
        (
            "data.source_classes=0,1",
            "split-source",
            "data.source_classes [0, 1, 2, 3, 4] -> [0, 1]",
        ),
        ("evaluate.confidence=0.9", "evaluate", "evaluate.confidence 0.95 -> 0.9"),
    ],
)
def test_settings_are_called_as_on_the_command_line(store, setting, stage, reason):
    assert plan(store, setting)[stage].reasons == (reason,)


def test_going_back_to_earlier_settings_finds_the_earlier_results(store):
    fill(store, load_config(overrides=["pretrain.patience=3"]), pretrain="another")
    assert states(plan(store))["cached"] == set(GRAPH)
    assert states(plan(store, "pretrain.patience=3"))["cached"] == set(GRAPH)


def test_another_dataset_is_told(store):
    other = Source(kind="made-up", files={"npz": "2"})
    steps = make_plan(CONFIG, other, store, select(Rerun(), GRAPH))
    assert steps[0].reasons == ("source.files.npz 1 -> 2",)


def test_a_moved_dataset_runs_nothing(store):
    assert states(plan(store, "data.dataset=elsewhere.npz"))["cached"] == set(GRAPH)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b"x"), "result.json is damaged"),
        (lambda path: path.write_bytes(b""), "result.json is damaged"),
        (lambda path: path.unlink(), "result.json is missing"),
        (lambda path: (path.parent / MANIFEST).unlink(), "manifest.json is damaged or missing"),
        (lambda path: (path.parent / MANIFEST).write_bytes(b"{"), "manifest.json is damaged or"),
    ],
)
def test_damage_is_told(store, damage, reason):
    damage(entry(store, "fine-tune") / "result.json")
    step = plan(store)["fine-tune"]
    assert step.state == "run"
    assert len(step.reasons) == 1
    assert step.reasons[0].startswith(reason)


def test_an_input_with_other_content_is_told(store):
    # The same key with other bytes: what a stage that is not reproducible would leave.
    fill(store, pretrain="other bytes")
    shutil.rmtree(store.root / "export-checkpoint")
    fill(store)
    fill(store, pretrain="yet other bytes")
    for stage in after("pretrain"):
        youngest = max((store.root / stage).iterdir(), key=lambda path: path.stat().st_ctime)
        shutil.rmtree(youngest)
    steps = plan(store)
    assert steps["pretrain"].state == "cached"
    assert steps["export-checkpoint"].reasons == ("input pretrain changed",)
    assert states(steps)["run"] == {"export-checkpoint"}


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Makes an edited copy of this project the one whose code counts."""

    def edit(file: str, old: str, new: str) -> None:
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__", "store")
            shutil.copytree(ROOT / package, tmp_path / "edited" / package, ignore=ignored)
        path = tmp_path / "edited" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        edited = Project(tmp_path / "edited")
        monkeypatch.setattr("tasks.stage.project", lambda: edited)

    return edit


def test_changed_code_is_named(store, edit):
    edit("models/networks.py", 'name="trunk"', 'name="stem"')
    steps = plan(store)
    reason = "models/networks.py: build_trunk changed"
    assert steps["pretrain"].reasons == steps["train-scratch"].reasons == (reason,)
    assert states(steps)["run"] == {"pretrain", "train-pixels", "train-scratch"}


def test_new_code_and_code_that_is_gone_are_named(store, edit):
    edit("models/networks.py", "_layer_seed", "_draw_seed")
    reasons = plan(store)["pretrain"].reasons
    assert "models/networks.py: _draw_seed is new" in reasons
    assert "models/networks.py: _layer_seed is gone" in reasons
    assert "models/networks.py: build_trunk changed" in reasons


def test_a_comment_runs_nothing(store, edit):
    edit("models/networks.py", "def build_trunk", "# A remark.\n\n\ndef build_trunk")
    assert states(plan(store))["cached"] == set(GRAPH)


def test_another_library_is_named(store, monkeypatch):
    versions = {**library_versions(), "keras": "99.0"}
    monkeypatch.setattr("tasks.stage.library_versions", lambda: versions)
    reason = f"keras {library_versions()['keras']} -> 99.0"
    assert plan(store)["load-dataset"].reasons == (reason,)


def test_tensorboards_logs_are_of_no_training_stages_key(store):
    steps = plan(store, "run.tensorboard=true")
    assert states(steps)["run"] == {"publish"}
    assert steps["publish"].reasons == ("run.tensorboard False -> True",)


# --- what is asked for --------------------------------------------------------------------


def test_a_stage_asked_for_runs_and_the_rest_stays(store):
    steps = plan(store, refresh=("pretrain",))
    assert steps["pretrain"].reasons == ("asked for",)
    assert states(steps) == {
        "run": {"pretrain"},
        "cached": set(GRAPH) - {"pretrain"},
        "open": set(),
    }


def test_from_a_stage_all_after_it_run(store):
    assert states(plan(store, start="fine-tune"))["run"] == {"fine-tune", *after("fine-tune")}


def test_without_the_cache_all_run(store):
    assert states(plan(store, cache=False))["run"] == set(GRAPH)


def test_only_one_stage_leaves_out_what_it_does_not_need(store):
    steps = plan(store, only="fine-tune")
    assert set(steps) == select(Rerun(only="fine-tune"), GRAPH).wanted
    assert states(steps)["run"] == {"fine-tune"}


# --- settled beforehand -------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mnist") / "store"
    fill(Store(root), source=find_dataset("mnist"))
    return root


@pytest.fixture
def ready(mnist, tmp_path) -> Store:
    shutil.copytree(mnist, tmp_path / "ready")
    return Store(tmp_path / "ready")


def test_nothing_to_run_is_idle(ready):
    assert prepare(CONFIG, Rerun(), ready).is_idle
    assert not prepare(CONFIG, Rerun(refresh=("publish",)), ready).is_idle


def test_one_stage_alone_names_what_it_lacks(ready):
    shutil.rmtree(ready.root / "pretrain")
    with pytest.raises(StoreError) as caught:
        prepare(CONFIG, Rerun(only="fine-tune"), ready)
    lacks = "lacks pretrain, export-checkpoint, cache-activations for these settings"
    assert lacks in str(caught.value)
    assert "--with-upstream" in str(caught.value)


def test_one_stage_alone_names_a_damaged_input(ready):
    (entry(ready, "cache-activations") / "result.json").write_bytes(b"")
    with pytest.raises(StoreError, match="lacks cache-activations for these settings"):
        prepare(CONFIG, Rerun(only="fine-tune"), ready)


def test_one_stage_alone_with_upstream_makes_what_it_lacks(ready):
    shutil.rmtree(ready.root / "pretrain")
    steps = prepare(CONFIG, Rerun(only="fine-tune", with_upstream=True), ready).steps
    assert {s.name: s.state for s in steps if s.state != "cached"} == {
        "pretrain": "run",
        "export-checkpoint": "open",
        "cache-activations": "open",
        "fine-tune": "run",
    }


def test_settings_that_do_not_fit_the_data_are_refused_before_anything_is_written(tmp_path):
    config = load_config(overrides=["data.target_classes=8,9,10"])
    with pytest.raises(ConfigError, match="10"):
        prepare(config, Rerun(), Store(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


ASK = """
import sys
from pathlib import Path
from artifacts.store import Store
from flows.preflight import prepare
from flows.selection import Rerun
from models.config import Config
assert prepare(Config(), Rerun(), Store(Path(sys.argv[1]))).is_idle
print(*[name for name in ("prefect", "tensorflow", "keras", "matplotlib") if name in sys.modules])
"""


def test_planning_imports_neither_prefect_nor_tensorflow(ready):
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(ready.root)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (asked.stdout, asked.stderr) == ("\n", "")

"""The search: its stages, that each candidate is computed once, and what it does with bad ones."""

import csv
import itertools
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from artifacts.store import Store
from artifacts.summary import summarise
from flows.selection import read_graph
from flows.trials import search
from models.config import load_config
from models.datasets import find_dataset
from models.search import draw_candidates
from tasks import progress
from tasks.stage import StageError

QUICK = (
    "data.limit=600",
    "data.validation_rows=100",
    "data.few_shot=0",
    "data.few_shot_validation=0",
    "search.units=4,5,6",
    "search.activations=elu",
    "search.batch_sizes=50",
    "search.learning_rates=0.01",
    "network.hidden_layers=1",
    "network.batch_norm=false",
    "pretrain.augment=false",
    "pretrain.max_epochs=2",
    "search.folds=2",
    "search.max_epochs=2",
    "search.trials=2",
)


class Caller:
    """Runs a search's stages in this process, as the flow would; notes which were computed."""

    def __init__(self, store):
        self.store = store
        self.ran = []
        self.refs = {}

    def __call__(self, stage, /, **arguments):
        key = stage.key(arguments)
        ref = self.store.find(stage.name, key)
        if ref is None:
            self.ran.append(stage.name)
            ref, _ = stage.run(arguments, self.store, self.store.raw_manifest(stage.name, key))
        self.refs[stage.name] = ref
        return ref


def run(store, *settings):
    """A quick search; what was computed and all results."""
    config = load_config(overrides=[*QUICK, *settings])
    called = Caller(store)
    search(config, find_dataset(config.data.dataset), called)
    return called


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("search"))
    return store, run(store)


def table(called, name="candidates.csv"):
    path = called.store.entry_path("rank", called.refs["rank"].key) / name
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_search_leaves_a_table_the_best_settings_and_a_tested_checkpoint(finished):
    store, called = finished
    rows = table(called)
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert {row["number"] for row in rows} == {"1", "2"}
    assert all(float(row["seconds"]) > 0 for row in rows)
    files = called.refs["rank"].files
    assert {"candidates.parquet", "error-by-setting.png", "error-by-setting.svg"} <= set(files)
    assert "model.keras" in called.refs["export-checkpoint"].files
    (result,) = called.refs["measure"].metrics["results"]
    assert 0.2 < result["low"] < result["accuracy"] < result["high"] <= 1
    assert "published_low" not in result


def test_the_best_settings_are_a_file_that_a_run_reads(finished, tmp_path):
    store, called = finished
    chosen = called.refs["choose"]
    file = store.entry_path("choose", chosen.key) / "best.toml"
    assert set(tomllib.loads(file.read_text())) == {"network", "pretrain"}
    config = load_config(file)
    best = table(called)[0]
    assert str(config.network.units) == best["units"]
    assert config.pretrain.max_epochs == 2
    assert not config.network.batch_norm
    assert config.network.model_dump(mode="json") == chosen.metrics["network"]


def test_the_folds_stop_by_images_that_do_not_score(finished):
    _, called = finished
    metrics = called.refs["cross-validate"].metrics
    assert len(metrics["accuracies"]) == len(metrics["losses"]) == 2
    assert metrics["epochs"] == [2, 2]
    assert metrics["failure"] == ""


def test_a_further_trial_computes_only_its_own(finished):
    store, _ = finished
    assert run(store).ran == []
    further = run(store, "search.trials=3")
    assert further.ran[:2] == ["cross-validate", "rank"]
    assert further.ran.count("cross-validate") == 1
    assert len(table(further)) == 3


@pytest.mark.slow
def test_a_further_trial_that_is_no_better_leaves_the_trained_trunk(finished):
    store, _ = finished
    # A network of one unit cannot tell five classes apart.
    settings = ("search.units=4,5,6,1", f"run.seed={_seed_where_the_last_is_poor()}")
    run(store, *settings, "search.trials=3")
    further = run(store, *settings, "search.trials=4")
    assert set(further.ran) == {"cross-validate", "rank", "choose"}


def _seed_where_the_last_is_poor():
    config = load_config(overrides=[*QUICK, "search.units=4,5,6,1", "search.trials=4"])
    return next(
        seed
        for seed in range(100)
        if draw_candidates(config.search, config.network, seed).candidates[-1].units == 1
    )


@pytest.mark.slow
def test_a_search_ends_to_the_same_bits(finished, tmp_path):
    _, called = finished
    again = run(Store(tmp_path / "another"))
    assert {name: ref.digest for name, ref in again.refs.items()} == {
        name: ref.digest for name, ref in called.refs.items()
    }


def test_a_killed_candidate_goes_on_where_it_stopped(finished, tmp_path, monkeypatch):
    _, called = finished
    # Kept is an epoch a second.
    clock = SimpleNamespace(monotonic=itertools.count(step=2).__next__)
    monkeypatch.setattr("tasks.fitting.time", clock)
    store = Store(tmp_path / "killed")

    def kill(event):
        if event.stage == "cross-validate" and event.text == "fold2":
            raise KeyboardInterrupt

    with progress.listening(kill), pytest.raises(KeyboardInterrupt):
        run(store)
    again = run(store)
    resumed = [store.manifest(*entry).resumed for entry in store.entries()]
    assert resumed.count(True) == 1
    assert again.refs["cross-validate"].digest == called.refs["cross-validate"].digest
    assert again.refs["measure"].digest == called.refs["measure"].digest


@pytest.mark.slow
def test_a_candidate_that_diverges_is_ranked_last_and_said(finished):
    store, called = finished
    wild = ("search.learning_rates=0.01,1e38", "search.units=5", "network.batch_norm=true")
    found = run(store, *wild, "search.momentums=")
    rows = table(found)
    assert [row["learning_rate"] for row in rows] == ["0.01", "1e+38"]
    assert rows[1]["accuracy"] == ""
    assert rows[1]["failure"].startswith("fold1: Training diverged")
    assert float(found.refs["choose"].metrics["pretrain"]["learning_rate"]) == 0.01
    (summary, _) = summarise({name: ref.metrics for name, ref in found.refs.items()})
    assert summary.title.endswith("; 1 failed")
    assert summary.rows[1]["accuracy"] == "failed in fold1"


@pytest.mark.slow
def test_a_search_whose_candidates_all_diverge_says_what_to_do(finished):
    store, _ = finished
    with pytest.raises(StageError, match="all 2 candidates failed.*search.learning_rates"):
        run(store, "search.learning_rates=1e37,1e38", "search.units=5", "network.batch_norm=true")


def test_the_same_settings_are_the_same_candidate_wherever_they_are_drawn(finished):
    store, _ = finished
    # Another seed would be other folds; another space only draws in another order.
    every = run(store, "search.trials=3")
    assert "cross-validate" not in run(store, "search.trials=3", "search.units=6,5,4").ran
    assert len(table(every)) == 3


def test_the_graph_ends_in_the_test():
    graph = read_graph(load_config(), search)
    assert graph["measure"] == ("export-checkpoint", "load-dataset", "split-source")
    assert graph["refit"] == ("choose", "load-dataset", "split-source")
    assert len(graph["rank"]) == load_config().search.trials


def test_published_figures_stand_beside_the_published_space_alone():
    def published(*settings, preset="published"):
        asked = []

        def note(stage, /, **arguments):
            asked.append(arguments)
            return None

        config = load_config(overrides=settings, preset=preset)
        search(config, find_dataset("mnist"), note)
        return asked[-1]["published"]

    assert published() == (0.9881, 0.9932)
    assert published("network.batch_norm=true") == (0.9938, 0.9949)
    assert published("network.dropout=0.5") == (0.9881, 0.9905)
    assert published("search.units=100") is None
    assert published(preset="") is None


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("search.folds=1", "search.folds = 1: input should be greater than or equal to 2"),
        ("search.trials=0", "search.trials = 0: input should be greater than or equal to 1"),
        ("search.units=", "search.units = []: tuple should have at least 1 item"),
    ],
)
def test_bad_settings_end_before_anything_begins(headstart, setting, problem):
    done = headstart("search", "--tiny", "--set", setting)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert not headstart.store.exists()


def test_a_dry_run_tells_the_candidates_and_runs_nothing(headstart):
    plan = headstart.json("search", "--tiny", "--dry-run")["stages"]
    names = [step["name"] for step in plan]
    assert names.count("cross-validate") == 3
    assert names[-5:] == ["rank", "choose", "refit", "export-checkpoint", "measure"]
    assert not headstart.store.exists()


@pytest.mark.slow
def test_the_command_searches_shows_and_is_cached(headstart_at, tmp_path):
    command = headstart_at(tmp_path)
    quick = [word for setting in QUICK for word in ("--set", setting)]
    done = command("search", *quick)
    assert done.returncode == 0, done.stderr
    assert "2 candidates, accuracy in % on held-out images" in done.stdout
    assert "pretrained, searched" in done.stdout
    assert "best.toml" in done.stderr
    record = command.json("search", *quick)
    assert not record["recorded"]
    assert record["results"][0]["name"] == "pretrained, searched"

    page = command("show", "latest", "--open", env={"BROWSER": "true"}).stdout.split()[-1]
    html = Path(page).read_text()
    for words in ("Error by setting", "pretrained, searched", "best.toml", "2 candidates"):
        assert words in html
    posted = command.prefect("artifacts/latest/filter", limit=50)
    assert {"search", "measured", "error-by-setting"} <= {found["key"] for found in posted}
    assert all(found["data"] for found in posted)

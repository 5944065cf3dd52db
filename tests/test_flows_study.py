"""The study: which cells there are, and that each is computed once."""

import csv

import pytest

from flows.grid import cells, study
from flows.selection import read_graph
from models.config import ConfigError, load_config


def grid(*settings):
    found = cells(load_config(overrides=settings))
    return [(c.run.seed, c.data.few_shot, c.transfer.cut) for c in found]


def test_cells_are_all_seeds_labels_and_cuts():
    found = grid("study.seeds=3,4", "study.labels=10,0", "study.cuts=hidden2")
    assert found == [(s, n, cut) for s in (3, 4) for n in (10, 0) for cut in ("", "hidden2")]


def test_all_images_come_with_all_validation_images():
    few, every = cells(load_config(overrides=["study.seeds=0", "study.labels=10,0"]))
    assert few.data.few_shot_validation == 30
    assert every.data.few_shot_validation == 0


def test_a_study_ends_in_one_table_of_everything_trained():
    graph = read_graph(load_config(), study)
    assert set(graph["tabulate"]) == {"evaluate", "fine-tune"} | {
        name for name in graph if name.startswith("train-")
    }
    assert "publish" not in graph


def test_an_unknown_cut_is_refused():
    with pytest.raises(ConfigError, match="study.cuts: unknown hidden9"):
        load_config(overrides=["study.cuts=hidden9"])


@pytest.mark.slow
def test_a_further_seed_computes_its_own_cells_alone(headstart_at, tmp_path):
    command = headstart_at(tmp_path)
    tiny = ["study", "--tiny", "--set", "study.labels=5", "--set"]
    first = command.json(*tiny, "study.seeds=0")
    assert {stage["state"] for stage in first["stages"]} == {"ran"}
    both = command.json(*tiny, "study.seeds=0,1")
    states = {(s["name"], s["key"]): s["state"] for s in both["stages"]}
    before = {(s["name"], s["key"]) for s in first["stages"] if s["name"] != "tabulate"}
    assert {place for place, state in states.items() if state == "cached"} == before
    assert not command.json(*tiny, "study.seeds=0,1")["recorded"]

    (table,) = [p for p in command.store.glob("tabulate/*/cells.csv") if "5,1," in p.read_text()]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["seed"], row["labels"]) for row in rows} == {("0", "5"), ("1", "5")}
    assert {row["strategy"] for row in rows} >= {"from scratch", "full fine-tuning"}
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert table.with_suffix(".parquet").stat().st_size > 0

"""The reproduction: which stages it has, what they share, and what a user gets."""

import json

import pytest

from artifacts.reference import Ref
from flows.recipes import reproduce
from models.config import load_config
from models.sources import Source


def calls(*settings):
    """Every stage that is asked for, with its arguments, and none of them run."""
    asked = []

    def record(stage, /, **arguments):
        asked.append((stage.name, arguments))
        return Ref.pending(stage.name)

    reproduce(load_config(overrides=settings), Source(kind="", files={}), record)
    return asked


def names(*settings):
    return [name for name, _ in calls(*settings)]


def test_a_checkpoint_is_trained_once_for_all_that_start_from_it():
    found = names(
        "reproduce.recipes=002-continue,002-reuse,002-freeze,002-cache", "reproduce.seeds=2"
    )
    assert found.count("pretrain-002-clip") == 2
    assert found.count("train-002-cache") == found.count("cache-activations") == 2
    assert found[-2:] == ["answer", "compare"]


def test_the_same_experiment_of_two_documents_is_trained_once():
    found = names("reproduce.recipes=000-bn,002-bn", "reproduce.seeds=1")
    assert found.count("pretrain-000-bn") == 1
    assert "pretrain-002-bn" not in found
    assert {"assess-000-bn", "assess-002-bn"} <= set(found)


def test_seeds_are_those_of_the_recipe_unless_told():
    seeds = [a["run"].seed for name, a in calls("reproduce.recipes=002-l1") if "run" in a]
    assert seeds == [42, 43, 44]
    seeds = [
        a["run"].seed
        for _, a in calls("reproduce.recipes=002-l1", "reproduce.seeds=1", "run.seed=7")
        if "run" in a
    ]
    assert seeds == [7]


def test_what_is_trained_on_cached_activations_has_the_layers_above_alone():
    (arguments,) = (
        a
        for n, a in calls("reproduce.recipes=002-cache", "reproduce.seeds=1")
        if n == "train-002-cache"
    )
    strategy = arguments["strategy"]
    assert (strategy.above, strategy.reused, strategy.head) == (2, 3, False)
    assert [phase.layers for phase in strategy.phases] == [2]


def test_a_dataset_that_is_not_there_is_told_and_hides_no_row(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    settings = ("reproduce.recipes=001-softmax-gd", f"reproduce.notmnist={tmp_path / 'nowhere'}")
    (compared,) = (arguments for name, arguments in calls(*settings) if name == "compare")
    assert compared["assessed"] == ()
    assert [each.recipe for each in compared["absent"]] == ["001-softmax-gd"]
    assert "nowhere" in compared["absent"][0].reason


def test_letters_stand_in_for_what_cannot_be_had():
    (loaded,) = (
        a for name, a in calls("reproduce.recipes=001-softmax-gd") if name == "load-dataset"
    )
    assert loaded["location"] == "letters"


@pytest.mark.slow
def test_reproducing_gives_each_recipe_a_verdict_and_then_costs_nothing(headstart_at, tmp_path):
    command = headstart_at(tmp_path)
    wanted = [
        "transfer-cached5",
        "transfer-frozen5",
        "transfer-pixels",
        "002-elu",
        "001-softmax-gd",
    ]
    done = command("reproduce", *wanted, "--seeds", "1")
    assert done.returncode == 0, done.stderr
    for name in ("transfer-base", *wanted):
        assert name in done.stdout.replace("\n", "")
    (entry,) = command.store.glob("compare/*")
    verdicts = {
        row["recipe"]: row["verdict"]
        for row in json.loads((entry / "manifest.json").read_text())["manifest"]["ref"]["metrics"][
            "rows"
        ]
    }
    assert verdicts["002-elu"] == "drawn in the report"
    assert verdicts["transfer-pixels"] == "asked, not printed"
    assert verdicts["001-softmax-gd"].startswith("not comparable")
    assert (entry / "recipes.md").read_text().count("\n") >= len(verdicts)

    again = command.json("reproduce", *wanted, "--seeds", "1")
    assert {stage["state"] for stage in again["stages"]} == {"cached"}
    assert not again["recorded"]
    further = command.json("reproduce", *wanted, "--seeds", "2")
    ran = [stage["name"] for stage in further["stages"] if stage["state"] == "ran"]
    assert ran.count("pretrain-transfer-base") == 1

    shown = command("show", "latest", "--open", env={"BROWSER": "true"})
    page = next(command.store.glob("runs/*.html")).read_text()
    assert shown.returncode == 0
    assert "How much faster is training on cached activations?" in page
    assert "saturates" in page


def test_an_unknown_recipe_is_refused(headstart_at, tmp_path):
    done = headstart_at(tmp_path)("reproduce", "nonsense")
    assert done.returncode == 2
    assert "no recipe 'nonsense'; there are 000-bn" in done.stderr.replace("\n", " ")

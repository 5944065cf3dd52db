"""Which stages a run is about."""

import pytest

from flows.selection import Rerun, read_graph, select
from models.config import Config, ConfigError

GRAPH = read_graph(Config())
STAGES = tuple(GRAPH)
# A diamond with a tail, so that the answers can be told by heart.
SMALL = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("d",)}


def choose(**rerun):
    return select(Rerun(**rerun), SMALL)


def test_every_stage_comes_after_those_whose_results_it_takes():
    done: set[str] = set()
    for name, inputs in GRAPH.items():
        assert set(inputs) <= done
        done.add(name)
    assert GRAPH["load-dataset"] == ()


def test_reading_the_graph_does_not_depend_on_the_settings():
    assert read_graph(Config.model_validate({"network": {"hidden_layers": 1}})) == GRAPH


def test_by_default_everything_is_wanted_and_nothing_is_fresh():
    chosen = select(Rerun(), GRAPH)
    assert (chosen.wanted, chosen.fresh, chosen.stored) == (set(STAGES), set(), set())


def test_only_computes_one_stage_from_what_is_stored():
    chosen = choose(only="d")
    assert chosen.wanted == {"a", "b", "c", "d"}
    assert chosen.fresh == {"d"}
    assert chosen.stored == {"a", "b", "c"}


def test_only_with_upstream_takes_what_is_missing_too():
    chosen = choose(only="d", with_upstream=True)
    assert (chosen.wanted, chosen.fresh) == ({"a", "b", "c", "d"}, {"d"})
    assert chosen.stored == set()


def test_from_computes_a_stage_and_all_after_it():
    assert choose(start="b").fresh == {"b", "d", "e"}
    assert choose(start="b").wanted == set(SMALL)
    assert choose(start="a").fresh == set(SMALL)


def test_refresh_computes_the_named_stages():
    assert choose(refresh=("b", "e")).fresh == {"b", "e"}


def test_without_the_cache_everything_is_fresh():
    assert choose(cache=False).fresh == set(SMALL)
    assert choose(only="d", cache=False).fresh == {"d"}
    assert choose(only="d", cache=False, with_upstream=True).fresh == {"a", "b", "c", "d"}


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_can_be_run_alone(name):
    chosen = select(Rerun(only=name), GRAPH)
    assert chosen.fresh == {name}
    assert chosen.stored == chosen.wanted - {name}


@pytest.mark.parametrize("name", STAGES)
def test_from_a_stage_is_closed_under_what_comes_after(name):
    fresh = select(Rerun(start=name), GRAPH).fresh
    for stage, inputs in GRAPH.items():
        assert stage == name or (stage in fresh) == bool(fresh & set(inputs))


@pytest.mark.parametrize(
    ("rerun", "problem"),
    [
        ({"only": "finetune"}, "unknown stage 'finetune'; did you mean fine-tune?"),
        ({"start": "pretraining"}, "unknown stage 'pretraining'; did you mean pretrain?"),
        ({"refresh": ["cache_activations"]}, "did you mean cache-activations?"),
        ({"only": "Publish"}, "did you mean publish?"),
        ({"only": "xyz"}, "unknown stage 'xyz'; there are load-dataset, split-source, "),
    ],
)
def test_an_unknown_stage_is_refused_with_the_nearest_one(rerun, problem):
    with pytest.raises(ConfigError) as caught:
        select(Rerun(**rerun), GRAPH)
    assert problem in str(caught.value)


def test_every_unknown_stage_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        select(Rerun(start="pretran", refresh=("publsh", "pretrain", "evalute")), GRAPH)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("rerun", "problem"),
    [
        ({"only": "pretrain", "start": "publish"}, "exclude each other"),
        ({"with_upstream": True}, "goes with one stage alone"),
    ],
)
def test_wishes_that_exclude_each_other_are_refused(rerun, problem):
    with pytest.raises(ConfigError, match=problem):
        select(Rerun(**rerun), GRAPH)

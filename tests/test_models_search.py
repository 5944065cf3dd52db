"""Random search: candidates that stay as they are, folds that share nothing, what is best."""

import math

import numpy as np
import pytest

from models.config import Config, ConfigError, Network, Pretrain, Search, load_config
from models.search import Candidate, Score, draw_candidates, rank_scores, split_folds

SMALL = Search(units=(1, 2), activations=("elu",), batch_sizes=(10, 20), learning_rates=(0.1,))
PLAIN = Network(batch_norm=False)
CANDIDATE = Candidate(units=30, activation="elu", batch_size=50, learning_rate=0.05)


def drawn(trials, seed=0, search=SMALL, network=PLAIN):
    search = search.model_copy(update={"trials": trials})
    return draw_candidates(search, network, seed).candidates


def test_the_published_space_is_the_default():
    search = Search()
    assert search.units == (10, 30, 50, 70, 90, 100, 120, 140, 160)
    assert search.activations == ("relu", "elu", "leaky_relu:0.01", "leaky_relu:0.1")
    assert search.batch_sizes == (10, 50, 100, 500)
    assert search.learning_rates == (0.01, 0.02, 0.05, 0.1)
    published = load_config(preset="published").search
    assert (published.trials, published.folds) == (50, 3)


@pytest.mark.parametrize("seed", range(5))
def test_more_trials_leave_the_first_ones_as_they_are(seed):
    every = drawn(50, seed, Search())
    assert [drawn(trials, seed, Search()) for trials in (1, 7, 49)] == [
        every[:trials] for trials in (1, 7, 49)
    ]


def test_no_candidate_comes_twice_and_the_whole_space_comes_if_asked_for():
    assert len(set(drawn(100, search=Search()))) == 100
    assert {(c.units, c.batch_size) for c in drawn(4)} == {(1, 10), (1, 20), (2, 10), (2, 20)}
    assert drawn(1000) == drawn(4)


def test_another_seed_draws_other_candidates():
    assert drawn(5, 0, Search()) != drawn(5, 1, Search())


def test_every_value_of_the_space_comes_about_equally_often():
    units = [candidate.units for candidate in drawn(500, search=Search())]
    assert {units.count(size) > 30 for size in Search().units} == {True}


def test_momentum_and_dropout_are_varied_only_where_there_is_any():
    (plain,) = drawn(1)
    assert (plain.norm_momentum, plain.dropout) == (None, None)
    (norm,) = drawn(1, network=Network())
    assert norm.norm_momentum in Search().momentums
    assert norm.dropout is None
    for network in (Network(dropout=0.1), Network(dropouts=(0, 0, 0, 0, 0.1))):
        assert drawn(1, network=network)[0].dropout in Search().dropouts
    fixed = SMALL.model_copy(update={"momentums": ()})
    assert drawn(1, search=fixed, network=Network())[0].norm_momentum is None


def test_a_candidate_changes_what_it_varies_and_nothing_else():
    network = Network(initializer="lecun_normal", norm_momentum=0.7, slope=0.3, dropout=0.2)
    assert CANDIDATE.change_network(network) == network.model_copy(update={"units": 30})
    every = CANDIDATE.model_copy(
        update={"activation": "leaky_relu:0.01", "norm_momentum": 0.9, "dropout": 0.5}
    )
    changed = every.change_network(network)
    assert (changed.activation, changed.slope) == ("leaky_relu", 0.01)
    assert (changed.norm_momentum, changed.dropout) == (0.9, 0.5)
    training = CANDIDATE.change_training(Pretrain(optimizer="nesterov"))
    assert training == Pretrain(optimizer="nesterov", batch_size=50, learning_rate=0.05)


def test_layers_of_several_widths_all_get_the_candidates():
    network = CANDIDATE.change_network(Network(widths=(300, 100, 50), dropouts=(0.1, 0.2, 0.3)))
    assert network.sizes == (30, 30, 30)
    assert network.dropout_rates == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(("rows", "folds"), [(9, 3), (10, 3), (28_038, 3), (5, 5)])
def test_folds_hold_every_row_out_once_and_share_none(rows, folds):
    parts = list(split_folds(rows, folds, seed=4))
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(rows))
    sizes = {len(held_out) for _, held_out in parts}
    assert max(sizes) - min(sizes) <= 1
    for kept, held_out in parts:
        assert sorted([*kept, *held_out]) == list(range(rows))


def test_folds_are_a_matter_of_the_seed():
    first, again, other = (next(split_folds(100, 4, seed))[1] for seed in (0, 0, 1))
    assert list(first) == list(again)
    assert list(first) != list(other)


def test_fewer_rows_than_folds_are_refused():
    with pytest.raises(ConfigError, match="search.folds = 3: there are only 2 training images"):
        next(split_folds(2, 3, seed=0))


def score(number, accuracies=(0.9, 0.9), losses=(0.1, 0.1), failure=""):
    return Score(number, CANDIDATE, accuracies, losses, failure)


def test_accuracy_ranks_then_loss_then_the_order_of_drawing():
    scores = [
        score(1, accuracies=(1.0, 0.7), losses=(0.01, 0.01)),
        score(2, losses=(0.3, 0.1)),
        score(3, losses=(0.1, 0.2)),
        score(4, losses=(0.2, 0.1)),
    ]
    assert [found.number for found in rank_scores(scores)] == [3, 4, 2, 1]


def test_a_candidate_that_failed_in_one_fold_comes_last_however_good_the_others_were():
    failed = score(1, accuracies=(1.0,), losses=(0.0,), failure="fold2: diverged")
    poor = score(2, accuracies=(0.2, 0.2), losses=(99.0, 99.0))
    assert [found.number for found in rank_scores([failed, poor])] == [2, 1]
    assert (failed.accuracy, failed.loss) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("search.folds=1", "search.folds = 1: input should be greater than or equal to 2"),
        ("search.trials=0", "search.trials = 0: input should be greater than or equal to 1"),
        ("search.units=", "search.units = []: tuple should have at least 1 item"),
        ("search.units=10,0", "search.units = 0: input should be greater than or equal to 1"),
        ("search.units=10,20,10", "search.units = 10,20,10: names 10 more than once"),
        ("search.learning_rates=0", "search.learning_rates = 0: input should be greater than 0"),
        ("search.momentums=1", "search.momentums = 1: input should be less than 1"),
        ("search.activations=rleu", "search.activations = rleu: unknown activation rleu; there"),
        ("search.activations=elu:0.1", "a slope between 0 and 1 may follow leaky_relu alone"),
        ("search.activations=leaky_relu:", "a slope between 0 and 1 may follow leaky_relu alone"),
        ("search.activations=leaky_relu:nan", "a slope between 0 and 1 may follow leaky_relu"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(override, problem):
    with pytest.raises(ConfigError) as refused:
        load_config(overrides=[override])
    assert problem in str(refused.value)


def test_momentums_and_dropouts_may_be_left_out():
    search = load_config(overrides=["search.momentums=", "search.dropouts="]).search
    assert (search.momentums, search.dropouts) == ((), ())
    assert Config().search.momentums

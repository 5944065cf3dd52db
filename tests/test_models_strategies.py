"""Strategies as plain values: which phases, how many epochs, and only what they depend on."""

import pytest

from models.config import Transfer
from models.strategies import draw_seeds, make_strategy, split_epochs


@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("pixels", [("probe", 0, 20)]),
        ("scratch", [("tune", 5, 20)]),
        ("probe", [("probe", 0, 20)]),
        ("top", [("tune", 2, 20)]),
        ("full", [("tune", 5, 20)]),
        ("probe-then-tune", [("probe", 0, 4), ("tune", 5, 16)]),
        (
            "gradual",
            [*((f"unfreeze-{layers}", layers, 2) for layers in range(5)), ("unfreeze-5", 5, 10)],
        ),
        ("discriminative", [("tune", 5, 20)]),
        ("l2-sp", [("tune", 5, 20)]),
    ],
)
def test_a_strategys_phases_share_out_its_epochs(name, phases):
    strategy = make_strategy(name, Transfer(max_epochs=20), depth=5)
    assert [(phase.name, phase.layers, phase.epochs) for phase in strategy.phases] == phases
    assert all(strategy.training_of(p).max_epochs == p.epochs for p in strategy.phases)


def test_only_baselines_begin_with_new_weights():
    begins = {n: make_strategy(n, Transfer(), 5).pretrained for n in ("pixels", "scratch", "full")}
    assert begins == {"pixels": False, "scratch": False, "full": True}


@pytest.mark.parametrize(
    ("setting", "used_by"),
    [
        ("rate_decay", {"gradual", "discriminative"}),
        ("anchor", {"l2-sp"}),
        ("top", {"top"}),
        ("learning_rate", {"full", "gradual", "discriminative", "l2-sp", "top", "scratch"}),
    ],
)
def test_a_setting_changes_the_strategies_that_use_it_alone(setting, used_by):
    changed = Transfer.model_validate({setting: 4})
    names = ("full", "gradual", "discriminative", "l2-sp", "top", "scratch")
    differ = {n for n in names if make_strategy(n, Transfer(), 5) != make_strategy(n, changed, 5)}
    assert differ == used_by


@pytest.mark.parametrize(
    ("rows", "copies"), [(500, 20), (50, 200), (4900, 2), (10_000, 1), (26_962, 1)]
)
def test_few_images_come_in_so_many_copies_that_an_epoch_is_as_long(rows, copies):
    assert make_strategy("full", Transfer(epoch_images=10_000), 5).copies(rows) == copies


def test_images_left_as_they_are_come_once():
    assert make_strategy("full", Transfer(augment=False), 5).copies(50) == 1


def test_what_is_cut_says_where_so_that_cuts_differ_in_one_table():
    cut = Transfer(cut="hidden3")
    titles = [make_strategy(name, cut, 3).title for name in ("full", "scratch", "pixels")]
    assert titles == [
        "full fine-tuning, cut at hidden3",
        "from scratch, cut at hidden3",
        "softmax on pixels",
    ]


def test_epochs_are_shared_out_to_the_last_but_each_phase_has_one():
    assert split_epochs(20, 2, 4) == (4, 16)
    assert split_epochs(3, 6, 4) == (1, 1, 1, 1, 1, 1)


def test_a_larger_ensemble_begins_with_the_networks_of_the_smaller():
    assert draw_seeds(7, 1) == [7]
    assert draw_seeds(7, 5)[:3] == draw_seeds(7, 3)
    assert len(set(draw_seeds(7, 100))) == 100

"""The recipes: that each is whole, and which are meant by a name."""

import pytest

from models.config import ConfigError
from models.networks import build_classifier, build_trunk
from models.recipe import FOLDER, QUANTITIES, Recipe, load_recipes

# Every row of the list of experiments that the recipes are for.
LISTED = """
000-bn 000-maxnorm 000-ex8 000-ex8-bn 000-ex8-dropout 000-ex8-cv
002-leaky 002-elu 002-clip 002-continue 002-reuse 002-freeze 002-cache 002-optimizers 002-lrsched
002-l1 002-l1c 002-dropout 002-maxnorm 002-bn
001-softmax-gd 001-softmax-sgd 001-relu1024 001-l2 001-overfit 001-dropout 001-decay 001-deep
003-cnn-bn 003-cnn 004-selu 004-bn-after 004-bn-before
transfer-pretrain transfer-frozen5 transfer-cached5 transfer-frozen4 transfer-unfrozen2
transfer-unfrozen4 transfer-scratch pairs pairs-frozen pairs-scratch
""".split()


def test_every_experiment_has_its_recipe():
    known = [recipe.id for recipe in load_recipes()]
    assert [name for name in LISTED if not any(id.startswith(name) for id in known)] == []
    assert len(known) == len(set(known)) == len(list(FOLDER.glob("*.toml")))


def test_a_recipe_comes_after_what_it_starts_from():
    known = [recipe.id for recipe in load_recipes()]
    for recipe in load_recipes():
        if recipe.start:
            assert known.index(recipe.start.recipe) < known.index(recipe.id)
        if recipe.same_as:
            assert known.index(recipe.same_as) < known.index(recipe.id)


@pytest.mark.parametrize("recipe", load_recipes(), ids=lambda recipe: recipe.id)
def test_a_recipe_says_what_it_is_in_the_terms_of_its_document(recipe):
    assert recipe.title[0].islower() or recipe.title[0].isdigit()
    for printed in recipe.printed:
        assert printed.quantity in QUANTITIES
        # In percent, and of a network that tells at least something apart.
        assert all(5 < value <= 100 for value in printed.values)


def test_the_networks_have_the_printed_sizes():
    recipes = {recipe.id: recipe for recipe in load_recipes()}
    selu = recipes["004-selu"].network
    statistics = ([0.0] * 784, [1.0] * 784)
    import numpy as np

    trunk = build_trunk(selu, 784, 1, tuple(np.array(values) for values in statistics))
    assert build_classifier(trunk, 10, 1, selu).count_params() == 271_410
    cnn = recipes["003-cnn-bn"].network
    assert (len(cnn.filters), cnn.filters[-1], sum(stride == 2 for stride in cnn.strides)) == (
        *(19, 76),
        6,
    )


def test_a_name_is_a_recipe_or_the_beginning_of_some():
    assert [recipe.id for recipe in load_recipes(["002-clip"])] == ["002-clip"]
    # With what it starts from.
    assert [recipe.id for recipe in load_recipes(["002-cache"])] == ["002-clip", "002-cache"]
    optimizers = [recipe.id for recipe in load_recipes(["002-optimizers"])]
    assert len(optimizers) == 5
    # Not 001-l2-002 too, which begins in the same way.
    assert [recipe.id for recipe in load_recipes(["001-l2"])] == ["001-l2"]


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="no recipe '009'; there are 000-bn, "):
        load_recipes(["009"])


def test_what_is_like_another_recipe_has_its_settings_but_not_its_figures():
    recipes = {recipe.id: recipe for recipe in load_recipes()}
    first, second = recipes["002-clip"], recipes["002-optimizers-adam"]
    assert second.network == first.network
    assert (second.training.optimizer, second.training.clip_value) == ("adam", 0.0)
    assert first.printed
    assert not second.printed


def test_a_cache_needs_a_frozen_layer():
    with pytest.raises(ValueError, match="no frozen layer whose activations could be cached"):
        Recipe(id="x", title="x", start={"recipe": "y", "cached": True})

"""Verdicts: when a printed figure counts as reproduced."""

import pytest

from models.recipe import Recipe
from models.verdicts import compare_figures, give_verdict

RECIPE = Recipe(id="x", title="something")


@pytest.mark.parametrize(
    ("printed", "reproduced"),
    [
        (0.960, True),
        # 1.96 standard errors of 96% on 5,000 images are 0.54 points.
        (0.9665, True),
        (0.9675, False),
        (0.9525, True),
        (0.9500, False),
    ],
)
def test_a_printed_figure_may_lie_outside_our_range_by_its_sampling_error(printed, reproduced):
    assert compare_figures([printed], [0.958, 0.962], 5000).reproduced is reproduced


def test_of_several_printed_figures_the_median_counts():
    compared = compare_figures([0.64, 0.72, 0.76], [0.71, 0.75], 4861)
    assert compared.printed == 0.72
    assert compared.reproduced
    assert compared.difference == pytest.approx(0.01)
    assert (compared.low, compared.high) == (0.71, 0.75)


def test_without_a_printed_figure_ours_is_stated_all_the_same():
    compared = compare_figures([], [0.5, 0.7], 100)
    assert (compared.printed, compared.ours, compared.difference) == (None, 0.6, None)


def test_verdicts_in_words():
    near, far = (compare_figures([value], [0.9], 1000) for value in (0.9, 0.5))
    assert give_verdict(RECIPE, near, "") == "reproduced"
    assert give_verdict(RECIPE, far, "") == "differs"
    told = RECIPE.model_copy(update={"why": "another seed"})
    assert give_verdict(told, far, "") == "differs: another seed"
    assert give_verdict(RECIPE, compare_figures([], [0.9], 10), "") == "asked, not printed"
    # However near: other images are other images.
    assert give_verdict(RECIPE, near, "a stand-in").startswith("not comparable")

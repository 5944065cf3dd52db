"""Figures: deterministic, small, and true to the values given."""

import math
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from artifacts.figures import (
    VARIABLES,
    Baseline,
    Bin,
    CutPoint,
    Mistake,
    Panel,
    PublishedRange,
    accuracy_by_cut,
    calibration,
    confusion_matrix,
    error_by_setting,
    learning_curves,
    mistakes,
    render,
)

ROOT = Path(__file__).parent.parent
HISTORY = {
    "loss": [0.9, 0.4, 0.2],
    "val_loss": [0.8, 0.5, 0.6],
    "accuracy": [0.6, 0.8, 0.9],
    "val_accuracy": [0.7, 0.85, 0.8],
}
POINTS = (CutPoint("hidden1", 0.9, 0.89, 0.91), CutPoint("hidden2", 0.8, 0.78, 0.82))


def every_figure():
    return {
        "curves": learning_curves({"pretrain": HISTORY, "fine-tune": HISTORY}),
        "confusion": confusion_matrix([[90, 10], [0, 100]], ["five", "six"]),
        "cuts": accuracy_by_cut(
            POINTS,
            [Baseline("softmax on pixels", 0.85, 0.84, 0.86)],
            [PublishedRange("hidden2", 0.64, 0.763)],
        ),
        "calibration": calibration([Bin(0.5, 0.4, 10), Bin(0.95, 0.97, 90)]),
        "settings": error_by_setting(
            [Panel("units", [100, 20, 100], [0.9, 0.8, 0.99]), Panel("activation", ["elu"], [0.9])]
        ),
        "mistakes": mistakes([np.eye(28)] * 18, [Mistake("five", "six", 0.999)] * 18),
    }


def size_of(png: bytes) -> tuple[int, int]:
    return struct.unpack(">II", png[16:24])


def texts(figure) -> set[str]:
    return {item.get_text() for axes in figure.axes for item in axes.texts}


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_values_give_the_same_bytes(kind):
    first = {name: render(figure, kind) for name, figure in every_figure().items()}
    assert first == {name: render(figure, kind) for name, figure in every_figure().items()}


def test_rendering_does_not_change_a_figure():
    for figure in every_figure().values():
        first = render(figure, "png")
        render(figure, "svg")
        assert render(figure, "png") == first


def test_a_matplotlibrc_changes_nothing():
    import matplotlib as mpl

    plain = render(every_figure()["curves"])
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 10}):
        assert render(every_figure()["curves"]) == plain


def test_pictures_fit_into_an_artifact():
    for figure in every_figure().values():
        png = render(figure, "png")
        width, height = size_of(png)
        assert len(png) < 100_000
        assert 500 <= width <= 800
        assert 300 <= height <= 500


def test_an_svg_is_well_formed_and_has_no_date():
    for figure in every_figure().values():
        svg = render(figure, "svg")
        ET.fromstring(svg)  # noqa: S314  We have just made it.
        assert b"<dc:date>" not in svg


def test_the_best_epoch_is_that_of_the_lowest_validation_loss():
    loss, accuracy = learning_curves({"pretrain": HISTORY}).axes
    marks = [line.get_xydata().tolist() for line in loss.get_lines() if line.get_marker() == "o"]
    assert marks == [[[2.0, 0.5]]]
    marks = [
        line.get_xydata().tolist() for line in accuracy.get_lines() if line.get_marker() == "o"
    ]
    assert marks == [[[2.0, 85.0]]]


def test_axes_say_their_units():
    labels = {axes.get_ylabel() for figure in every_figure().values() for axes in figure.axes}
    assert {"cross-entropy (nats)", "accuracy (%)", "test accuracy (%)"} <= labels


@pytest.mark.parametrize(
    "history",
    [
        {},
        {"loss": [], "val_loss": []},
        {"loss": [0.5], "val_loss": [0.6]},
        {"loss": [0.0, 0.0], "val_loss": [0.0, 0.0]},
        {"loss": [math.nan, 1.0], "val_loss": [math.nan, math.inf]},
    ],
)
def test_odd_histories_are_drawn(history):
    assert render(learning_curves({"pretrain": history})).startswith(b"\x89PNG")


def test_no_histories_at_all_are_drawn():
    assert render(learning_curves({})).startswith(b"\x89PNG")


def test_a_confusion_matrix_states_every_count_and_the_accuracy():
    figure = confusion_matrix([[900, 100], [0, 1000]], [5, 6])
    assert texts(figure) == {"900", "100", "1,000"}
    assert figure.axes[0].get_title(loc="left") == "1,900 of 2,000 test images: 95.0 % right"


def test_a_confusion_matrix_of_no_images_is_drawn():
    assert render(confusion_matrix([[0, 0], [0, 0]], [5, 6])).startswith(b"\x89PNG")


def test_a_confusion_matrix_must_fit_its_classes():
    with pytest.raises(ValueError, match=r"shape \(2, 2\); 3 classes"):
        confusion_matrix([[1, 0], [0, 1]], [5, 6, 7])


def test_cuts_state_their_accuracy_and_baselines_theirs():
    figure = every_figure()["cuts"]
    assert texts(figure) == {"90.0", "80.0"}
    assert "softmax on pixels: 85.0" in {t.get_text() for t in figure.legends[0].get_texts()}


def test_a_published_range_of_an_unknown_cut_is_left_out():
    figure = accuracy_by_cut(POINTS, published=[PublishedRange("hidden9", 0.1, 0.2)])
    assert figure.axes[0].get_ylim()[0] > 50


def test_importing_figures_does_not_import_matplotlib():
    code = "import sys, artifacts.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 24])
@pytest.mark.parametrize("shape", [(28, 28), (8, 20), (1, 3)])
def test_every_mistake_is_shown_with_what_it_is_and_was_taken_for(count, shape):
    captions = [Mistake("5", str(number), 0.5) for number in range(count)]
    figure = mistakes([np.ones(shape)] * count, captions)
    assert texts(figure) == {f"5, taken for {number}\n50.0 % sure" for number in range(count)}
    assert render(figure, "svg").count(b"<image") == count


def test_mistakes_without_captions_are_refused():
    with pytest.raises(ValueError, match="1 images need as many captions, not 0"):
        mistakes([np.ones((2, 2))], [])


def test_a_calibration_without_bins_is_drawn():
    assert render(calibration([])).startswith(b"\x89PNG")


def test_a_page_can_set_the_colours_of_an_svg():
    svg = render(every_figure()["cuts"], "svg").decode()
    for colour, name in VARIABLES.items():
        assert f": {colour}" not in svg
        assert f"var({name}, " in svg or colour not in svg
    assert "var(--ink, #333333)" in svg


def test_errors_stand_over_their_settings_in_order():
    units, activation = error_by_setting(
        [
            Panel("units", [100, 20, 100], [0.9, 0.75, 0.98]),
            Panel("activation", ["relu", "elu", "elu"], [0.9, 0.75, 0.98]),
        ]
    ).axes
    (points,) = units.get_lines()
    assert points.get_xydata() == pytest.approx(np.array([[1, 10], [0, 25], [1, 2]]))
    assert [label.get_text() for label in units.get_xticklabels()] == ["20", "100"]
    assert [label.get_text() for label in activation.get_xticklabels()] == ["elu", "relu"]
    assert units.get_xlabel() == "units"


def test_a_search_in_which_all_failed_can_be_drawn():
    assert render(error_by_setting([]))

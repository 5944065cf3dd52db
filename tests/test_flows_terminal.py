"""What a terminal shows: the course of a loss, the time left, no more than fits."""

import io
import math

import pytest

from artifacts.runs import RunRecord, StageRecord
from artifacts.summary import Summary
from flows.terminal import (
    BLOCKS,
    Display,
    Screen,
    describe,
    result_of,
    run_tables,
    sparkline,
    summary_table,
)
from tasks.progress import Event

RESULTS = (
    {"name": "softmax on pixels", "accuracy": 0.9, "low": 0.88, "high": 0.92},
    {"name": "head on hidden5", "accuracy": 0.8, "low": 0.78, "high": 0.82},
)
EPOCH = Event("pretrain", "progress", "trunk", 12, 1000, {"val_loss": 0.0312})


def screen(columns=100, encoding="utf-8", **more):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Screen(file=file, width=columns, force_terminal=True, **more)


def shown(display):
    with display.console.capture() as capture:
        display.console.print(display._render())
    return capture.get()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([0.5], "▁"),
        ([3.0, 3.0], "▁▁"),
        ([0.0, 7.0], "▁█"),
        ([8.0, 4.0, 2.0, 1.0], "█▄▂▁"),
        ([1.0, math.nan, 0.0], "█ ▁"),
        ([math.inf, math.nan], "  "),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values, expected):
    assert sparkline(values) == expected


@pytest.mark.parametrize("epochs", [1, 15, 16, 17, 32, 33, 1000])
def test_a_sparkline_never_grows_and_ends_with_the_newest_value(epochs):
    line = sparkline([float(epochs - epoch) for epoch in range(epochs)], columns=16)
    assert len(line) <= 16
    assert line[-1] == BLOCKS[0]


def test_progress_tells_epoch_loss_and_time_left():
    assert describe(EPOCH, 2.0, 6.0) == "trunk 12/1000, val_loss 0.0312, about 4 s left"
    assert describe(EPOCH, 12.0, 0.0) == "trunk 12/1000, val_loss 0.0312, at most 16 min left"


def test_a_line_a_stage_shows_the_course_of_the_loss():
    display = Display(screen(), ["load-dataset", "pretrain"], {})
    for loss in (8.0, 4.0, 1.0):
        display(Event("pretrain", "progress", "trunk", 3, 1000, {"val_loss": loss}))
    lines = shown(display).splitlines()
    assert len(lines) == 2
    assert "█▄▁" in lines[1]
    assert "val_loss 1.0000" in lines[1]


def test_each_training_has_a_course_of_its_own():
    display = Display(screen(), ["fine-tune"], {})
    for layer in ("hidden1", "hidden2"):
        display(Event("fine-tune", "progress", layer, 1, 10, {"val_loss": 2.0}))
    assert "▁ hidden2 1/10" in display.lines["fine-tune"].plain


def test_a_stage_that_runs_again_begins_its_courses_anew():
    display = Display(screen(), ["cross-validate"], {})
    for loss in (8.0, 1.0):
        display(Event("cross-validate", "start", "candidate"))
        display(Event("cross-validate", "progress", "fold1", 1, 10, {"val_loss": loss}))
    assert display.lines["cross-validate"].plain.startswith("▁ fold1")


def test_a_terminal_without_unicode_gets_no_blocks():
    display = Display(screen(encoding="ascii"), ["pretrain"], {})
    display(EPOCH)
    assert display.lines["pretrain"].plain.isascii()


def test_a_narrow_terminal_gets_what_fits():
    display = Display(screen(columns=40), ["cache-activations", "pretrain"], {"pretrain": 4.0})
    display(EPOCH)
    text = shown(display)
    assert "12/1000, ~4 s left" in text
    assert max(map(len, text.splitlines())) <= 40 + len("\x1b[1m\x1b[0m")


def test_without_colours_none_is_sent(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    display = Display(screen(), ["pretrain"], {})
    display(EPOCH)
    assert "\x1b[3" not in shown(display)


@pytest.mark.parametrize("columns", [40, 80])
def test_the_closing_tables_fit(columns):
    stage = StageRecord(name="cache-activations", state="ran", key="k", digest="d", seconds=123.4)
    settings = {"evaluate": {"confidence": 0.95}}
    record = RunRecord(run="r", started="now", settings=settings, stages=(stage,), results=RESULTS)
    console = screen(columns, no_color=True)
    with console.capture() as capture:
        for table in run_tables(record, {}):
            console.print(table)
    lines = capture.get().splitlines()
    assert len(lines) == 1 + 1 + 1 + len(RESULTS)
    assert any("88.0 to 92.0" in line for line in lines)
    assert "published" not in capture.get()


@pytest.mark.parametrize("columns", [40, 80])
def test_a_summary_shows_its_first_rows_and_how_many_more_there_are(columns):
    rows = [{"Trial": str(number), "accuracy": "98.5 (98.0 to 99.0)"} for number in range(1, 13)]
    console = screen(columns, no_color=True)
    with console.capture() as capture:
        console.print(summary_table(Summary("search", "12 candidates", rows, brief=10), columns))
    lines = capture.get().splitlines()
    assert lines[0].strip() == "12 candidates"
    assert [line.split()[0] for line in lines[2:12]] == [str(n) for n in range(1, 11)]
    assert "and 2 more" in lines[-1]
    assert len(lines) == 2 + 10 + 1


@pytest.mark.parametrize(("columns", "shown"), [(80, False), (140, True)])
def test_a_summary_leaves_out_what_there_is_no_room_for(columns, shown):
    rows = [{"Recipe": "000-bn", "printed": "97.42", "seconds": "33"}]
    console = screen(columns, no_color=True)
    with console.capture() as capture:
        found = Summary("reproduction", "figures", rows, essential=("Recipe", "printed"))
        console.print(summary_table(found, columns))
    assert "97.42" in capture.get()
    assert ("seconds" in capture.get()) is shown


def test_a_long_name_over_short_figures_takes_no_room():
    row = {"Trial": "10", "accuracy": "98.5 (98.0 to 99.0)", "activation": "leaky_relu:0.01"}
    more = {"batch size": "500", "learning rate": "0.01", "norm momentum": "0.999", "units": "160"}
    console = screen(80, no_color=True)
    with console.capture() as capture:
        console.print(summary_table(Summary("search", "10 candidates", [{**row, **more}]), 80))
    assert "leaky_relu:0.01" in capture.get()
    assert "98.5 (98.0 to 99.0)" in capture.get()


def test_a_dataset_says_how_much_was_left_out_and_that_it_is_a_stand_in():
    metrics = {"train_rows": 9, "test_rows": 2, "skipped": {"unreadable": 3, "duplicates": 1}}
    assert result_of("load-dataset", {**metrics, "note": ""}) == "9 + 2 images, 4 left out"
    metrics = {"train_rows": 9, "test_rows": 2, "skipped": {}, "note": "stand-in"}
    assert result_of("load-dataset", metrics) == "9 + 2 images; stand-in"

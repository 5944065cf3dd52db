"""What a run shows in a terminal, or in a log where there is none."""

import math
import os
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from artifacts.runs import RunRecord
from artifacts.summary import Summary, interval, percent, published
from flows.plan import Step
from tasks.progress import Event

# A log gets a line for a stage's progress so many seconds apart.
LOG_EVERY = 5.0

STATE_STYLE = {"ran": "green", "cached": "cyan", "resumed": "yellow"}

# Below so many columns a table has no room for words beside its figures.
NARROW = 60
# From so many on there is room for every column of a summary.
WIDE = 120

BLOCKS = "▁▂▃▄▅▆▇█"
SPARKLINE_COLUMNS = 16


class Screen(Console):
    """A console whose reader may leave early, as in ``headstart runs | head -1``."""

    def on_broken_pipe(self) -> None:
        """Says nothing more; what the command does goes on."""
        self.quiet = True
        mute(self.file)


def mute(stream: IO[str]) -> None:
    """Sends what is still to be written where nobody reads, so that Python's exit is silent."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def left(event: Event, elapsed: float, last_time: float) -> str:
    """How long a stage still takes: as last time if it ran before, else at most so long."""
    if last_time > elapsed:
        return f"about {duration(last_time - elapsed)} left"
    if event.done and event.total:
        most = elapsed * (event.total - event.done) / event.done
        return f"at most {duration(most)} left" if most >= 1 else ""
    return ""


def duration(seconds: float) -> str:
    """Seconds for people: ``45 s`` or ``12 min``."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def describe(event: Event, elapsed: float, last_time: float) -> str:
    """A stage's progress in words: ``trunk 12/1000, val_loss 0.0312, about 4 s left``."""
    parts = [f"{event.text} {event.done}/{event.total}"]
    parts += [f"{name} {value:.4f}" for name, value in event.values.items()]
    parts += filter(None, [left(event, elapsed, last_time)])
    return ", ".join(parts)


def describe_narrow(event: Event, elapsed: float, last_time: float) -> str:
    """The same for a narrow terminal: ``12/1000, ~4 s left``."""
    time_left = left(event, elapsed, last_time)
    shorter = time_left.replace("about ", "~").replace("at most ", "<")
    return ", ".join(filter(None, [f"{event.done}/{event.total}", shorter]))


def sparkline(values: Sequence[float], columns: int = SPARKLINE_COLUMNS) -> str:
    """The course of some values as a row of blocks, from the lowest to the highest of them.

    Args:
        values: In the order of time; what is not finite leaves a gap.
        columns: The most blocks there may be; of more values each block shows the last of a few.
    """
    step = -(-len(values) // columns) or 1
    shown = [*values[len(values) - 1 :: -step]][::-1] if values else []
    finite = [value for value in shown if math.isfinite(value)]
    lowest, highest = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(BLOCKS) - 1) / ((highest - lowest) or 1.0)
    return "".join(
        BLOCKS[round((value - lowest) * scale)] if math.isfinite(value) else " " for value in shown
    )


class Log:
    """Plain lines, for a file or a pipe."""

    def __init__(self, console: Console, last_times: Mapping[str, float]) -> None:
        self.console = console
        self.last_times = last_times
        # When each stage began, and when it was last heard of.
        self.started: dict[str, float] = {}
        self.said: dict[str, float] = {}

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, event: Event) -> None:
        """Writes what is worth a line."""
        now = time.monotonic()
        if event.kind == "start":
            self.started[event.stage] = self.said[event.stage] = now
            self._say(event.stage, event.text)
        elif event.kind == "end":
            self._say(event.stage, f"{event.text}, {event.values['seconds']:.1f} s")
        elif now - self.said.setdefault(event.stage, now) >= LOG_EVERY:
            self.said[event.stage] = now
            last_time = self.last_times.get(event.stage, 0.0)
            started = self.started.setdefault(event.stage, now)
            self._say(event.stage, describe(event, now - started, last_time))

    def _say(self, stage: str, text: str) -> None:
        self.console.print(f"{stage}: {text}", highlight=False, markup=False, soft_wrap=True)


class Display:
    """One line a stage, kept up to date, for a terminal."""

    def __init__(
        self, console: Console, stages: Sequence[str], last_times: Mapping[str, float]
    ) -> None:
        self.console = console
        self.lines: dict[str, Text] = {name: Text("") for name in stages}
        self.losses: dict[tuple[str, str], list[float]] = {}
        self.last_times = last_times
        self.started: dict[str, float] = {}
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    def __enter__(self) -> "Display":
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Takes in what happened; drawn at the next refresh."""
        if event.kind == "start":
            self.started[event.stage] = time.monotonic()
            self.lines[event.stage] = Text(event.text, style="bold")
            # A search runs one stage many times; each time its courses begin anew.
            self.losses = {k: course for k, course in self.losses.items() if k[0] != event.stage}
        elif event.kind == "end":
            seconds = f"{event.values['seconds']:.1f} s"
            style = STATE_STYLE.get(event.text, "")
            self.lines[event.stage] = Text.assemble((event.text, style), "  ", (seconds, "dim"))
        else:
            self.lines[event.stage] = self._progress(event)

    def _progress(self, event: Event) -> Text:
        now = time.monotonic()
        elapsed = now - self.started.setdefault(event.stage, now)
        last_time = self.last_times.get(event.stage, 0.0)
        if self.console.width < NARROW:
            return Text(describe_narrow(event, elapsed, last_time), style="bold")
        losses = self.losses.setdefault((event.stage, event.text), [])
        losses += [event.values["val_loss"]] if "val_loss" in event.values else []
        course = "" if self.console.options.ascii_only else sparkline(losses)
        words = describe(event, elapsed, last_time)
        return Text.assemble((course, "cyan"), " " if course else "", (words, "bold"))

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name, line in self.lines.items():
            table.add_row(Text(name, style="" if line else "dim"), line)
        return Group(table)


def result_of(stage: str, metrics: dict[str, Any]) -> str:
    """What a stage found, in a few words."""
    match stage:
        case "load-dataset":
            skipped = sum(metrics["skipped"].values())
            left_out = f", {skipped} left out" if skipped else ""
            note = f"; {metrics['note']}" if metrics["note"] else ""
            return f"{metrics['train_rows']} + {metrics['test_rows']} images{left_out}{note}"
        case "split-source" | "split-target":
            rows = metrics["rows"]
            return f"{rows['train']} / {rows['validation']} / {rows['test']} images"
        case "pretrain" | "pretrain-pairs" | "refit":
            loss = metrics["validation_loss"]
            return f"validation loss {loss:.4f} at epoch {metrics['best_epoch']}"
        case "export-checkpoint":
            return f"{metrics['parameters']} parameters"
        case "cache-activations":
            return f"{sum(metrics['rows'].values())} images, {len(metrics['layers'])} layers"
        case "fine-tune":
            return f"best on {metrics['best']}, by validation loss"
        case "evaluate":
            return str(metrics["gain"]["sentence"])
    return ""


def summary_table(summary: Summary, width: int) -> Table:
    """What many trainings gave together; columns as there is room."""
    left = len(summary.rows) - summary.brief
    table = Table(
        title=summary.title,
        title_justify="left",
        title_style="",
        caption=f"and {left} more" if left > 0 else None,
        caption_justify="left",
        caption_style="dim",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    columns = summary.columns(roomy=width >= WIDE)
    for column in columns:
        widest = max(len(row.get(column, "")) for row in summary.rows)
        # A long name over short figures would take the room that other columns need.
        title = textwrap.fill(column, max(widest, 1), break_long_words=False)
        justify: Literal["left", "right"] = "left" if column == columns[0] else "right"
        table.add_column(title, justify=justify, overflow="fold")
    for row in summary.rows[: summary.brief]:
        table.add_row(*(row.get(column, "") for column in columns))
    return table


def run_tables(record: RunRecord, found: Mapping[str, str]) -> list[Table]:
    """The closing tables: what became of each stage, and the test accuracies.

    Args:
        record: The run.
        found: What each stage found, in a few words; empty leaves the column out.
    """
    stages = Table(box=None, pad_edge=False, header_style="dim")
    stages.add_column("stage", no_wrap=True)
    stages.add_column("", no_wrap=True)
    stages.add_column("seconds", justify="right", no_wrap=True)
    if found:
        stages.add_column("result")
    for stage in record.stages:
        state = Text(stage.state, style=STATE_STYLE[stage.state])
        row = (stage.name, state, f"{stage.seconds:.1f}", found.get(stage.name, ""))
        stages.add_row(*row[: len(stages.columns)])
    if not record.results:
        return [stages]
    results = Table(box=None, pad_edge=False, header_style="dim")
    results.add_column("test accuracy, %")
    level = 100 * record.settings["evaluate"]["confidence"]
    titles = ["", f"{level:g}% interval", "published"]
    if not any(map(published, record.results)):
        titles.remove("published")
    for title in titles:
        results.add_column(title, justify="right")
    for result in record.results:
        cells = percent(result["accuracy"]), interval(result), published(result)
        results.add_row(result["name"], *cells[: len(titles)])
    return [stages, results]


def plan_table(steps: Sequence[Step]) -> Table:
    """What would become of each stage, since when or why."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("since, or why", overflow="fold")
    for step in steps:
        if step.state == "cached":
            since = f"{step.created[:19].replace('T', ' ')} UTC"
            table.add_row(step.name, Text("cached", style="cyan"), since)
        else:
            table.add_row(step.name, Text("would run", style="yellow"), "\n".join(step.reasons))
    return table

"""Figures: plain values in, matplotlib figures out, and figures to bytes that never vary.

Matplotlib is imported inside the functions, so importing this module costs nothing. Figures are
made without pyplot: no window system, and none is left open.

References:
    Okabe and Ito, "Color Universal Design", https://jfly.uni-koeln.de/color/: the palette.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DOTTED = (0, (2, 1.5))
INK, GREY, PALE, PAPER = "#333333", "#6b6b6b", "#e6e6e6", "#ffffff"
ON_COLOUR = "#262626"  # Dark text on a cell of the colour map, which is light in dark mode too.

# What a page may set to show an SVG in its own colours; without it each keeps its own.
VARIABLES: Mapping[str, str] = {
    INK: "--ink",
    GREY: "--grey",
    PALE: "--pale",
    PAPER: "--paper",
    **{colour.lower(): f"--series-{place}" for place, colour in enumerate(PALETTE)},
}

_STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # Comes with matplotlib, so the same on every machine.
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "image.composite_image": False,  # An SVG's images keep their own pixels.
    "svg.fonttype": "path",  # Looks the same whatever fonts the reader has.
    "svg.hashsalt": "headstart",  # Otherwise ids inside an SVG are random.
}


@dataclass(frozen=True)
class CutPoint:
    """How well heads on one cut of the trunk do; accuracies and interval ends in 0 to 1."""

    cut: str
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Baseline:
    """What a cut is compared with; accuracies and interval ends in 0 to 1."""

    name: str
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Test images that a model was about equally sure of; shares in 0 to 1."""

    confidence: float
    accuracy: float
    rows: int


@dataclass(frozen=True)
class Mistake:
    """An image that a model got wrong, and how sure it was, in 0 to 1."""

    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class CurvePoint:
    """A mean accuracy over seeds and its interval, in 0 to 1, at a number of images."""

    labels: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """How well one strategy does with more and more images."""

    name: str
    points: Sequence[CurvePoint]


@dataclass(frozen=True)
class Panel:
    """What some candidates have for one setting, and how well each does, in 0 to 1."""

    setting: str
    values: Sequence[float | str]
    accuracies: Sequence[float]


@dataclass(frozen=True)
class PublishedRange:
    """The lowest and highest accuracy published for one cut, in 0 to 1."""

    cut: str
    low: float
    high: float


def learning_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Loss and accuracy over the epochs, a colour for each training, its best epoch marked.

    Args:
        histories: For each training by name, Keras's history: values of ``loss``, ``val_loss``,
            ``accuracy`` and ``val_accuracy`` for each epoch. A missing quantity is left out.
    """
    with _styled():
        figure = _figure(8.0, 3.4)
        loss, accuracy = figure.subplots(1, 2)
        for colour, history in zip(_colours(len(histories)), histories.values(), strict=True):
            best = _best_epoch(history)
            _curve(loss, history, "loss", colour, best, scale=1.0)
            _curve(accuracy, history, "accuracy", colour, best, scale=100.0)
        _finish_curves(loss, "Loss", "cross-entropy (nats)")
        _finish_curves(accuracy, "Accuracy", "accuracy (%)")
        _make_logarithmic(loss)
        _curve_legend(figure, histories)
        return _settled(figure)


def activation_functions(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> "Figure":
    """What hidden units make of their input, a panel for each function.

    Args:
        curves: For each function by name the inputs and its values.
    """
    with _styled():
        figure = _figure(8.0, 2.9)
        panels = figure.subplots(1, len(curves))
        for axes, (name, (inputs, values)) in zip(panels, curves.items(), strict=True):
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.plot(inputs, values, color=PALETTE[0])
            axes.set_title(name)
            axes.set_xlabel("input")
        panels[0].set_ylabel("activation")
        return _settled(figure)


def saturation(inputs: Sequence[float], values: Sequence[float], edge: float) -> "Figure":
    """The sigmoid: nearly linear around 0, flat where it saturates.

    Args:
        inputs: Rising.
        values: Of the sigmoid.
        edge: Input beyond which its slope is below a tenth of the steepest.
    """
    with _styled():
        figure = _figure(8.0, 3.4)
        axes = figure.subplots()
        axes.plot(inputs, values, color=PALETTE[0], label="sigmoid")
        line = [0.5 + value / 4 for value in inputs]
        inside = [abs(value - 0.5) < 0.6 for value in line]
        near = [(x, y) for x, y, shown in zip(inputs, line, inside, strict=True) if shown]
        axes.plot(*zip(*near, strict=True), color=PALETTE[1], linestyle=DOTTED, label="slope 1/4")
        for start, stop in ((min(inputs), -edge), (edge, max(inputs))):
            axes.axvspan(start, stop, color=PALE, zorder=0)
        axes.annotate("saturated", (min(inputs), 0.12))
        axes.annotate("saturated", (edge, 0.85))
        axes.annotate("nearly linear", (0.4, 0.45))
        axes.set_xlabel("input")
        axes.set_ylabel("activation")
        axes.legend(loc="center left")
        return _settled(figure)


def confusion_matrix(counts: Sequence[Sequence[int]], classes: Sequence[str | int]) -> "Figure":
    """How many images of each true class were given each class.

    Args:
        counts: (classes, classes); rows are true classes, columns predicted ones.
        classes: The classes' names, in the order of the rows.
    """
    table = np.asarray(counts)
    if table.shape != (len(classes), len(classes)):
        message = f"counts have shape {table.shape}; {len(classes)} classes need a square of them"
        raise ValueError(message)
    with _styled({"axes.grid": False}):
        figure = _figure(6.0, 4.8)
        axes = figure.subplots()
        _draw_confusion(axes, table, [str(name) for name in classes])
        _state_recalls(axes, table)
        right, total = int(np.trace(table)), int(table.sum())
        share = f": {100 * right / total:.1f} % right" if total else ""
        axes.set_title(f"{right:,} of {total:,} test images{share}")
        return _settled(figure)


def accuracy_by_cut(
    points: Sequence[CutPoint],
    baselines: Sequence[Baseline] = (),
    published: Sequence[PublishedRange] = (),
) -> "Figure":
    """Test accuracy for each layer the trunk was cut at, beside what it has to beat.

    Args:
        points: One for each cut, bottom first.
        baselines: Drawn as bands across all cuts.
        published: Drawn as thin bars beside the cuts they are for.
    """
    with _styled():
        figure = _figure(8.0, 4.2)
        axes = figure.subplots()
        for colour, baseline in zip(_colours(len(baselines), skip=1), baselines, strict=True):
            _draw_baseline(axes, baseline, colour)
        _draw_published(axes, [point.cut for point in points], published)
        _draw_points(axes, points)
        axes.set_xticks(range(len(points)), [point.cut for point in points])
        axes.set_xlim(-0.6, len(points) - 0.4)
        axes.set_xlabel("hidden layer whose output the new head reads (bottom to top)")
        axes.set_ylabel("test accuracy (%)")
        axes.grid(visible=False, axis="x")
        figure.legend(loc="outside lower center", ncols=2)
        return _settled(figure)


def label_efficiency(curves: Sequence[Curve]) -> "Figure":
    """Test error against the number of labelled images, a line for each strategy.

    Args:
        curves: Means over seeds with their intervals.
    """
    with _styled():
        figure = _figure(8.0, 4.6)
        axes = figure.subplots()
        for index, (colour, curve) in enumerate(zip(_colours(len(curves)), curves, strict=True)):
            x = [point.labels for point in curve.points]
            errors = [100 * (1 - point.accuracy) for point in curve.points]
            low = [100 * (1 - point.high) for point in curve.points]
            high = [100 * (1 - point.low) for point in curve.points]
            marker = MARKERS[index % len(MARKERS)]
            axes.plot(x, errors, color=colour, marker=marker, markersize=4, label=curve.name)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted({point.labels for curve in curves for point in curve.points})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("training images of each target class")
        axes.set_ylabel("test error (%)")
        figure.legend(loc="outside lower center", ncols=2)
        return _settled(figure)


def error_by_setting(panels: Sequence[Panel]) -> "Figure":
    """Error of the same candidates by each of their settings, a panel for each.

    Args:
        panels: Values are shown at equal distances, from the lowest to the highest.
    """
    columns = max(1, min(3, len(panels)))
    lines = max(1, -(-len(panels) // columns))
    with _styled():
        figure = _figure(8.0, 1.0 + 2.0 * lines)
        every = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for axes in every:
            axes.set_axis_off()
        for axes, panel in zip(every, panels, strict=False):
            axes.set_axis_on()
            _draw_panel(axes, panel)
        for axes in every[::columns]:
            axes.set_ylabel("error (%)")
        _make_logarithmic(every[0])
        return _settled(figure)


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    values = sorted(set(panel.values), key=lambda value: (isinstance(value, str), value))
    places = [values.index(value) for value in panel.values]
    errors = [100 * (1 - accuracy) for accuracy in panel.accuracies]
    axes.plot(places, errors, "o", color=PALETTE[0], alpha=0.6, markersize=5)
    axes.set_xticks(range(len(values)), [str(value) for value in values], rotation=30)
    axes.set_xlim(-0.5, max(0.5, len(values) - 0.5))
    axes.set_xlabel(panel.setting)


def calibration(bins: Sequence[Bin]) -> "Figure":
    """How often a model is right when it says how sure it is.

    Args:
        bins: Test images grouped by confidence, least sure first.
    """
    with _styled():
        figure = _figure(5.6, 4.4)
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=GREY, linestyle=DOTTED, label="as sure as right")
        most = max((group.rows for group in bins), default=1)
        axes.plot(
            [100 * group.confidence for group in bins],
            [100 * group.accuracy for group in bins],
            color=PALETTE[0],
            label="chosen model",
        )
        axes.scatter(
            [100 * group.confidence for group in bins],
            [100 * group.accuracy for group in bins],
            [12 + 160 * group.rows / max(most, 1) for group in bins],
            color=PALETTE[0],
            label="area: number of test images",
        )
        axes.set_xlabel("stated confidence (%)")
        axes.set_ylabel("right (%)")
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        figure.legend(loc="outside lower center", ncols=2)
        return _settled(figure)


def mistakes(images: Sequence[Any], captions: Sequence[Mistake], columns: int = 6) -> "Figure":
    """Images that a model got wrong, what each is and what it was taken for.

    Args:
        images: Arrays (height, width), all of one shape; each shown from its lightest to its
            darkest value.
        captions: One for each image.
        columns: How many stand side by side.

    Raises:
        ValueError: If there are not as many captions as images.
    """
    if len(images) != len(captions):
        message = f"{len(images)} images need as many captions, not {len(captions)}"
        raise ValueError(message)
    columns = max(1, min(columns, len(images)))
    tall = max((np.shape(image)[0] / np.shape(image)[1] for image in images), default=1.0)
    across, down = 1.25, tall + 0.5  # From one image to the next, in widths of an image.
    lines = max(1, -(-len(images) // columns))
    with _styled({"axes.grid": False}):
        figure = _figure(1.3 * columns, 1.04 * down * lines)
        axes = figure.subplots()
        axes.set_axis_off()
        # One pair of axes for all: a pair for each image takes ten times as long.
        for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
            left, top = across * (place % columns), -down * (place // columns)
            extent = (left, left + 1, top - tall, top)
            axes.imshow(image, cmap="gray_r", interpolation="nearest", extent=extent)
            said = f"{caption.label}, taken for {caption.predicted}"
            said += f"\n{100 * caption.confidence:.1f} % sure"
            middle = (left + 0.5, top - tall - 0.05)
            # The limits below leave room for it; a long name is no reason to shrink the images.
            axes.text(*middle, said, ha="center", va="top", fontsize=7, in_layout=False)
        axes.set_xlim(-0.1, across * columns)
        axes.set_ylim(-down * lines, 0.05)
        return _settled(figure)


def render(figure: "Figure", kind: Format = "png") -> bytes:
    """A figure as a PNG (100 pixels an inch) or SVG file; equal figures give equal bytes.

    An SVG has no background, and takes the colours of a page that sets ``VARIABLES``.
    """
    buffer = io.BytesIO()
    # Matplotlib otherwise writes its version into a PNG and the time into an SVG.
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    with _styled():
        figure.savefig(buffer, format=kind, dpi=100, metadata=metadata, transparent=kind == "svg")
    return _themed(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def _themed(svg: bytes) -> bytes:
    def variable(match: re.Match[str]) -> str:
        name = VARIABLES.get(match[0].lower())
        return f"var({name}, {match[0]})" if name else match[0]

    return re.sub(r"(?<=: )#[0-9a-fA-F]{6}(?=[;\"])", variable, svg.decode()).encode()


@contextmanager
def _styled(more: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Our look alone, whatever a matplotlibrc on this machine says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        style: Any = {**_STYLE, **(more or {})}
        mpl.rcParams.update(style)
        yield


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)  # inches
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _settled(figure: "Figure") -> "Figure":
    # Laying out starts from the last layout, so a second drawing would differ in its last bits.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _colours(count: int, skip: int = 0) -> list[str]:
    return [PALETTE[(index + skip) % len(PALETTE)] for index in range(count)]


def _best_epoch(history: Mapping[str, Sequence[float]]) -> int | None:
    """The epoch, from 1, of the lowest validation loss."""
    losses = np.asarray(history.get("val_loss", ()), float)
    return int(np.nanargmin(losses)) + 1 if np.isfinite(losses).any() else None


def _curve(
    axes: "Axes",
    history: Mapping[str, Sequence[float]],
    quantity: str,
    colour: str,
    best: int | None,
    scale: float,
) -> None:
    train = scale * np.asarray(history.get(quantity, ()), float)
    validation = scale * np.asarray(history.get(f"val_{quantity}", ()), float)
    axes.plot(range(1, len(train) + 1), train, color=colour, linestyle=DOTTED, linewidth=1.0)
    axes.plot(range(1, len(validation) + 1), validation, color=colour)
    if best is not None and best <= len(validation):
        axes.plot(best, validation[best - 1], "o", color=colour, markeredgecolor="white", zorder=5)


def _finish_curves(axes: "Axes", title: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if not _heights(axes):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not recorded", ha="center", color=GREY, transform=axes.transAxes)


def _make_logarithmic(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    heights = _heights(axes)
    # Within a factor of two a logarithmic axis would show one tick or none.
    if heights and min(heights) > 0 and max(heights) > 2 * min(heights):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _heights(axes: "Axes") -> list[float]:
    values = [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata())]
    return [value for value in values if np.isfinite(value)]


def _curve_legend(figure: "Figure", histories: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D

    trainings = [
        Line2D([], [], color=colour, label=name)
        for colour, name in zip(_colours(len(histories)), histories, strict=True)
    ]
    manner = [
        Line2D([], [], color=GREY, label="validation"),
        Line2D([], [], color=GREY, linestyle=DOTTED, linewidth=1.0, label="training"),
        Line2D([], [], color=GREY, marker="o", linestyle="", label="best epoch"),
    ]
    handles = (trainings if len(trainings) > 1 else []) + manner
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))


def _draw_confusion(axes: "Axes", table: Any, names: Sequence[str]) -> None:
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    shade = np.sqrt(share)  # So that a class confused in 2 of 100 images can be seen.
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    size = 9.5 if len(names) <= 6 else 7.5
    for (row, column), count in np.ndenumerate(table):
        if count:
            ink = "#fefefe" if shade[row, column] > 0.6 else ON_COLOUR
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=ink, fontsize=size)


def _state_recalls(axes: "Axes", table: Any) -> None:
    right = axes.secondary_yaxis("right")
    totals = table.sum(axis=1)
    shares = [f"{100 * table[i, i] / n:.1f}" if n else "none" for i, n in enumerate(totals)]
    right.set_yticks(range(len(totals)), shares)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    right.set_ylabel("of this class, right (%)")


def _draw_baseline(axes: "Axes", baseline: Baseline, colour: str) -> None:
    axes.axhspan(100 * baseline.low, 100 * baseline.high, color=colour, alpha=0.18, linewidth=0)
    value = 100 * baseline.accuracy
    axes.axhline(value, color=colour, linewidth=1.4, label=f"{baseline.name}: {value:.1f}")


def _draw_published(axes: "Axes", cuts: Sequence[str], published: Sequence[PublishedRange]) -> None:
    known = [bar for bar in published if bar.cut in cuts]
    if known:
        axes.vlines(
            [cuts.index(bar.cut) + 0.14 for bar in known],
            [100 * bar.low for bar in known],
            [100 * bar.high for bar in known],
            color=GREY,
            linewidth=3,
            label="published, lowest to highest run",
        )


def _draw_points(axes: "Axes", points: Sequence[CutPoint]) -> None:
    from matplotlib import patheffects

    values = [100 * point.accuracy for point in points]
    below = [100 * (point.accuracy - point.low) for point in points]
    above = [100 * (point.high - point.accuracy) for point in points]
    axes.errorbar(
        range(len(points)),
        values,
        yerr=[below, above],
        color=PALETTE[0],
        marker="o",
        capsize=4,
        linewidth=1.4,
        zorder=4,
        label="new head on the frozen trunk, with its interval",
    )
    halo = [patheffects.withStroke(linewidth=3, foreground="white")]
    for place, (point, value) in enumerate(zip(points, values, strict=True)):
        axes.annotate(
            f"{value:.1f}",
            (place, 100 * point.high),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            color=PALETTE[0],
            fontweight="bold",
            path_effects=halo,
        )

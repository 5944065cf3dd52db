"""What is claimed about the training engine, as ratios within one run.

    make bench [ARGS=turns]

which keeps NumPy to one thread (on a busy machine two wait for each other more than they work)
and to the kernels it chooses for the processor itself.
Prints the tables and writes them to ``benchmarks/RESULTS.md``. Libraries to compare with are
optional (``pip install -e .[bench]``); one that is missing is left out and named.
"""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import keras
import numpy as np

from benchmarks.apart import bring
from benchmarks.cold import compare_cold_runs
from benchmarks.contenders import (
    CLASSES,
    CONTENDERS,
    EPOCHS,
    ROWS,
    THREADS,
    VALIDATION_ROWS,
    Rows,
    build_model,
    draw_rows,
    settings_of,
    threads_for,
)
from benchmarks.timing import TURNS, Times, describe_machine, format_table, take_turns
from models.augmentation import augment
from models.config import Augmentation, FineTune, Pretrain, Run
from models.feeding import Array, Change
from models.heads import Head, fit_heads
from models.networks import build_head, cut_trunk
from models.programs import predict
from models.runtime import use_threads
from models.training import fit

RESULTS = Path(__file__).parent / "RESULTS.md"
BATCHES = (20, 200, 2_000)
HEADS = (1, 10, 100, 1_000)
FEW, UNITS = 500, 100
LEAST = ("least", "ratio")


def main() -> None:
    """Times everything, a table at a time."""
    use_threads(Run().threads)
    parts: list[str] = []
    for part in write_report():
        print(part, flush=True)
        parts.append(part)
        RESULTS.write_text("\n".join(parts), encoding="utf-8")


def write_report() -> Iterator[str]:
    """The parts of RESULTS.md."""
    yield (
        "# Speed of the training engine\n\n"
        "Written by `make bench`. The contenders of a table take turns, so a busy machine slows "
        f"all alike: read the ratios. Medians of {TURNS} turns, and the least of them, "
        "which tells more where other work goes on.\n\n"
        f"{describe_machine()}\n"
    )
    rows, validation = draw_rows(ROWS), draw_rows(VALIDATION_ROWS)
    yield (
        f"## One epoch\n\n{ROWS:,} x 784 rows, 5 x 100 ELU, Adam, and validation on "
        f"{VALIDATION_ROWS:,} rows. *First* is what the first turn took beyond the others: "
        "tracing and compiling. Each is in a process of its own. This project's engine has one "
        "thread for batches of 20, as the preset that trains so, else two; PyTorch what serves it "
        "best; NumPy one; the others what they take.\n"
    )
    for batch in BATCHES:
        yield compare_epochs(batch)
    yield compare_sources()
    yield compare_caching()
    yield compare_heads()
    yield measure_augmentation(rows)
    yield compare_threads(rows, validation)
    yield compare_cold_runs()


def compare_epochs(batch: int) -> str:
    """The table of one batch size."""
    makers = {name: partial(_prepare, name, batch) for name in CONTENDERS}
    with bring(makers) as (contenders, missing):
        seconds = take_turns(contenders)
    ours = seconds["headstart"]
    lines = [
        [
            name,
            f"{times.median / EPOCHS[batch]:.3f}",
            f"{times.median / ours.median:.2f}",
            f"{times.least / EPOCHS[batch]:.3f}",
            f"{times.least / ours.least:.2f}",
            f"{max(0.0, times.first - times.median):.1f}",
        ]
        for name, times in seconds.items()
    ]
    note = f"\nNot installed: {', '.join(missing)}.\n" if missing else ""
    head = [f"Batches of {batch:,}", "seconds an epoch", "times headstart", *LEAST, "first, s"]
    return format_table(head, lines) + note


def _prepare(name: str, batch: int) -> Callable[[], object]:
    if name in THREADS:
        use_threads(THREADS[name](batch))
    return CONTENDERS[name](draw_rows(ROWS), draw_rows(VALIDATION_ROWS), batch)


def compare_sources() -> str:
    """Rows in memory against a file read in blocks."""
    memory, blocks = "in memory, one block", "from a file, blocks of a quarter"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, draw_rows(4 * ROWS)[0])
        makers = {memory: partial(_read_from, None), blocks: partial(_read_from, path)}
        with bring(makers) as (contenders, _):
            seconds = take_turns(contenders)
    return (
        f"## Rows that need not fit in memory\n\n{4 * ROWS:,} x 784 rows in batches of 20.\n\n"
        + _format_seconds("", seconds, memory, 1 / EPOCHS[20])
    )


def _read_from(path: Path | None) -> Callable[[], object]:
    """Training on rows from a file, or if there is none from memory."""
    use_threads(threads_for(20))
    x, y = draw_rows(4 * ROWS)
    source = np.load(path, mmap_mode="r") if path else x
    model, settings, validation = build_model(), settings_of(20), draw_rows(VALIDATION_ROWS)
    size = ROWS if path else len(x) + settings.batch_size
    return lambda: fit(
        model, source, y, settings=settings, validation=validation, seed=1, block_rows=size
    )


def compare_caching() -> str:
    """A head on cached activations against the same head on top of the frozen trunk."""
    (x, y), (x_val, y_val) = draw_rows(FEW), draw_rows(150)
    classifier = build_model()
    for layer in classifier.layers:
        layer.trainable = layer.name == "head"
    trunk = cut_trunk(classifier, ["hidden5"])
    cached, cached_val = predict(trunk, x), predict(trunk, x_val)
    settings = FineTune(max_epochs=20, patience=1000)

    def train(model: keras.Model, rows: Array, rows_val: Array) -> Callable[[], object]:
        return lambda: fit(model, rows, y, settings=settings, validation=(rows_val, y_val), seed=1)

    seconds = take_turns(
        {
            "from cached activations": train(build_head(UNITS, CLASSES, 1), cached, cached_val),
            "through the frozen trunk": train(classifier, x, x_val),
        }
    )
    return f"## A head on {FEW} rows, 20 epochs\n\n" + _format_seconds(
        "", seconds, "from cached activations"
    )


def compare_heads() -> str:
    """Many heads on one cache against one."""
    alone = "one head by fit"
    makers = {alone: _train_head}
    makers |= {f"{count:,} heads by fit_heads": partial(_train_heads, count) for count in HEADS}
    with bring(makers) as (contenders, _):
        seconds = take_turns(contenders)
    return (
        f"## Many heads on {FEW} x {UNITS} cached activations, 20 epochs\n\n"
        "Each with a seed, first weights and an order of rows of its own. TensorFlow has one "
        "thread; where heads are many, two programs run at once.\n\n"
        + _format_seconds("", seconds, alone)
    )


def _draw_cached() -> tuple[Rows, Rows, FineTune]:
    """Activations to train heads on, others to validate them on, and how."""
    use_threads(1)
    return draw_rows(FEW, UNITS), draw_rows(150, UNITS), FineTune(max_epochs=20, patience=1000)


def _train_head() -> Callable[[], object]:
    (x, y), validation, settings = _draw_cached()
    head = build_head(UNITS, CLASSES, 1)
    return lambda: fit(head, x, y, settings=settings, validation=validation, seed=1)


def _train_heads(count: int) -> Callable[[], object]:
    (x, y), validation, settings = _draw_cached()
    heads = [Head(seed=seed, learning_rate=0.001) for seed in range(count)]
    return lambda: fit_heads(heads, x, y, classes=CLASSES, settings=settings, validation=validation)


def measure_augmentation(rows: Rows) -> str:
    """Images changed in a second, alone and while training."""
    affine = {"shift": 2, "rotation": 15, "scale": 0.1, "shear": 0.1, "elastic": 0}
    some, all_ = Augmentation(**affine), Augmentation(**{**affine, "elastic": 34})
    numbers, few = np.arange(ROWS), draw_rows(20)
    model, settings = build_model(), settings_of(20)
    change = partial(augment, shape=(28, 28), seed=1)

    def train(change: Change | None) -> Callable[[], object]:
        return lambda: fit(model, *rows, settings=settings, validation=few, seed=1, change=change)

    seconds = take_turns(
        {
            "affine": lambda: change(rows[0], numbers, 0, settings=some),
            "affine and elastic": lambda: change(rows[0], numbers, 0, settings=all_),
            "training in batches of 20": train(None),
            "training, affine": train(partial(change, settings=some)),
            "training, affine and elastic": train(partial(change, settings=all_)),
        }
    )
    lines = [
        [name, f"{ROWS * (EPOCHS[20] if 'training' in name else 1) / times.median:,.0f}"]
        for name, times in seconds.items()
    ]
    return "## Augmentation of 28 x 28 images\n\n" + format_table(["", "images a second"], lines)


def compare_threads(rows: Rows, validation: Rows) -> str:
    """Two independent fits one after the other, and at the same time."""
    # Equal settings would share a program, and take turns at it.
    models = [(build_model(), settings_of(20, decay_steps=steps)) for steps in (1, 2)]

    def train(which: tuple[keras.Model, Pretrain]) -> None:
        fit(which[0], *rows, settings=which[1], validation=validation, seed=1)

    def train_both(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(train, models))

    after, together = "one after the other", "in two threads"
    seconds = take_turns({after: lambda: train_both(1), together: lambda: train_both(2)})
    return "## Two independent fits, batches of 20\n\n" + _format_seconds("", seconds, after)


def _format_seconds(name: str, seconds: dict[str, Times], base: str, share: float = 1.0) -> str:
    lines = [
        [
            contender,
            f"{times.median * share:.3f}",
            f"{times.median / seconds[base].median:.2f}",
            f"{times.least * share:.3f}",
            f"{times.least / seconds[base].least:.2f}",
            f"{max(0.0, times.first - times.median):.1f}",
        ]
        for contender, times in seconds.items()
    ]
    return format_table([name, "seconds", f"times {base}", *LEAST, "first, s"], lines)


if __name__ == "__main__":
    main()

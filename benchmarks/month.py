"""Thirty nights in minutes: what a nightly retrain does when nobody looks after it.

Run it with ``python benchmarks/month.py``; ``--nights 12`` for a shorter one. Each night a day's
images lie in the inbox, drawn from MNIST; some nights are bad ones. At the end every image that was
delivered is accounted for, and the champion has never changed but by the rule. A month takes three
minutes of one core, nearly all of it compiling a new network's first step.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - the path first

from artifacts import registry, versions  # noqa: E402
from artifacts.garbage import describe_size  # noqa: E402
from artifacts.lineage import manifests  # noqa: E402
from artifacts.nights import load_nights  # noqa: E402
from artifacts.reference import Ref  # noqa: E402
from artifacts.runs import RunRecord, StageRecord, save_run  # noqa: E402
from artifacts.store import Manifest, Store  # noqa: E402
from flows.night import Around, run_night  # noqa: E402
from flows.pipeline import pipeline  # noqa: E402
from models.config import Config, load_config  # noqa: E402
from models.datasets import find_dataset, load_dataset  # noqa: E402
from tasks.stage import Stage  # noqa: E402
from tests.faults import Disk, Fault, standing_between  # noqa: E402

FIRST_NIGHT = datetime(2026, 1, 1, 2, tzinfo=UTC)
BASE_ROWS, HELD_ROWS, TEST_ROWS, DAY_ROWS = 1500, 300, 2000, 100
# What goes wrong on which night, counted from 1; the others are good ones.
MONTH = {
    8: "corrupt",
    11: "killed in ingest",
    14: "drifted",
    17: "mislabelled",
    21: "killed in training",
    25: "disk full",
}
# At which write, sync or rename the process dies: among the batches, among the epochs.
KILLED_AT = {"killed in ingest": 15, "killed in training": 90}
FULL_FROM = 60


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        night: From 1.
        came: What lay in the inbox.
        taken: Images accepted.
        refused: Images in quarantine; a delivery that cannot be read counts as one.
        challenger: Its accuracy on the hold-out, 0 to 1; None where the night did not get so far.
        decision: What became of it.
        champion: The champion's key.
        accuracy: The champion's, 0 to 1.
        size: Bytes of the store.
    """

    night: int
    came: str
    taken: int
    refused: int
    challenger: float | None
    decision: str
    champion: str
    accuracy: float | None
    size: int


def make_place(folder: Path) -> None:
    """Lays out a small dataset, an inbox, and the images of the days to come."""
    (folder / "inbox").mkdir(parents=True)
    mnist = load_dataset("mnist")
    base = slice(BASE_ROWS)
    np.savez(
        folder / "base.npz",
        x_train=mnist.x_train[base],
        y_train=mnist.y_train[base],
        x_test=mnist.x_test[:TEST_ROWS],
        y_test=mnist.y_test[:TEST_ROWS],
    )


def configure(folder: Path) -> Config:
    """Settings of every night: small networks on frozen layers, and few images to begin with."""
    settings = {
        "data.dataset": folder / "base.npz",
        "data.validation_rows": HELD_ROWS,
        "data.few_shot": 3,
        "data.few_shot_validation": 5,
        "network.hidden_layers": 2,
        "network.units": 30,
        "pretrain.max_epochs": 8,
        "fine_tune.max_epochs": 20,
        "transfer.max_epochs": 3,
        "nightly.inbox": folder / "inbox",
        "nightly.settle_seconds": 0,
        # Two hundred test images of each class: five points are ten of them.
        "nightly.max_class_loss": 0.05,
        "nightly.keep_runs": 3,
        "nightly.keep_days": 0,
        "nightly.keep_champions": 3,
    }
    overrides = [f"{name}={value}" for name, value in settings.items()]
    return load_config(None, overrides, preset="published")


def deliver(folder: Path, night: int, kind: str) -> None:
    """Puts a day's images into the inbox."""
    mnist = load_dataset("mnist")
    first = BASE_ROWS + DAY_ROWS * night
    images = mnist.x_train[first : first + DAY_ROWS]
    labels = mnist.y_train[first : first + DAY_ROWS]
    if kind == "drifted":
        images = 255 - images
    if kind == "mislabelled":
        labels = (labels + 3) % 10
    place = folder / "inbox" / f"day{night:02d}.npz"
    np.savez(place, x=images, y=labels)
    if kind == "corrupt":
        place.write_bytes(place.read_bytes()[:2000])


def retrain(config: Config, store: Store) -> Manifest:
    """The pipeline without Prefect and without figures; its evaluation."""
    source = find_dataset(config.data.dataset)
    used: dict[str, Ref] = {}

    def call(stage: Stage, /, **arguments: Any) -> Ref:
        if stage.name == "publish":
            return Ref.pending(stage.name)
        key = stage.key(arguments)
        before, ref = store.raw_manifest(stage.name, key), store.find(stage.name, key)
        used[stage.name] = ref or stage.run(arguments, store, before)[0]
        return used[stage.name]

    evaluation = pipeline(config, source, call)
    now = datetime.now(UTC)
    stages = tuple(
        StageRecord(name=ref.stage, state="ran", key=ref.key, digest=ref.digest, seconds=0.0)
        for ref in used.values()
    )
    name = f"{now:%Y%m%d-%H%M%S-%f}"
    record = RunRecord(run=name, status="completed", started=now.isoformat(), stages=stages)
    save_run(store.root, record)
    return manifests(store)[evaluation.stage, evaluation.key]


def spend_night(folder: Path, night: int, fault: Fault | None = None) -> None:
    """One night, perhaps with a disk that fails."""
    store = Store(folder / "store")
    around = Around(
        retrain=lambda config: retrain(config, store),
        tell=lambda notice: None,
        now=lambda: FIRST_NIGHT + timedelta(days=night - 1),
        step=lambda name, part: part(),
    )
    with standing_between(Disk(folder, fault)):
        run_night(configure(folder), store, around)


def spend_killed_night(folder: Path, night: int, operation: int) -> None:
    """One night in a process that dies in the middle of it."""
    order = [sys.executable, __file__, "--one", str(folder), str(night), str(operation)]
    code = subprocess.run(order, check=False, capture_output=True).returncode
    if code != -9:
        msg = f"night {night} was to be killed and ended with {code}"
        raise RuntimeError(msg)


def simulate(folder: Path, nights: int, bad: dict[int, str]) -> Iterator[Line]:
    """Spends the nights, one after the other.

    Args:
        folder: An empty one.
        nights: How many.
        bad: What goes wrong on which night.

    Yields:
        A line for each night.
    """
    make_place(folder)
    for night in range(1, nights + 1):
        kind = bad.get(night, "")
        deliver(folder, night, kind)
        try:
            if kind in KILLED_AT:
                spend_killed_night(folder, night, KILLED_AT[kind])
            else:
                full = Fault("ENOSPC", FULL_FROM, lasting=True) if kind == "disk full" else None
                spend_night(folder, night, full)
        except OSError as error:
            if kind != "disk full":
                raise
            kind = f"{kind}: {error.strerror}"
        yield describe(folder, night, kind)


def describe(folder: Path, night: int, kind: str) -> Line:
    """A night as a line of the table."""
    store = Store(folder / "store")
    size = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    when = (FIRST_NIGHT + timedelta(days=night - 1)).isoformat(timespec="milliseconds")
    record = next((r for r in load_nights(store.root) if r.started == when), None)
    present = registry.champion(store)
    champion, accuracy = "", None
    if present:
        champion, accuracy = present.model.key[:6], present.model.metrics["accuracy"]
    came = f"{DAY_ROWS} images" + (f", {kind}" if kind else "")
    if record is None or record.status != "completed":
        return Line(night, came, 0, 0, None, "no decision", champion, accuracy, size)
    unread = sum(d["refused"] and not d["rejected"] for d in record.deliveries)
    return Line(
        night=night,
        came=came,
        taken=record.accepted,
        refused=record.rejected + unread,
        challenger=record.challenger_accuracy,
        decision=record.why,
        champion=champion,
        accuracy=accuracy,
        size=size,
    )


def account(folder: Path, nights: int) -> dict[str, int]:
    """Where every image is that was delivered.

    Returns:
        Images delivered; found once among the training images; kept in quarantine with their
        delivery; lost; and counted more than once.
    """
    store, config = Store(folder / "store"), configure(folder)
    mnist = load_dataset("mnist")
    (pointer,) = (store.root / ".registry" / "versions").iterdir()
    present = versions.present_version(store, pointer.name)
    assert present  # noqa: S101 - a benchmark's own check
    document = store.entry_path(present.stage, present.key) / versions.DOCUMENT
    grown = load_dataset(str(document), config.data.limit)
    joined = Counter(row.tobytes() for row in np.ascontiguousarray(grown.x_train))
    kept = {
        manifest.ref.metrics["name"]
        for (stage, _), manifest in manifests(store).items()
        if stage == versions.QUARANTINE
    }
    found = Counter[str]()
    for night in range(1, nights + 1):
        first = BASE_ROWS + DAY_ROWS * night
        refused = f"day{night:02d}.npz" in kept
        for row in np.ascontiguousarray(mnist.x_train[first : first + DAY_ROWS]):
            times = joined[row.tobytes()]
            found["delivered"] += 1
            found["in training"] += times == 1
            found["in quarantine"] += refused
            found["lost"] += times == 0 and not refused
            found["counted twice"] += times > 1 or (times == 1 and refused)
    return dict(found)


def format_line(line: Line) -> str:
    """A line of the table, as Markdown."""
    cells = asdict(line) | {
        "challenger": "" if line.challenger is None else f"{100 * line.challenger:.1f}",
        "accuracy": "" if line.accuracy is None else f"{100 * line.accuracy:.1f}",
        "size": describe_size(line.size),
    }
    return "| " + " | ".join(str(cell) for cell in cells.values()) + " |"


TITLES = (
    "night",
    "came",
    "taken",
    "refused",
    "challenger %",
    "decision",
    "champion",
    "champion %",
    "store",
)


def main() -> None:
    """Prints the table, then the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, night, operation = options.one
        spend_night(Path(folder), int(night), Fault("SIGKILL", int(operation)))
        return
    # It takes a new network every night for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="headstart-month-"))
    try:
        print("| " + " | ".join(TITLES) + " |")
        print("| " + " | ".join("---" for _ in TITLES) + " |")
        for line in simulate(folder, options.nights, MONTH):
            print(format_line(line), flush=True)
        print()
        for name, count in account(folder, options.nights).items():
            print(f"{name}: {count}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

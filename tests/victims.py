"""Processes that run the pipeline in order to be killed.

``python -m tests.victims`` imports TensorFlow once and never runs it, then forks one process for
each order it reads from standard input: a death costs no import. So each process starts from the
same state, and has a state of its own.
"""

import contextlib
import itertools
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from artifacts.reference import Ref
from artifacts.store import Store
from flows.pipeline import pipeline
from flows.stopping import Terminated, heed
from models.config import Config, load_config
from models.datasets import find_dataset
from tasks import progress
from tasks.stage import Stage
from tests.faults import SIGNALS, Disk, Fault, Operation, photograph, standing_between

ROOT = Path(__file__).resolve().parent.parent

# All kinds of stages in a few seconds, most of them spent compiling, which is why nothing is
# compiled twice that dies in the same ways; eight epochs to be killed in.
SMALL = (
    "network.hidden_layers=2",
    "network.units=8",
    "data.limit=600",
    "data.validation_rows=200",
    "data.few_shot=5",
    "pretrain.max_epochs=8",
    "pretrain.augment=false",
    "transfer.strategies=full",
    "transfer.augment=false",
)
# Ways in which an operation fails; with a plus, all later ones fail too.
ERROR_KINDS = ("ENOSPC", "EIO", "torn", "short", "ENOSPC+", "EROFS+")
# No process of a small run takes so long.
PATIENCE = 120.0


@dataclass(frozen=True)
class Order:
    """What one process shall do, and what shall befall it.

    Attributes:
        store: Where it works.
        log: Where it notes what it has done, a line of JSON at a time.
        settings: Of the run, over the tiny ones.
        stage: The only stage to compute; all of them if empty.
        sweep: Instead, let every operation of that stage go wrong in turn, in these ways.
        fault: What its disk does.
        kill: A signal from outside.
        after: Seconds from its start to that signal.
        clock: Seconds its clock is wrong by.
    """

    store: str
    log: str
    settings: tuple[str, ...] = SMALL
    stage: str = ""
    sweep: tuple[str, ...] = ()
    fault: Fault | None = None
    kill: str = ""
    after: float = 0.0
    clock: float = 0.0

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return load_config(None, self.settings, tiny=True)


@dataclass(frozen=True)
class Fate:
    """What became of a process.

    Attributes:
        code: Its exit code; negative is the signal that ended it.
        seconds: How long it lived.
        signalled: Whether the signal from outside was sent while it lived.
        lingered: Seconds it lived after that signal.
        notes: What it wrote into its log.
    """

    code: int
    seconds: float
    signalled: bool
    lingered: float
    notes: list[dict[str, Any]]

    @property
    def digests(self) -> dict[str, str]:
        """Stage to digest, for the stages that it came to the end of."""
        return {note["stage"]: note["digest"] for note in self.notes if "digest" in note}

    @property
    def epochs(self) -> int:
        """Epochs of pretraining that it did."""
        return sum(
            note.get("text") == "trunk" and note["stage"] == "pretrain" for note in self.notes
        )

    @property
    def error(self) -> str:
        """What it failed with."""
        return next((note["error"] for note in self.notes if "error" in note), "")

    @property
    def hit(self) -> str:
        """The operation that went wrong."""
        return next((note["hit"] for note in self.notes if "hit" in note), "")


# --- inside the process that runs the stages ----------------------------------------------


def run_stages(config: Config, store: Store, note: Callable[..., None], only: str = "") -> None:
    """The pipeline without Prefect: each stage from the store, else run as ``caching`` runs it."""

    def call(stage: Stage, /, **arguments: Any) -> Ref:
        key = stage.key(arguments)
        before = store.raw_manifest(stage.name, key)
        ref = store.find(stage.name, key)
        if ref is None and only in ("", stage.name):
            ref, _ = stage.run(arguments, store, before)
        if ref is None:
            raise LookupError(stage.name)
        note(stage=stage.name, digest=ref.digest)
        return ref

    with contextlib.suppress(LookupError) if only else contextlib.nullcontext():
        pipeline(config, find_dataset(config.data.dataset), call)


def live(order: Order) -> int:
    """Carries out an order; gives the exit code."""
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(**values: object) -> None:
        os.write(log, json.dumps(values).encode() + b"\n")

    def hear(event: progress.Event) -> None:
        note(stage=event.stage, text=event.text, done=event.done)

    _take_signals()
    disk = Disk(Path(order.store), order.fault)
    try:
        with progress.listening(hear), _clock_wrong_by(order.clock):
            if order.sweep:
                Sweep(order, note).go()
                return 0
            with standing_between(disk):
                run_stages(order.config, Store(Path(order.store)), note, order.stage)
        return 0
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - it is told, and judged by the test
        note(error=f"{type(error).__name__}: {error}", os_error=isinstance(error, OSError))
        return 1
    finally:
        note(operations=len(disk.done), **({"hit": str(disk.hit)} if disk.hit else {}))


def _take_signals() -> None:
    heed()
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _clock_wrong_by(seconds: float) -> Iterator[None]:
    """Sets this process's clock, not the machine's, nor the times of its files."""
    import datetime as module

    real, real_time = module.datetime, time.time

    class Wrong(real):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + module.timedelta(seconds=seconds)

    holders = [m for m in list(sys.modules.values()) if getattr(m, "datetime", None) is real]
    for holder in holders if seconds else ():
        holder.datetime = Wrong  # type: ignore[attr-defined]
    time.time = lambda: real_time() + seconds
    try:
        yield
    finally:
        time.time = real_time
        for holder in holders:
            holder.datetime = real  # type: ignore[attr-defined]


@dataclass
class Sweep:
    """Every operation of one stage goes wrong in turn, in one process that stays warm.

    Beforehand the store holds all stages. Errors are real ones. A kill is the folder as it was
    at that instant, which is all that a killed process leaves; a power cut is the same with the
    files emptied that were never synced. What is found goes into the log, a line for each case.
    """

    order: Order
    note: Callable[..., None]
    root: Path = field(init=False)
    expected: str = ""
    others: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.root = Path(self.order.store)

    def go(self) -> None:
        """Goes through all ways of failing."""
        store, stage = Store(self.root), self.order.stage
        manifest = store.latest(stage)
        assert manifest
        self.expected = manifest.ref.digest
        self.others = {entry for entry in store.entries() if entry[0] != stage}
        # The store may be a copy; what is noted of its files' times is put right beforehand.
        self._run(Disk(self.root))
        for kind in self.order.sweep:
            if kind in ("kill", "power"):
                self._kill(kind)
            else:
                self._fail(ERROR_KINDS if kind == "mixed" else (kind,))

    def _reset(self) -> None:
        for folder in ("", ".state", ".stamps", ".locks"):
            shutil.rmtree(self.root / folder / self.order.stage, ignore_errors=True)

    def _run(self, disk: Disk) -> tuple[str, str]:
        """The digest, and the error if it failed."""
        found: dict[str, str] = {}

        def note(stage: str, digest: str) -> None:
            found[stage] = digest

        try:
            with standing_between(disk):
                run_stages(self.order.config, Store(disk.root), note, self.order.stage)
        except Exception as error:  # noqa: BLE001 - what it is decides the case
            return "", f"{type(error).__name__}: {error}"
        return found.get(self.order.stage, ""), ""

    def _fail(self, kinds: tuple[str, ...]) -> None:
        for nth in itertools.count(1):
            kind = kinds[nth % len(kinds)]
            self._reset()
            disk = Disk(self.root, Fault(kind.rstrip("+"), nth, lasting=kind.endswith("+")))
            digest, error = self._run(disk)
            if not disk.hit:
                return
            problems = self._judge(disk, error)
            # A fault that was survived must have left a result like any other.
            if not error and digest != self.expected:
                problems.append("another result")
            problems += self._heal(self.root)
            self._tell(kind, nth, disk.hit, error, problems)

    def _kill(self, kind: str) -> None:
        self._reset()
        photographs: list[tuple[Operation, Path]] = []

        def watch(disk: Disk, operation: Operation) -> None:
            copy = self.root.with_name(f"{self.root.name}-{len(photographs)}")
            photographs.append((operation, photograph(self.root, copy)))
            if kind == "power":
                disk.cut_power(copy)

        disk = Disk(self.root, watch=watch)
        for path in self.root.rglob("*"):
            facts = path.lstat()
            disk.synced[facts.st_ino] = (facts.st_size, facts.st_mtime_ns)
        self._run(disk)
        for nth, (operation, copy) in enumerate(photographs, start=1):
            problems = self._judge_entries(copy) + self._heal(copy)
            self._tell(kind, nth, operation, "", problems)
            shutil.rmtree(copy)

    def _judge(self, disk: Disk, error: str) -> list[str]:
        assert disk.fault
        assert disk.hit
        problems = self._judge_entries(self.root)
        if error and str(self.root) not in error:
            problems.append(f"the error names no file: {error}")
        may_remove = disk.fault.kind != "EROFS" and disk.hit.name not in ("unlink", "rmdir")
        if may_remove and list(self.root.glob(f"{self.order.stage}/.tmp-*")):
            problems.append("it left a draft")
        return problems

    def _judge_entries(self, root: Path) -> list[str]:
        store = Store(root)
        found = set(store.entries())
        lost = [f"{stage} is lost" for stage, _ in self.others - found]
        damaged = {entry: store.damage(*entry) for entry in found}
        return lost + [f"{entry[0]}: {what}" for entry, what in damaged.items() if what]

    def _heal(self, root: Path) -> list[str]:
        digest, error = self._run(Disk(root))
        if error:
            return [f"the next run failed: {error}"]
        return [] if digest == self.expected else ["the next run had another result"]

    def _tell(
        self, kind: str, nth: int, operation: Operation, error: str, problems: list[str]
    ) -> None:
        self.note(case=f"{kind} at {nth}, {operation}", kind=kind, failed=error, problems=problems)


# --- outside ------------------------------------------------------------------------------


class Nursery:
    """Starts processes for orders and waits for their end, one at a time."""

    def __init__(self, compiled: Path) -> None:
        # Programs once compiled are kept, so that processes spend their time on what can break.
        cache = f"--tf_xla_persistent_cache_directory={compiled}"
        compiled.mkdir(exist_ok=True)
        if compiled.is_dir() and any(compiled.iterdir()):
            cache += " --tf_xla_persistent_cache_read_only=true"
        # Its own session: a Ctrl-C in the terminal is for the test.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.victims"],
            cwd=ROOT,
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "TF_XLA_FLAGS": f"{cache} --tf_xla_persistent_cache_device_types=CPU",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def run(self, order: Order) -> Fate:
        """Has an order carried out."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin
        assert stdout
        stdin.write(json.dumps(asdict(order)) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the process that forks has ended"
        with contextlib.suppress(FileNotFoundError):
            notes = [json.loads(line) for line in Path(order.log).read_text().splitlines()]
            return Fate(**json.loads(answer), notes=notes)
        return Fate(**json.loads(answer), notes=[])

    def close(self) -> None:
        """Ends the process that forks."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


def random_kill(draw: random.Random, seconds: float) -> dict[str, Any]:
    """A signal and an instant within the time an undisturbed process takes."""
    return {"kill": draw.choice(list(SIGNALS)), "after": draw.uniform(0, seconds)}


def serve(orders: IO[str], answers: IO[str]) -> None:
    """Forks one process for each order, after importing what all of them need."""
    import_everything()
    for line in orders:
        values = json.loads(line)
        fault = values.pop("fault")
        order = Order(**values, fault=Fault(**fault) if fault else None)
        answers.write(json.dumps(_fork(order)) + "\n")
        answers.flush()


def import_everything() -> None:
    """Imports what stages import when they run, and reads the code that their keys are made of."""
    import keras  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import tensorflow  # noqa: F401

    with contextlib.suppress(LookupError):
        config = load_config(None, SMALL, tiny=True)
        pipeline(config, find_dataset(config.data.dataset), _read_code)


def _read_code(stage: Stage, /, **arguments: Any) -> Ref:
    stage.code()
    return Ref.pending(stage.name)


def _fork(order: Order) -> dict[str, Any]:
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        # Neither the handlers nor the buffers of the process it was forked from are its own.
        os._exit(live(order))
    descriptor = os.pidfd_open(child)
    try:
        signalled, sent = False, began
        if order.kill:
            if not _ends_within(descriptor, order.after):
                signalled, sent = True, time.monotonic()
                signal.pidfd_send_signal(descriptor, SIGNALS[order.kill])
        if not _ends_within(descriptor, PATIENCE * (20 if order.sweep else 1)):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(descriptor)
    ended = time.monotonic()
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": ended - began,
        "signalled": signalled,
        "lingered": ended - sent if signalled else 0.0,
    }


def _ends_within(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)

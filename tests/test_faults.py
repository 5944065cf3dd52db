"""Killed, starved or cut off at any instant, a run loses nothing and ends as if nothing happened.

`HEADSTART_KILLS=1000` (`make torture`) kills so often, every twentieth time a full-size run.
"""

import contextlib
import itertools
import json
import os
import queue
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from artifacts.garbage import find_garbage
from artifacts.runs import load_runs
from artifacts.store import Store
from flows import server
from tests.faults import SIGNALS, Disk, Fault, Operation, photograph, standing_between
from tests.victims import ERROR_KINDS, SMALL, Fate, Nursery, Order, random_kill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks and watches processes as Linux can"),
]

KILLS = int(os.environ.get("HEADSTART_KILLS", "30"))
THOROUGH = KILLS > 30
FULL_SIZE_KILLS = KILLS // 20 if THOROUGH else 0
COMMAND_KILLS = max(KILLS // 20, len(SIGNALS))
DIRECT_KILLS = KILLS - FULL_SIZE_KILLS - COMMAND_KILLS

WORKERS = 2
SMALL_ARGUMENTS = [part for setting in SMALL for part in ("--set", setting)]
UNFINISHED = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}


@dataclass
class Figures:
    """What came of all kills."""

    kills: int = 0
    completed: int = 0
    identical: int = 0
    lost: int = 0
    running: int = 0
    epochs_repeated: int = 0
    slowest_stop: float = 0.0
    failing_operations: int = 0
    killing_operations: int = 0
    problems: list[str] = field(default_factory=list)

    def include(self, *others: "Figures") -> Self:
        """Adds what came of other kills."""
        for other, part in itertools.product(others, fields(self)):
            mine, its = getattr(self, part.name), getattr(other, part.name)
            most = part.name in ("epochs_repeated", "slowest_stop")
            setattr(self, part.name, max(mine, its) if most else mine + its)
        return self

    def __str__(self) -> str:
        lines = {
            "kills tried": self.kills,
            "runs completed after them": self.completed,
            "results identical": self.identical,
            "entries lost": self.lost,
            "runs left Running": self.running,
            "epochs repeated at most": self.epochs_repeated,
            "slowest stop after SIGTERM or SIGINT, s": round(self.slowest_stop, 1),
            "operations at which a run ended": self.killing_operations,
            "operations that failed": self.failing_operations,
        }
        return "\n".join(f"{name:42}{value:>8}" for name, value in lines.items())


@dataclass
class Reference:
    """An undisturbed run."""

    fate: Fate
    store: Path

    @property
    def stages(self) -> list[str]:
        return list(self.fate.digests)

    @property
    def operations(self) -> int:
        return next(note["operations"] for note in self.fate.notes if "operations" in note)


class Pool:
    """Some nurseries, each used by one thread at a time."""

    def __init__(self, compiled: Path, folder: Path) -> None:
        self.folder = folder
        self.free: queue.SimpleQueue[Nursery] = queue.SimpleQueue()
        self.nurseries = [Nursery(compiled) for _ in range(WORKERS)]
        for nursery in self.nurseries:
            self.free.put(nursery)

    def run(self, store: Path, **order: Any) -> Fate:
        """Has one process live and die."""
        nursery = self.free.get()
        log = self.folder / f"log-{random.getrandbits(64):x}"  # noqa: S311 - only a name
        try:
            return nursery.run(Order(str(store), str(log), **order))
        finally:
            self.free.put(nursery)
            log.unlink(missing_ok=True)

    def close(self) -> None:
        for nursery in self.nurseries:
            nursery.close()


def together(function: Callable[[Any], Any], cases: Iterable[Any]) -> list[Any]:
    """What a function gives for each case, two at a time; raises the first error."""
    with ThreadPoolExecutor(WORKERS) as threads:
        return list(threads.map(function, cases))


@pytest.fixture(scope="module")
def figures(pytestconfig: pytest.Config) -> Iterator[Figures]:
    found = Figures()
    yield found
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        sys.stdout.write(f"\n\n{found}\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    # The second process finds the programs compiled, as those to be killed do, so its life is as
    # long as theirs would be.
    for name in ("compiling", "reference"):
        nursery = Nursery(folder / "compiled")
        fate = nursery.run(Order(str(folder / name), str(folder / f"{name}.log")))
        nursery.close()
        assert fate.code == 0, fate.error
        # Else nobody would see that one is repeated.
        assert fate.epochs == 8
    return Reference(fate, folder / "reference")


@pytest.fixture(scope="module")
def pool(folder: Path, reference: Reference) -> Iterator[Pool]:
    pool = Pool(folder / "compiled", folder)
    yield pool
    pool.close()


def whole_entries(root: Path) -> tuple[set[tuple[str, str]], list[str]]:
    """The entries that can be seen, and what is wrong with any."""
    store = Store(root)
    entries = set(store.entries())
    damage = [f"{stage}: {line}" for stage, key in entries for line in store.damage(stage, key)]
    return entries, damage


def draw_deaths(reference: Reference) -> Iterator[dict[str, Any]]:
    """Half of the deaths before operations on files, then others at random instants.

    Each is by a random signal. In a thousand kills every operation has its turn.
    """
    draw = random.Random(0)  # noqa: S311 - the same deaths each time
    step = max(2 * reference.operations // DIRECT_KILLS, 1)
    for nth in range(1, reference.operations + 1, step):
        yield {"fault": Fault(draw.choice(list(SIGNALS)), nth)}
    while True:
        yield random_kill(draw, reference.fate.seconds)


def judge(
    case: str, root: Path, killed: Fate, run: Callable[[Path], Fate], reference: Reference
) -> Figures:
    """What a killed process has left, and what the next one makes of it."""
    left, damage = whole_entries(root)
    again = run(root)
    now, _ = whole_entries(root)
    shutil.rmtree(root)
    found = Figures(
        kills=1,
        completed=again.code == 0,
        identical=again.digests == reference.fate.digests,
        lost=len(left - now) + len(damage),
        epochs_repeated=killed.epochs + again.epochs - reference.fate.epochs,
        slowest_stop=killed.lingered,
    )
    if not found.identical or found.lost or found.epochs_repeated > 1:
        found.problems.append(f"{case}: {killed}, then {again}, {damage}")
    return found


def test_killed_at_random_the_next_run_ends_as_if_nothing_had_happened(
    pool: Pool, reference: Reference, figures: Figures, folder: Path
) -> None:
    deaths, locked = enumerate(draw_deaths(reference)), threading.Lock()

    def kill_once(_: int) -> Figures:
        while True:
            with locked:
                number, death = next(deaths)
            root = folder / f"killed-{number}"
            killed = pool.run(root, **death)
            if killed.code:
                break
            shutil.rmtree(root)  # It was quicker.
        return judge(f"{death}", root, killed, pool.run, reference)

    found = Figures().include(*together(kill_once, range(DIRECT_KILLS)))
    figures.include(found)
    assert not found.problems, "\n".join(found.problems)
    assert found.completed == found.identical == found.kills == DIRECT_KILLS
    assert found.lost == 0
    assert found.epochs_repeated <= 1


def test_killed_again_and_again_a_run_still_comes_to_its_end(
    pool: Pool, reference: Reference, folder: Path
) -> None:
    root, lives, epochs = folder / "again", 0, 0
    draw = random.Random(1)  # noqa: S311 - the same deaths each time
    code = -1
    while code != 0:
        fate = pool.run(root, fault=Fault(draw.choice(list(SIGNALS)), 60))
        code, lives, epochs = fate.code, lives + 1, epochs + fate.epochs
        assert lives < 60
    assert fate.digests == reference.fate.digests
    assert epochs <= reference.fate.epochs + lives


SWEEPS = [("kill",), ("power",), ERROR_KINDS] if THOROUGH else [("mixed",)]


@pytest.mark.parametrize("sweep", SWEEPS, ids=", ".join)
def test_any_operation_may_fail_or_be_the_last(
    pool: Pool, reference: Reference, figures: Figures, folder: Path, sweep: tuple[str, ...]
) -> None:
    def go_through(stage: str) -> Figures:
        root = folder / f"sweep-{stage}"
        shutil.copytree(reference.store, root)
        fate = pool.run(root, stage=stage, sweep=sweep)
        shutil.rmtree(root)
        cases = [note for note in fate.notes if "case" in note]
        kills = sum(case["kind"] in ("kill", "power") for case in cases)
        found = Figures(killing_operations=kills, failing_operations=len(cases) - kills)
        found.problems = [f"{case['case']}: {line}" for case in cases for line in case["problems"]]
        if fate.code or not cases:
            found.problems.append(f"{stage}: the sweep ended with {fate.code} {fate.error}")
        return found

    found = Figures().include(*together(go_through, reference.stages))
    figures.include(found)
    assert not found.problems, "\n".join(found.problems[:20])


# --- one thing of the old and the new, never neither ---------------------------------------


def test_an_old_result_is_there_until_a_new_one_is(tmp_path: Path) -> None:
    key = "0" * 40

    def save(store: Store, value: str) -> str:
        with store.draft("sample", key) as draft:
            (draft.path / "value").write_text(value)
            return store.commit(draft, seconds=0.0).digest

    def save_hindered(root: Path, fault: Fault) -> Disk:
        save(Store(root), "old")
        disk = Disk(root, fault)
        with contextlib.suppress(OSError), standing_between(disk):
            save(Store(root), "new")
        return disk

    watched = []

    def watch(disk: Disk, operation: Operation) -> None:
        watched.append(operation)
        copy = photograph(disk.root, tmp_path / "copy")
        assert Store(copy).find("sample", key), f"at {operation}"

    save(Store(tmp_path / "watched"), "old")
    with standing_between(Disk(tmp_path / "watched", watch=watch)):
        save(Store(tmp_path / "watched"), "new")
    assert len(watched) > 5
    for kind in ERROR_KINDS:
        for nth in itertools.count(1):
            root = tmp_path / f"{kind}-{nth}"
            fault = Fault(kind.rstrip("+"), nth, lasting=kind.endswith("+"))
            disk = save_hindered(root, fault)
            assert Store(root).find("sample", key), f"{kind} at {disk.hit}"
            if not disk.hit:
                break
        assert nth > 5


# --- disks ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of a size of one's choice; called again it is changed."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        again = "remount," if place.is_mount() else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", place], capture_output=True
        )
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_disk_that_is_full_at_any_point_loses_nothing(
    pool: Pool, reference: Reference, small_disk: Callable[[str], Path]
) -> None:
    needed = sum(path.lstat().st_blocks for path in reference.store.rglob("*")) * 512
    steps = 40 if THOROUGH else 6
    problems = []
    for step in range(1, steps + 1):
        place = small_disk(f"size={needed * step // steps // 1024 + 4}k")
        failed = pool.run(place / "store")
        _, damage = whole_entries(place / "store")
        small_disk(f"size={needed * 4 // 1024}k")
        again = pool.run(place / "store")
        if damage or again.digests != reference.fate.digests:
            problems.append(f"{step}: {damage} {again}")
        if failed.code == 1 and str(place) not in failed.error:
            problems.append(f"{step}: the error names no file: {failed.error}")
        if failed.code not in (0, 1):
            problems.append(f"{step}: ended with {failed.code}")
        shutil.rmtree(place / "store")
    assert not problems, "\n".join(problems)


def test_a_read_only_store_serves_what_it_has_and_refuses_more(
    tiny: Any, small_disk: Callable[[str], Path]
) -> None:
    store = small_disk("size=64m") / "store"
    shutil.copytree(tiny.store, store)
    small_disk("ro,size=64m")
    served = tiny.with_store(store)("run", "--tiny")
    assert served.returncode == 0, served.stderr
    refused = tiny.with_store(store)("run", "--tiny", "--no-cache")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert f"store {store}: Read-only file system" in refused.stderr


# --- clocks and company ---------------------------------------------------------------------


def test_a_clock_set_back_changes_nothing(pool: Pool, reference: Reference, folder: Path) -> None:
    root = folder / "clock"
    tomorrow = pool.run(root, clock=86_400.0, fault=Fault("SIGKILL", reference.operations // 2))
    assert tomorrow.code == -signal.SIGKILL
    today = pool.run(root)
    assert today.digests == reference.fate.digests
    latest = pool.run(root, clock=-86_400.0)
    assert latest.digests == reference.fate.digests
    assert whole_entries(root)[1] == []
    garbage = find_garbage(Store(root), keep_runs=10, older_than=timedelta(hours=12))
    assert all(piece.path.name.startswith(".tmp-") for piece in garbage)


@pytest.mark.parametrize("seed", range(10 if THOROUGH else 2))
def test_of_two_runs_at_once_the_one_that_is_not_killed_ends_well(
    pool: Pool, reference: Reference, folder: Path, seed: int
) -> None:
    root = folder / f"two-{seed}"
    draw = random.Random(seed)  # noqa: S311 - the same deaths each time
    fates: list[Fate] = []
    doomed = {"kill": "SIGKILL", "after": draw.uniform(0.3, reference.fate.seconds)}
    together(lambda order: fates.append(pool.run(root, **order)), [doomed, {}])
    survivor = next(fate for fate in fates if not fate.signalled)
    assert survivor.code == 0, survivor.error
    assert survivor.digests == reference.fate.digests
    assert whole_entries(root)[1] == []


# --- through the command and Prefect --------------------------------------------------------


def start_small(headstart: Any, **more: Any) -> Any:
    return headstart.start("run", "--tiny", *SMALL_ARGUMENTS, "--json", **more)


def end(process: Any) -> tuple[int, dict[str, str], str]:
    """Exit code, stage to digest, and what was said."""
    out, err = process.communicate(timeout=600)
    return process.returncode, digests_of(json.loads(out)) if out else {}, err


def digests_of(run: dict[str, Any]) -> dict[str, str]:
    """Stage to digest, from what a run printed."""
    return {stage["name"]: stage["digest"] for stage in run["stages"]}


def wait_for(process: Any, word: str) -> None:
    """Returns once the command says a word."""
    for line in process.stderr:
        if word in line:
            return
    pytest.fail(f"the command ended without {word}")


def left_running(headstart: Any) -> list[str]:
    """Runs of flows and tasks that Prefect believes to be under way."""
    flows = headstart.prefect("flow_runs/filter", flow_runs=UNFINISHED)
    tasks = headstart.prefect("task_runs/filter", task_runs=UNFINISHED)
    return [run["name"] for run in (*flows, *tasks)]


def kill_commands(
    headstart: Any,
    figures: Figures,
    folder: Path,
    count: int,
    start: Callable[[Path], Any],
    expected: dict[str, str],
    seconds: float,
) -> None:
    """Kills the command at random instants, each time on a fresh store, and runs it again."""

    def kill_once(seed: int) -> Figures:
        draw = random.Random(seed)  # noqa: S311 - the same deaths each time
        root = folder / f"command-{seed}-{count}"
        number = SIGNALS[list(SIGNALS)[seed % len(SIGNALS)]]
        while True:
            process = start(root)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0, seconds))
            process.send_signal(number)
            sent = time.monotonic()
            code, _, said = end(process)
            if code:
                break
            shutil.rmtree(root)  # It was quicker.
        found = Figures(kills=1)
        if number != signal.SIGKILL:
            found.slowest_stop = time.monotonic() - sent
            right = {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
            if code not in (right, -number) or (code == right and "goes on where" not in said):
                found.problems.append(f"seed {seed}: {number.name} gave {code}: {said}")
        left, damage = whole_entries(root)
        again, digests, said = end(start(root))
        found.completed = again == 0
        found.identical = digests == expected
        found.lost = len(left - whole_entries(root)[0]) + len(damage)
        found.running = sum(record.status == "running" for record in load_runs(root))
        if again or digests != expected or found.lost or found.running:
            found.problems.append(f"seed {seed}: after {number.name}, {found}, {said}")
        shutil.rmtree(root)
        return found

    headstart("ui")
    found = Figures().include(*together(kill_once, range(count)))
    running = left_running(headstart)
    found.running += len(running)
    figures.include(found)
    assert not found.problems, "\n".join(found.problems)
    assert not running
    assert found.completed == found.identical == found.kills


def test_killed_commands_leave_no_run_running(
    headstart: Any, reference: Reference, figures: Figures, folder: Path
) -> None:
    began = time.monotonic()
    code, digests, said = end(start_small(headstart))
    assert code == 0, said
    assert digests == reference.fate.digests
    kill_commands(
        headstart,
        figures,
        folder,
        COMMAND_KILLS,
        lambda root: start_small(headstart.with_store(root)),
        digests,
        time.monotonic() - began,
    )


@pytest.mark.skipif(not FULL_SIZE_KILLS, reason="takes an hour; make torture runs it")
def test_killed_full_size_runs_end_as_if_nothing_had_happened(
    headstart: Any, figures: Figures, folder: Path
) -> None:
    def start(root: Path) -> Any:
        return headstart.with_store(root).start("run", "--json")

    began = time.monotonic()
    code, digests, said = end(start(folder / "full"))
    assert code == 0, said
    seconds = time.monotonic() - began
    kill_commands(headstart, figures, folder, FULL_SIZE_KILLS, start, digests, seconds)


def test_truncated_result_records_heal(tiny: Any, finished: Any) -> None:
    for record in (tiny.store / ".prefect").iterdir():
        os.truncate(record, record.stat().st_size // 2)
    done = tiny.json("run", "--tiny", "--record")
    assert {stage["state"] for stage in done["stages"]} == {"cached"}
    assert digests_of(done) == digests_of(finished[1])


def test_runs_killed_before_their_first_record_are_not_left_running(headstart: Any) -> None:
    headstart("ui")
    for command in ("study", "search", "run"):
        killed = headstart.start_python(
            "-c",
            "import os, signal, sys, flows.account as flow\n"
            "flow.save_run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "from flows.cli import main\n"
            "main(sys.argv[1:])",
            *(command, "--tiny"),
        )
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        # Each has buried the one before.
        assert len(left_running(headstart)) == 1
    assert end(start_small(headstart))[0] == 0
    assert left_running(headstart) == []


def test_a_run_stopped_in_the_middle_of_an_epoch_is_not_left_running(headstart: Any) -> None:
    headstart("ui")
    # One epoch takes half a minute, in which Python has nothing to do.
    large = ("--set", "network.units=1000", "--set", "pretrain.batch_size=1")
    process = headstart.start("run", "--tiny", *large, "--set", "pretrain.augment=false")
    while not any(name.startswith("pretrain") for name in left_running(headstart)):
        time.sleep(0.2)
    time.sleep(5)
    process.terminate()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 143, err
    assert left_running(headstart) == []


class Server:
    """A Prefect server at one address, to be killed and started again."""

    def __init__(self, headstart: Any) -> None:
        self.headstart = headstart
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        return {**server.ENVIRONMENT, "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api"}

    def start(self) -> None:
        self.process = self.headstart.start_python(
            *("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *("--port", str(self.port)),
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        server.Connection(self.environment["PREFECT_API_URL"], ours=False).wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_server(headstart: Any) -> Iterator[Server]:
    own = Server(headstart)
    for _ in range(10):
        with contextlib.suppress(server.ServerError):
            own.wait()
            break
    yield own
    own.kill()


def test_a_server_killed_and_started_again_costs_the_run_nothing(
    headstart: Any, own_server: Server, reference: Reference
) -> None:
    process = start_small(headstart, env=own_server.environment)
    wait_for(process, "pretrain")
    own_server.kill()
    time.sleep(1)
    own_server.start()
    code, digests, said = end(process)
    assert code == 0, said
    assert digests == reference.fate.digests


def test_a_locked_database_only_delays(headstart: Any, reference: Reference) -> None:
    headstart("ui")
    process = start_small(headstart)
    wait_for(process, "split")
    with sqlite3.connect(headstart.home / "prefect.db", timeout=60) as database:
        database.execute("BEGIN IMMEDIATE")
        time.sleep(5)
        database.rollback()
    database.close()
    code, digests, said = end(process)
    assert code == 0, said
    assert digests == reference.fate.digests
    assert left_running(headstart) == []

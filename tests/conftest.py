"""What several test modules share: the command in a process of its own, with its own folders."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from models.config import Run

ROOT = Path(__file__).resolve().parent.parent
# How often a server that is busy is asked.
TRIES = 10

# A shell that runs the tests in the background has them, and so all they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Has TensorFlow start with the threads that stages ask for, whichever test starts it."""
    if "tensorflow" in sys.modules:
        from models.runtime import use_threads

        use_threads(Run().threads)


class Headstart:
    """The command, run in processes of its own that share a store and a Prefect home."""

    def __init__(self, store: Path, home: Path) -> None:
        self.store, self.home = store, home
        self.environment = {
            **{n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")},
            "HEADSTART_STORE": str(store),
            "PREFECT_HOME": str(home),
            # A test run as root or elsewhere finds the code under test all the same.
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
        }

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        return self.start_python("-m", "flows.cli", *arguments, **more)

    def start_python(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT} | more
        more["env"] = self.environment | more.get("env", {})
        return subprocess.Popen([sys.executable, *arguments], text=True, **more)

    def __call__(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        """The document that a command prints with --json; it must succeed."""
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def prefect(self, path: str, **body: Any) -> Any:
        """An answer of the API of the server that `headstart ui` keeps."""
        address = self("ui").stdout.split()[1]
        request = urllib.request.Request(  # noqa: S310 - http only
            f"{address}/api/{path}",
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json"},
        )
        for _ in range(TRIES):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http only
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                # Its database is locked for a moment; Prefect's own client asks again too.
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                time.sleep(1)
        pytest.fail(f"{address} has been unavailable {TRIES} times")

    def with_store(self, store: Path) -> "Headstart":
        """The same command and Prefect home with another store."""
        return Headstart(store, self.home)


@pytest.fixture(scope="session")
def headstart_at() -> Iterator[Callable[[Path], Headstart]]:
    """Makes the command with a store and a Prefect home in a folder."""
    made = []

    def make(folder: Path) -> Headstart:
        made.append(Headstart(folder / "store", folder / "prefect"))
        return made[-1]

    yield make
    for command in made:
        command("ui", "--stop")


@pytest.fixture
def headstart(tmp_path: Path) -> Iterator[Headstart]:
    command = Headstart(tmp_path / "store", tmp_path / "prefect")
    yield command
    command("ui", "--stop")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Headstart, Any]]:
    """A finished shrunk run, not to be changed, and what it printed; its server stays up."""
    folder = tmp_path_factory.mktemp("finished")
    command = Headstart(folder / "store", folder / "prefect")
    command("ui")
    yield command, command.json("run", "--tiny")
    command("ui", "--stop")


@pytest.fixture
def tiny(finished: tuple[Headstart, Any], tmp_path: Path) -> Headstart:
    """The command on a copy of a finished shrunk run's store."""
    command, _ = finished
    shutil.copytree(command.store, tmp_path / "tiny")
    return command.with_store(tmp_path / "tiny")


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A Prefect server of the tests' own, for flows that run in this process."""
    from flows.server import settle_environment

    settle_environment()
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # The heartbeat's thread sleeps a second and is waited for at the end of every flow.
    quick = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with prefect_test_harness(server_startup_timeout=120), quick:
        yield

"""Prefect's server when none is given: one on loopback, shared by the runs that need it.

It lives as long as a run uses it, or until told to stop once ``headstart ui`` has asked it to stay.
Each user of it holds a shared lock on one file; the server leaves when it can take that lock for
itself. The kernel frees the lock of a process that dies, so nothing is left behind.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LOOPBACK = "127.0.0.1"
USUAL_PORT = 4200
START_LIMIT = 120.0

# Nothing of a run leaves the machine, and what Prefect logs for itself stays off the terminal.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The newer UI asks a site on the internet for a script at every start.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}


class ServerError(Exception):
    """Prefect's server cannot be used; the message says why and what to do."""


def settle_environment() -> None:
    """Sets what Prefect reads when it is first imported, unless the user has set it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _home() -> Path:
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    home.mkdir(parents=True, exist_ok=True)
    return home


def _file(name: str) -> Path:
    return _home() / f"headstart-server.{name}"


@dataclass
class Connection:
    """A server to use.

    Attributes:
        url: Of its API.
        ours: Whether it is the shared one of this module.
    """

    url: str
    ours: bool

    @property
    def ui(self) -> str:
        """Address of its pages."""
        return self.url.removesuffix("/api")

    def wait(self) -> None:
        """Returns once the server answers.

        Raises:
            ServerError: If it does not.
        """
        limit = time.monotonic() + (START_LIMIT if self.ours else 10)
        while not _answers(self.url):
            if self.ours and not _is_running():
                msg = f"Prefect's server did not start; its log is {_file('log')}"
                raise ServerError(msg)
            if time.monotonic() > limit:
                msg = (
                    f"Prefect's server at {self.url} does not answer; start it, or unset "
                    "PREFECT_API_URL to let headstart start one"
                )
                raise ServerError(msg)
            time.sleep(0.1)


@contextlib.contextmanager
def connection() -> Iterator[Connection]:
    """The server that Prefect's settings name, else the shared one, started if need be.

    Does not wait for it to answer, so that its start and other work overlap.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url:
        yield Connection(str(url), ours=False)
        return
    with _hold_shared():
        yield Connection(_ensure_started(), ours=True)


@contextlib.contextmanager
def _hold_shared() -> Iterator[None]:
    with _file("users").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield


def _ensure_started() -> str:
    """Address of the shared server's API; the caller is among its users already."""
    with _file("start").open("ab") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        if not _is_running():
            _start()
        return str(_remembered()["url"])


def _start() -> None:
    url = f"http://{LOOPBACK}:{_free_port()}/api"
    with _file("log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module, no words of a user's
            [sys.executable, "-m", "flows.server", url],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PREFECT_API_URL": url},
            # Ctrl-C in the terminal is for the run; the server leaves when its users have.
            start_new_session=True,
        )
    _file("json").write_text(json.dumps({"url": url, "pid": process.pid}))


def _remembered() -> dict[str, object]:
    try:
        state = json.loads(_file("json").read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _is_running() -> bool:
    """Whether the remembered process is there and is the server: it holds the alive lock."""
    with _file("alive").open("ab") as alive:
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return _has_just_started()


def _has_just_started() -> bool:
    # Between its start and its lock a server has only its process to show.
    pid = _remembered().get("pid")
    if not isinstance(pid, int):
        return False
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    return ended == 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310 - http only
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    msg = f"no free port on {LOOPBACK}"
    raise ServerError(msg)


def keep() -> str:
    """Starts the shared server if need be, tells it to stay, and gives the address of its pages."""
    with connection() as server:
        if server.ours:
            _file("keep").touch()
        server.wait()
        return server.ui


def release() -> None:
    """Lets the shared server leave once nobody uses it."""
    _file("keep").unlink(missing_ok=True)


def serve(url: str) -> None:
    """Runs the server in this process until nobody uses it."""
    import uvicorn
    from prefect.server.api.server import create_app

    host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
    with _file("alive").open("ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        server = uvicorn.Server(
            uvicorn.Config(create_app(), host=host, port=int(port), log_level="warning")
        )
        threading.Thread(target=_leave_when_unused, args=(server,), daemon=True).start()
        server.run()


def _leave_when_unused(server: "object") -> None:
    users = _file("users").open("ab")
    while True:
        time.sleep(1)
        if not _file("keep").exists() and _is_unused(users):
            # Held to the end: whoever comes now waits, and then starts a new one.
            server.should_exit = True  # type: ignore[attr-defined] # a uvicorn.Server
            return


def _is_unused(users: IO[bytes]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    serve(sys.argv[1])

"""Prefect's server when none is given: one on loopback, shared by the runs that need it.

It lives as long as a run uses it, or until told to stop once ``headstart ui`` has asked it to stay.
Each user of it holds a shared lock on one file; the server leaves when it can take that lock for
itself, and has it until it is gone. The server holds the lock on another file from before its
process starts, so it is known to run. The kernel frees the locks of a process that dies, so nothing
is left behind.
"""

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import IO

from artifacts import files
from flows.importing import importing

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
    # In memory, leases die with the server, and the slot of a run that died with it stays taken:
    # every later night would be cancelled.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}


class ServerError(Exception):
    """Prefect's server cannot be used; the message says why and what to do."""


def settle_environment() -> None:
    """Sets what Prefect reads when it is first imported, unless the user has set it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _home() -> Path:
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser().absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"Prefect's folder {home}: {error.strerror}; choose another with PREFECT_HOME"
        raise ServerError(msg) from None
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
    with importing():
        from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url:
        yield Connection(str(url), ours=False)
        return
    with _hold_shared():
        yield Connection(_ensure_started(), ours=True)


@contextlib.contextmanager
def used_by_prefect(url: str) -> Iterator[None]:
    """Makes Prefect in this process talk to a server."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    # The heartbeat's thread sleeps a second and is waited for at the end of every flow.
    with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


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
        return _file("url").read_text()


def _start() -> None:
    with _bind() as port, _file("log").open("ab") as log, _file("alive").open("ab") as alive:
        url = f"http://{LOOPBACK}:{port.getsockname()[1]}/api"
        files.write_atomic(_file("url"), url.encode())
        # The lock goes with the open file and the port with its socket, so the child has both
        # from its first instant: nobody takes the port while it is still importing.
        fcntl.flock(alive, fcntl.LOCK_EX)
        subprocess.Popen(  # noqa: S603 - our own module, no words of a user's
            # The address is for whoever looks at the list of processes.
            [sys.executable, "-m", "flows.server", url, str(port.fileno()), str(alive.fileno())],
            pass_fds=[port.fileno(), alive.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Where a user stands there may be another package called flows.
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(_home())},
            # Ctrl-C in the terminal is for the run; the server leaves when its users have.
            start_new_session=True,
        )


def _is_running() -> bool:
    """Whether some process holds the alive lock: the server, or one that is about to be it."""
    with _file("alive").open("ab") as alive:
        try:
            # Shared, so that two who ask at once do not take each other for the server.
            fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def knows(address: str, flow_run_id: str) -> bool:
    """Whether a server has a flow run in its database."""
    return _get(f"{address}/api/flow_runs/{flow_run_id}")


def _answers(url: str) -> bool:
    return _get(f"{url}/health")


def _get(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - http only
            return bool(answer.status == 200)
    except (OSError, ValueError):  # ValueError: what PREFECT_API_URL names is no address.
        return False


def _bind() -> socket.socket:
    """A socket that has a port of its own: the usual one, or whichever is free."""
    for port in (USUAL_PORT, 0):
        bound = socket.socket()
        try:
            bound.bind((LOOPBACK, port))
        except OSError:
            bound.close()
        else:
            return bound
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


def serve(port: int, alive: int) -> None:
    """Runs the server in this process until nobody uses it.

    Args:
        port: Descriptor of the socket that is bound to its port.
        alive: Descriptor of the file whose lock says that the server runs.
    """
    with importing():
        import uvicorn
        from prefect.server.api.server import create_app

        close_failed_statements()
    os.set_inheritable(alive, False)
    # Whoever comes while it leaves waits, so a page left open must not hold it up.
    config = uvicorn.Config(create_app(), log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    # Open to the end, and the lock held: who waits for that then starts a new server.
    with _file("users").open("ab") as users:
        threading.Thread(target=_leave_when_unused, args=(server, users), daemon=True).start()
        server.run(sockets=[socket.socket(fileno=port)])
        # Before the users' lock goes, so that they do not take us for running.
        os.close(alive)


def close_failed_statements() -> None:
    """Keeps the server from standing still for a minute when several runs use it at once.

    The cursor of a statement that failed stays open until Python's garbage collector finds the
    error it belongs to. Closed only then, it waits for its connection with Python's lock held; and
    the connection may be waiting for another one's transaction which, without that lock, does not
    end before SQLite gives up.
    """
    from aiosqlite import Cursor, Error

    def closing(method: Callable[..., Awaitable[Cursor]]) -> Callable[..., Awaitable[Cursor]]:
        @wraps(method)
        async def execute(self: Cursor, *arguments: object) -> Cursor:
            try:
                return await method(self, *arguments)
            except Error:
                # In the connection's own thread, at a moment when it waits for nothing.
                await self.close()
                raise

        return execute

    for name in ("execute", "executemany"):
        setattr(Cursor, name, closing(getattr(Cursor, name)))


def _leave_when_unused(server: "object", users: IO[bytes]) -> None:
    while True:
        time.sleep(1)
        if not _file("keep").exists() and _is_unused(users):
            server.should_exit = True  # type: ignore[attr-defined] # a uvicorn.Server
            return


def _is_unused(users: IO[bytes]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    serve(int(sys.argv[2]), int(sys.argv[3]))

import contextlib
import fcntl
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from artifacts import files
from flows import server

HOLD = """
import sys
from flows import server

server.settle_environment()
with server.connection() as used:
    used.wait()
    print(used.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


def answers(url):
    with contextlib.suppress(urllib.error.URLError, OSError):
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 - http only
            return answer.status == 200
    return False


def leaves(url):
    limit = time.monotonic() + 60
    while answers(url) and time.monotonic() < limit:
        time.sleep(0.2)
    return not answers(url)


@pytest.fixture
def hold(headstart):
    """Starts a process that uses the server until its input is closed."""
    users = []

    def start(**variables):
        user = headstart.start_python("-c", HOLD, stdin=subprocess.PIPE, env=variables)
        users.append(user)
        return user

    yield start
    for user in users:
        user.kill()
        user.communicate()


def test_nothing_runs_where_nothing_was_started(home):
    assert not server._is_running()


def test_what_a_dead_server_left_is_no_obstacle(home):
    for name in ("url", "alive", "users", "start", "log"):
        (home / f"headstart-server.{name}").write_text("http://127.0.0.1:9/api")
    assert not server._is_running()


def test_one_who_asks_is_not_taken_for_the_server(home):
    with (home / "headstart-server.alive").open("ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        assert not server._is_running()


def test_whoever_holds_the_lock_is_the_server(home):
    with (home / "headstart-server.alive").open("ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert server._is_running()
    assert not server._is_running()


def test_the_users_own_settings_stay(monkeypatch):
    monkeypatch.setattr(os, "environ", {"DO_NOT_TRACK": "0"})
    server.settle_environment()
    assert os.environ["DO_NOT_TRACK"] == "0"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_stopping_what_does_not_run_is_no_error(headstart):
    done = headstart("ui", "--stop")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_home_that_cannot_be_made_is_named(headstart):
    headstart.home.write_text("")
    done = headstart("ui", "--stop")
    assert done.returncode == 1
    assert done.stderr.startswith(f"headstart: Prefect's folder {headstart.home}: File exists;")
    headstart.home.unlink()


@pytest.mark.slow
def test_users_who_come_at_once_share_a_server_that_leaves_after_the_last(hold):
    first, second = hold(), hold()
    url = first.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    assert second.stdout.readline().strip() == url
    first.kill()
    first.wait()
    time.sleep(3)
    assert answers(url)
    second.kill()
    assert leaves(url)


@pytest.mark.slow
def test_one_who_comes_while_the_server_leaves_waits_until_it_has_left(
    headstart, hold, monkeypatch
):
    home = Path(headstart.environment["PREFECT_HOME"])
    monkeypatch.setenv("PREFECT_HOME", str(home))
    user = hold()
    assert user.stdout.readline().startswith("http")
    user.kill()
    limit = time.monotonic() + 60
    while not files.is_held(home / "headstart-server.users"):
        assert time.monotonic() < limit
        time.sleep(0.01)
    with (home / "headstart-server.users").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        assert not server._is_running()


@pytest.mark.slow
def test_a_server_that_was_killed_is_replaced(headstart, hold):
    first = hold()
    url = first.stdout.readline().strip()
    pids = subprocess.run(["pgrep", "-f", f"flows.server {url}"], capture_output=True, text=True)  # noqa: S607
    subprocess.run(["kill", "-KILL", *pids.stdout.split()], check=True)  # noqa: S607
    assert leaves(url)
    assert answers(hold().stdout.readline().strip())


@pytest.mark.slow
def test_ui_keeps_the_server_until_told_to_let_it_go(headstart):
    shown = headstart("ui").stdout
    assert shown.endswith("It stays until: headstart ui --stop\n")
    url = f"{shown.split()[1]}/api"
    time.sleep(3)
    assert answers(url)
    assert headstart("ui").stdout == shown
    headstart("ui", "--stop")
    assert leaves(url)


@pytest.mark.slow
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", "nonsense"])
def test_a_given_server_is_used_and_named_if_it_does_not_answer(headstart, url):
    done = headstart("ui", env={"PREFECT_API_URL": url})
    assert done.returncode == 1
    assert f"{url} does not answer" in done.stderr
    assert not list(headstart.home.glob("headstart-server.url"))


@pytest.mark.slow
def test_a_server_that_cannot_start_is_told_with_its_log(headstart):
    database = "sqlite+aiosqlite:////no/such/folder/prefect.db"
    done = headstart("ui", env={"PREFECT_API_DATABASE_CONNECTION_URL": database})
    assert done.returncode == 1
    log = headstart.home / "headstart-server.log"
    assert done.stderr.splitlines()[-1].endswith(f"did not start; its log is {log}")
    assert "unable to open database file" in log.read_text()


@pytest.mark.slow
def test_a_package_called_flows_where_the_user_stands_is_not_in_the_way(headstart, tmp_path):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").touch()
    code = "from flows.cli import main; main(['ui'])"
    started = headstart.start_python("-P", "-c", code, cwd=tmp_path)
    out, err = started.communicate(timeout=120)
    assert out.startswith("Prefect: http://127.0.0.1:"), err


@pytest.mark.slow
def test_what_a_run_that_dies_with_the_server_holds_is_known_to_the_next_server(headstart):
    settings = headstart.prefect("admin/settings")
    assert settings["server"]["concurrency"]["lease_storage"].endswith(".filesystem")


# The second connection's statement fails at once, since it has read what the first then changes.
LOCKED = """
import asyncio, gc, sys
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from flows.server import close_failed_statements

async def fail(connection):
    try:
        await connection.exec_driver_sql("INSERT INTO numbers VALUES (2)")
    except OperationalError as error:
        return error

async def main():
    engine = create_async_engine(sys.argv[1], connect_args={"isolation_level": None})
    async with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            await connection.exec_driver_sql("PRAGMA busy_timeout = 5000")
        await first.exec_driver_sql("CREATE TABLE numbers (number INTEGER)")
        await second.exec_driver_sql("BEGIN DEFERRED")
        await second.exec_driver_sql("SELECT * FROM numbers")
        await first.exec_driver_sql("BEGIN IMMEDIATE")
        await first.exec_driver_sql("INSERT INTO numbers VALUES (1)")
        error = await fail(second)
        print(error.orig)
        await second.exec_driver_sql("ROLLBACK")
        waiting = asyncio.create_task(second.exec_driver_sql("BEGIN IMMEDIATE"))
        await asyncio.sleep(0.5)
        del error
        gc.collect()
        await first.exec_driver_sql("COMMIT")
        await waiting
        print("goes on")

close_failed_statements()
asyncio.run(main())
"""


def test_a_failed_statement_does_not_hold_up_the_server(headstart, tmp_path):
    process = headstart.start_python("-c", LOCKED, f"sqlite+aiosqlite:///{tmp_path}/prefect.db")
    out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["database is locked", "goes on"], err

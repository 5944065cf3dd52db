"""The deployments of prefect.yaml, deployed as they stand and run by a worker."""

import json
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from artifacts.nights import begin_night, load_nights, save_night
from flows.selection import read_graph
from models.config import Config, load_config
from models.datasets import load_dataset

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "prefect.yaml"
DEPLOYMENTS = {entry["name"]: entry for entry in yaml.safe_load(FILE.read_text())["deployments"]}
LIMIT = 300


def test_no_path_of_a_machine_is_in_the_file():
    words = FILE.read_text().replace('"', " ").replace("'", " ").split()
    assert not [word for word in words if word.startswith(("/", "~", "file:"))]
    assert {entry["entrypoint"] for entry in DEPLOYMENTS.values()} == {
        "flows.transfer_learning.transfer_learning",
        "flows.nightly.nightly_retrain",
        "flows.study.run_study",
        "flows.search.run_search",
        "flows.reproduce.run_reproduction",
    }


def test_every_stage_has_a_deployment_of_its_own():
    alone = {
        name: entry["parameters"]["rerun"]["only"]
        for name, entry in DEPLOYMENTS.items()
        if "rerun" in entry["tags"]
    }
    assert alone == {stage: stage for stage in read_graph(Config())}


def test_every_deployment_says_what_it_is_and_what_happens_when_two_meet():
    for entry in DEPLOYMENTS.values():
        assert entry["description"]
        assert entry["version"]
        assert "headstart" in entry["tags"]
        assert entry["concurrency_limit"]["limit"] == 1
        assert entry["concurrency_limit"]["collision_strategy"] in ("ENQUEUE", "CANCEL_NEW")


def test_the_night_is_at_two_in_a_named_timezone():
    (schedule,) = DEPLOYMENTS["nightly-retrain"]["schedules"]
    assert schedule["cron"] == "0 2 * * *"
    assert schedule["timezone"]
    assert schedule["active"] is True
    parameters = DEPLOYMENTS["nightly-retrain"]["parameters"]
    assert Config.model_validate(parameters["config"]).nightly.inbox == "inbox"


@pytest.fixture(scope="module")
def deployed(finished, tmp_path_factory):
    """The command, and Prefect's own with a worker that stands in another folder."""
    command, _ = finished
    address = command("ui").stdout.split()[1]
    folder, elsewhere = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("elsewhere")
    shutil.copy(FILE, folder)
    environment = command.environment | {
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "HEADSTART_STORE": str(folder / "store"),
    }
    python = [sys.executable, "-m", "prefect"]

    def prefect(*words):
        arguments = [*python, "--no-prompt", *words]
        subprocess.run(arguments, cwd=folder, env=environment, check=True, capture_output=True)

    prefect.folder = folder
    prefect("work-pool", "create", "local", "--type", "process", "--overwrite")
    prefect("deploy", "--all")
    with (elsewhere / "log").open("w") as log:
        worker = subprocess.Popen(
            [*python, "worker", "start", "--pool", "local"],
            cwd=elsewhere,
            env=environment,
            stdout=log,
            stderr=log,
        )
        yield command, prefect
        worker.terminate()
        worker.wait(60)


def run_deployment(command, name, **parameters):
    """Runs a deployment to its end; the states of the flow run and of its tasks."""
    deployment = command.prefect(f"deployments/name/transfer-learning/{name}")
    path = f"deployments/{deployment['id']}/create_flow_run"
    flow_run = command.prefect(path, parameters=parameters, state={"type": "SCHEDULED"})
    limit = time.monotonic() + LIMIT
    while flow_run["state_type"] in ("SCHEDULED", "PENDING", "RUNNING"):
        assert time.monotonic() < limit, flow_run["state"]
        time.sleep(1)
        flow_run = command.prefect(f"flow_runs/{flow_run['id']}")
    among = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
    tasks = command.prefect("task_runs/filter", **among)
    return flow_run["state_name"], sorted(task["state_name"] for task in tasks)


@pytest.mark.slow
def test_a_worker_elsewhere_runs_the_whole_and_then_one_stage(deployed):
    command, _ = deployed
    config = load_config(tiny=True).model_dump(mode="json")
    state, tasks = run_deployment(command, "transfer-learning", config=config)
    assert (state, set(tasks)) == ("Completed", {"Completed"})
    state, tasks = run_deployment(command, "evaluate", config=config)
    assert (state, tasks) == ("Completed", ["Cached"] * (len(tasks) - 1) + ["Completed"])


@pytest.mark.slow
def test_deploying_again_changes_nothing(deployed):
    command, prefect = deployed
    prefect("deploy", "--all")
    found = command.prefect("deployments/filter", limit=50)
    assert sorted(entry["name"] for entry in found) == sorted(DEPLOYMENTS)
    nightly = next(entry for entry in found if entry["name"] == "nightly-retrain")
    assert [s["schedule"]["cron"] for s in nightly["schedules"]] == ["0 2 * * *"]
    assert str(ROOT) not in json.dumps([entry["entrypoint"] for entry in found])


# --- nights ---


def night_settings(inbox):
    config = load_config(None, [f"nightly.inbox={inbox}", "nightly.settle_seconds=0"], tiny=True)
    return config.model_dump(mode="json")


def deliver(inbox, name):
    """Twenty images that MNIST does not have."""
    inbox.mkdir(exist_ok=True)
    mnist = load_dataset("mnist")
    images = mnist.x_train[:20].copy()
    images[:, 0] = 1
    np.savez(inbox / name, x=images, y=mnist.y_train[:20])


def wait_until(condition):
    limit = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < limit
        time.sleep(1)
    return found


def completed(store):
    """The completed nights of a store, oldest first."""
    return [night for night in load_nights(store) if night.status == "completed"][::-1]


ALIVE = ("SCHEDULED", "PENDING", "RUNNING")


def start_night(command, folder, days_ago=0):
    """Makes a night that was due some days ago; what tells its state."""
    deployment = command.prefect("deployments/name/nightly-retrain/nightly-retrain")
    due = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
    flow_run = command.prefect(
        f"deployments/{deployment['id']}/create_flow_run",
        parameters={"config": night_settings(folder / "inbox"), "store": str(folder / "store")},
        state={"type": "SCHEDULED", "state_details": {"scheduled_time": due}},
    )
    return lambda: command.prefect(f"flow_runs/{flow_run['id']}")


def end_of(night):
    """The name of the state that a night ends in."""
    wait_until(lambda: night()["state_type"] not in ALIVE)
    return night()["state_name"]


@pytest.mark.slow
def test_of_the_nights_a_worker_missed_one_is_caught_up_with(deployed, tmp_path):
    command, _ = deployed
    names = [end_of(night) for night in [start_night(command, tmp_path, d) for d in (3, 2, 1)]]
    assert names.count("Completed") == 1
    assert set(names) <= {"Completed", "Skipped", "Cancelled"}
    assert end_of(start_night(command, tmp_path, days_ago=1)) == "Skipped"
    assert len(completed(tmp_path / "store")) == 1


@pytest.mark.slow
def test_a_night_that_overlaps_the_one_before_is_cancelled(deployed, tmp_path):
    command, _ = deployed
    first = start_night(command, tmp_path)
    wait_until(lambda: first()["state_type"] == "RUNNING")
    assert end_of(start_night(command, tmp_path)) == "Cancelled"
    assert end_of(first) == "Completed"


@pytest.mark.slow
def test_a_schedule_fires_again_and_retrains_only_what_new_data_touches(deployed, tmp_path):
    command, prefect = deployed
    inbox, store = tmp_path / "inbox", tmp_path / "store"
    document = yaml.safe_load(FILE.read_text())
    night = dict(DEPLOYMENTS["nightly-retrain"]) | {
        "name": "short-night",
        "schedules": [{"interval": 10, "active": True}],
        "parameters": {"config": night_settings(inbox), "store": str(store)},
    }
    file = prefect.folder / "short.yaml"
    file.write_text(yaml.safe_dump(document | {"deployments": [night]}))
    prefect("deploy", "--all", "--prefect-file", file.name)
    try:
        wait_until(lambda: len(completed(store)) >= 2)
        deliver(inbox, "today.npz")
        wait_until(lambda: completed(store)[-1].accepted)
    finally:
        prefect("deployment", "delete", "nightly-retrain/short-night")
    first, second, *_, last = completed(store)
    assert (first.promoted, first.accepted) == (True, 0)
    assert second.why == "nothing new: the challenger is the champion"
    assert (last.accepted, last.challenger == first.challenger) == (20, False)


@pytest.mark.slow
def test_serving_needs_no_pool_catches_up_and_fires(headstart, tmp_path):
    headstart("ui")
    inbox = tmp_path / "inbox"
    long_ago = begin_night(datetime.now(UTC) - timedelta(days=7))
    save_night(headstart.store, long_ago.model_copy(update={"status": "completed"}))
    deliver(inbox, "today.npz")
    settings = ("--set", f"nightly.inbox={inbox}", "--set", "nightly.settle_seconds=0")
    serving = headstart.start("serve", "--tiny", *settings, "--cron", "* * * * *", cwd=tmp_path)
    try:
        wait_until(lambda: len(completed(headstart.store)) >= 3)
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=60)
    _, caught_up, scheduled, *_ = completed(headstart.store)
    assert (caught_up.accepted, caught_up.promoted) == (20, True)
    assert scheduled.why == "nothing new: the challenger is the champion"

"""The deployments of prefect.yaml, deployed as they stand and run by a worker."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from models.config import load_config

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "prefect.yaml"
DEPLOYMENTS = {entry["name"]: entry for entry in yaml.safe_load(FILE.read_text())["deployments"]}
LIMIT = 300


def test_no_path_of_a_machine_is_in_the_file():
    words = FILE.read_text().replace('"', " ").replace("'", " ").split()
    assert not [word for word in words if word.startswith(("/", "~", "file:"))]
    assert {entry["entrypoint"] for entry in DEPLOYMENTS.values()} == {
        "flows.transfer_learning.transfer_learning"
    }


def test_nightly_is_at_two_in_a_named_timezone():
    (schedule,) = DEPLOYMENTS["nightly"]["schedules"]
    assert schedule["cron"] == "0 2 * * *"
    assert schedule["timezone"]
    assert schedule["active"] is True


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
    state, tasks = run_deployment(command, "full", config=config)
    assert (state, set(tasks)) == ("Completed", {"Completed"})
    again = {"config": config, "rerun": {"only": "evaluate"}}
    state, tasks = run_deployment(command, "rerun-stage", **again)
    assert (state, tasks) == ("Completed", ["Cached"] * (len(tasks) - 1) + ["Completed"])


@pytest.mark.slow
def test_deploying_again_changes_nothing(deployed):
    command, prefect = deployed
    prefect("deploy", "--all")
    found = command.prefect("deployments/filter", limit=50)
    assert sorted(entry["name"] for entry in found) == sorted(DEPLOYMENTS)
    nightly = next(entry for entry in found if entry["name"] == "nightly")
    assert [s["schedule"]["cron"] for s in nightly["schedules"]] == ["0 2 * * *"]
    assert str(ROOT) not in json.dumps([entry["entrypoint"] for entry in found])

import inspect
import json
import os
import pty
import signal
import time
import tomllib

import numpy as np
import pytest

from artifacts.runs import RunRecord, report_path, save_run
from flows import cli
from flows.selection import read_graph
from models import datasets
from models.config import Config

STAGES = list(read_graph(Config()))
COMMANDS = [name for name in cli.app if not name.startswith("-")]
TARGETS = "data.target_classes"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "store"


def call(*arguments):
    return cli.run_command(arguments)


def write_images(path, **changed):
    """A small dataset of ten classes, some of its arrays exchanged."""
    labels = np.arange(100) % 10
    arrays = {f"x_{part}": np.ones((100, 4), np.float32) for part in ("train", "test")}
    arrays |= {f"y_{part}": labels for part in ("train", "test")}
    np.savez(path, **(arrays | changed))
    return path


def assert_refused(capsys, store, *parts):
    """One clear message on stderr, nothing else anywhere."""
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines
    assert all(line.startswith("headstart: ") for line in lines)
    assert all(part in err for part in parts), err
    assert not store.exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--set", "pretrain.patince=3"], ["pretrain.patince", "pretrain.patience?"]),
        (["--set", "network.units=many"], ["network.units = many", "integer"]),
        (["--set", "network.dropout=nan"], ["network.dropout = nan"]),
        (["--set", "run.seed"], ["--set run.seed", "section.field=value"]),
        (["--seed", "-1"], ["run.seed = -1"]),
        (["--seed", "x"], ["--seed"]),
        (["--set", f"{TARGETS}=4,5"], ["overlap", "4"]),
        (["--set", f"{TARGETS}=5,11"], [TARGETS, "class 11", "0 to 9"]),
        (["--set", "data.few_shot=99999"], ["data.few_shot", "class 5 has only 4987"]),
        (["--set", "data.dataset=nmist"], ["'nmist'", "did you mean mnist?"]),
        (["--config", "missing.toml"], ["missing.toml", "No such file"]),
        (["--only", "pretrian"], ["'pretrian'", "did you mean pretrain?"]),
        (["--only", "evaluate"], ["lacks load-dataset", "--with-upstream"]),
        (["--tyni"], ["--tyni", "--tiny"]),
        (["everything"], ["everything"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_named_and_nothing_written(capsys, store, arguments, parts):
    assert call("run", *arguments) == cli.BAD_INPUT
    assert_refused(capsys, store, *parts)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"x_train": np.full((100, 4), np.nan, np.float32)}, "x_train"),
        ({"x_test": np.ones((100, 3), np.float32)}, "x_test"),
        ({"y_train": np.zeros(99, np.int64)}, "y_train"),
        ({"y_test": np.arange(100) % 5}, "test images"),
    ],
    ids=["non-finite", "columns", "rows", "empty-class"],
)
def test_bad_data_is_named_and_nothing_written(capsys, store, tmp_path, changed, part):
    path = write_images(tmp_path / "images.npz", **changed)
    small = ["data.validation_rows=20", "data.few_shot=2", "data.few_shot_validation=1"]
    options = [word for setting in small for word in ("--set", setting)]
    assert call("run", "--set", f"data.dataset={path}", *options) == cli.BAD_INPUT
    assert_refused(capsys, store, part)


def test_a_dataset_cut_short_is_named_and_nothing_written(capsys, store, tmp_path):
    path = write_images(tmp_path / "images.npz")
    path.write_bytes(path.read_bytes()[:-500])
    assert call("run", "--set", f"data.dataset={path}") == cli.BAD_INPUT
    assert_refused(capsys, store, str(path))


@pytest.mark.parametrize("command", ["run", "status", "fetch"])
def test_a_dataset_that_is_not_on_this_machine_is_named_with_what_to_do(
    capsys, store, tmp_path, monkeypatch, command
):
    def fail():
        raise OSError

    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setitem(datasets.FETCHERS, "fashion-mnist", fail)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    options = ["fashion-mnist"] if command == "fetch" else ["--set", "data.dataset=fashion-mnist"]
    assert call(command, *options) == cli.BAD_INPUT
    wanted = "dataset fashion-mnist: not in", str(tmp_path / "keras"), "apt install dataset-fashion"
    assert_refused(capsys, store, *wanted)


def test_all_problems_are_told_at_once(capsys, store, tmp_path):
    (tmp_path / "bad.toml").write_text("[network]\nlayers = 3\n[training]\n")
    wrong = ["run.seed=-1", "pretrain.patience=x", "data"]
    options = [word for setting in wrong for word in ("--set", setting)]
    assert call("run", "--config", str(tmp_path / "bad.toml"), *options) == cli.BAD_INPUT
    parts = ["network.layers", "training", "run.seed", "pretrain.patience", "--set data"]
    assert_refused(capsys, store, *parts)


@pytest.mark.parametrize("command", ["run", "status", "runs", "verify"])
def test_a_file_is_no_store(capsys, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    call(command, "--store", str(tmp_path / "file"))
    _, err = capsys.readouterr()
    assert "Traceback" not in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_store_that_cannot_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "store"
    assert call("run", "--tiny", "--store", str(place)) == cli.BAD_INPUT
    assert_refused(capsys, place, str(place), "Not a directory", "HEADSTART_STORE")


def test_an_unknown_command_gets_the_nearest_one(capsys, store):
    assert call("stauts") == cli.BAD_INPUT
    assert_refused(capsys, store, "stauts", "status")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_what_a_command_does_and_takes(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    assert call(command, "--help") == cli.DONE
    shown = capsys.readouterr().out
    function = cli.app[command].default_command
    assert inspect.getdoc(function).splitlines()[0] in shown
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    assert len(rows) == len(inspect.signature(function).parameters)


def test_the_version_is_the_packages(capsys):
    assert call("--version") == cli.DONE
    with open("pyproject.toml", "rb") as file:
        assert capsys.readouterr().out.strip() == tomllib.load(file)["project"]["version"]


def test_config_prints_what_config_reads(capsys, tmp_path):
    call("config", "--tiny", "--seed", "7", "--set", "network.activation=selu")
    printed = capsys.readouterr().out
    (tmp_path / "config.toml").write_text(printed)
    call("config", "--config", str(tmp_path / "config.toml"))
    assert capsys.readouterr().out == printed
    assert tomllib.loads(printed)["run"]["seed"] == 7


@pytest.mark.parametrize("command", ["runs", "verify", "gc"])
def test_an_empty_store_is_no_error(capsys, store, command):
    assert call(command) == cli.DONE
    assert capsys.readouterr().out
    assert call(command, "--json") == cli.DONE
    json.loads(capsys.readouterr().out)
    assert not store.exists()


@pytest.mark.parametrize(
    "arguments",
    [["show", "latest"], ["show", "pretrain"], ["diff", "latest", "latest"], ["lineage", "a"]],
    ids=" ".join,
)
def test_what_is_not_in_the_store_is_named(capsys, store, arguments):
    assert call(*arguments) == cli.BAD_INPUT
    assert_refused(capsys, store, repr(arguments[1]), str(store))


@pytest.mark.parametrize("arguments", [["--keep-runs", "-1"], ["--older-than", "week"]])
def test_gc_refuses_what_makes_no_sense(capsys, store, arguments):
    assert call("gc", *arguments) == cli.BAD_INPUT
    assert_refused(capsys, store, *arguments)


def test_status_of_an_empty_store_says_that_nothing_ran(capsys, store):
    assert call("status", "--json") == cli.DONE
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["name"] for stage in stages] == STAGES
    assert {stage["state"] for stage in stages} == {"run", "open"}
    assert stages[0]["reasons"] == ["never ran"]


# --- with a finished shrunk run -----------------------------------------------------------


def digests(document):
    return {stage["name"]: stage["digest"] for stage in document["stages"]}


def states(document):
    return {stage["name"]: stage["state"] for stage in document["stages"]}


def test_a_run_ends_with_every_stage_and_result(finished):
    command, document = finished
    assert list(states(document)) == STAGES
    assert set(states(document).values()) == {"ran"}
    assert document["seconds"] > 0
    for result in document["results"]:
        assert 0 <= result["low"] <= result["accuracy"] <= result["high"] <= 1
    flow_run = command.prefect(f"flow_runs/{document['flow_run_id']}")
    assert flow_run["state_name"] == "Completed"


def test_a_second_run_computes_nothing_and_imports_neither_prefect_nor_tensorflow(tiny, finished):
    code = (
        "import sys\n"
        "from flows.cli import run_command\n"
        "run_command(['run', '--tiny', '--json'])\n"
        "heavy = {'tensorflow', 'keras', 'prefect'} & set(sys.modules)\n"
        "print('imported:', *heavy, file=sys.stderr)\n"
    )
    out, err = tiny.start_python("-c", code).communicate(timeout=60)
    again = json.loads(out)
    assert set(states(again).values()) == {"cached"}
    assert digests(again) == digests(finished[1])
    assert again["results"] == finished[1]["results"]
    assert err.splitlines()[-1].split() == ["imported:"]


def test_a_recorded_run_of_nothing_is_completed_with_every_task_cached(tiny, finished):
    again = tiny.json("run", "--tiny", "--record")
    assert digests(again) == digests(finished[1])
    assert again["flow_run_id"] != finished[1]["flow_run_id"]
    flow_run = tiny.prefect(f"flow_runs/{again['flow_run_id']}")
    assert flow_run["state_name"] == "Completed"
    among = {"flow_runs": {"id": {"any_": [again["flow_run_id"]]}}}
    tasks = tiny.prefect("task_runs/filter", **among)
    assert [task["state_name"] for task in tasks] == ["Cached"] * len(STAGES)


def test_one_stage_asked_for_is_computed_alone(tiny, finished):
    again = tiny.json("run", "--tiny", "--refresh", "evaluate")
    assert states(again) == {n: "ran" if n == "evaluate" else "cached" for n in STAGES}
    assert digests(again) == digests(finished[1])
    reasons = {stage["name"]: stage["why"] for stage in again["stages"]}
    assert reasons == {name: ["asked for"] if name == "evaluate" else [] for name in STAGES}


def test_a_first_run_says_why_each_stage_ran(finished):
    reasons = {stage["name"]: stage["why"] for stage in finished[1]["stages"]}
    assert reasons["load-dataset"] == ["never ran"]
    assert reasons["export-checkpoint"] == ["input pretrain ran"]
    assert reasons["pretrain"] == ["inputs load-dataset, split-source ran"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["--only", "pretrain"], {"pretrain": "run"}),
        (["--refresh", "split-source", "--refresh", "publish"], {"publish": "run"}),
        (["--from", "fine-tune"], {"fine-tune": "run", "evaluate": "run", "publish": "run"}),
        (["--no-cache"], dict.fromkeys(STAGES, "run")),
        (["--seed", "7"], {"pretrain": "run", "split-source": "cached", "publish": "open"}),
        (["--set", "evaluate.confidence=0.9"], {"evaluate": "run", "publish": "open"}),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_a_dry_run_tells_what_would_run(capsys, tiny, options, expected):
    before = sorted(tiny.store.rglob("*"))
    call("run", "--tiny", "--dry-run", "--json", *options, "--store", str(tiny.store))
    found = states(json.loads(capsys.readouterr().out))
    assert found.items() >= expected.items()
    if "--only" in options:
        assert set(found) == {"load-dataset", "split-source", "pretrain"}
    if not options:
        assert set(found.values()) == {"cached"}
    assert sorted(tiny.store.rglob("*")) == before


def test_only_with_upstream_wants_no_more_than_the_stage_needs(capsys, store):
    call("run", "--tiny", "--dry-run", "--json", "--only", "pretrain", "--with-upstream")
    found = states(json.loads(capsys.readouterr().out))
    assert list(found) == ["load-dataset", "split-source", "pretrain"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--tiny"],
        ["runs"],
        ["show", "latest"],
        ["show", "pretrain"],
        ["diff", "latest", "latest"],
        ["lineage", "evaluate"],
        ["verify"],
        ["gc", "--dry-run"],
        ["run", "--tiny"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("columns", ["40", "100"])
def test_each_command_looks_into_a_store(capsys, monkeypatch, finished, arguments, columns):
    monkeypatch.setenv("HEADSTART_STORE", str(finished[0].store))
    monkeypatch.setenv("COLUMNS", columns)
    assert call(*arguments) == cli.DONE
    shown = capsys.readouterr().out
    assert shown.strip()
    assert "…" not in shown
    assert call(*arguments, "--json") == cli.DONE
    json.loads(capsys.readouterr().out)


def test_a_store_may_have_any_name(tiny, tmp_path):
    place = tiny.store.rename(tmp_path / "my störe [1]")
    done = tiny("run", "--tiny", "--store", str(place))
    assert f"Results are in {place}\n" in done.stderr


def test_verify_names_the_damaged_entry(capsys, tiny):
    weights = next(tiny.store.glob("pretrain/*/classifier/weights.npz"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert call("verify", "--store", str(tiny.store)) == cli.FAILED
    shown = capsys.readouterr().out
    assert f"pretrain/{weights.parent.parent.name}: classifier/weights.npz is damaged" in shown
    assert "1 damaged" in shown


@pytest.mark.parametrize("command", ["status --tiny", "show latest", "config", "run --tiny"])
def test_a_reader_who_leaves_early_is_no_error(finished, command):
    # A pipe whose other end is closed, as `head -1` leaves it, but before the first line.
    reader, writer = os.pipe()
    os.close(reader)
    process = finished[0].start(*command.split(), stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode == cli.DONE
    assert "Error" not in err


def test_results_that_find_no_room_are_an_error(headstart):
    with open("/dev/full", "w") as full:
        done = headstart("config", stdout=full)
    assert done.returncode == cli.FAILED
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(finished, variables, coloured):
    master, slave = pty.openpty()
    variables = variables | {"TERM": "xterm-256color"}
    process = finished[0].start("status", "--tiny", env=variables, stdout=slave)
    process.communicate(timeout=60)
    os.close(slave)
    shown = os.read(master, 100_000)
    os.close(master)
    assert b"cached" in shown
    assert (b"\x1b[36m" in shown) is coloured


LONGER = ["run", "--tiny", "--only", "pretrain"]
LONGER += ["--set", "pretrain.max_epochs=500", "--set", "pretrain.patience=500"]


@pytest.fixture
def interrupted(tiny, tmp_path):
    """A run that got Ctrl-C while it trained: its exit code and what it said."""
    with (tmp_path / "log").open("w") as log:
        process = tiny.start(*LONGER, stderr=log)
        while not list(tiny.store.glob(".state/pretrain/*/*.npz")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    return process.returncode, (tmp_path / "log").read_text().splitlines()


def test_an_interruption_is_told_in_one_line(interrupted):
    code, said = interrupted
    assert code == cli.INTERRUPTED
    assert said[-1].startswith("headstart: interrupted")
    assert said[-2].startswith("pretrain: ")


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_result(interrupted, tiny):
    resumed, undisturbed = tiny.json(*LONGER), tiny.json(*LONGER)
    assert states(resumed)["pretrain"] == "resumed"
    assert states(undisturbed)["pretrain"] == "ran"
    assert digests(undisturbed) == digests(resumed)


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(headstart):
    processes = [headstart.start("run", "--tiny", "--json") for _ in range(2)]
    first, second = (json.loads(process.communicate(timeout=300)[0]) for process in processes)
    assert digests(first) == digests(second)
    ran = [[n for n, state in states(run).items() if state == "ran"] for run in (first, second)]
    assert sorted(ran[0] + ran[1]) == sorted(STAGES)


@pytest.fixture
def opened(monkeypatch):
    """The addresses that the browser was told to open."""
    addresses = []
    monkeypatch.setattr("webbrowser.open", addresses.append)
    return addresses


@pytest.mark.parametrize("status", ["completed", "failed", "running"])
def test_a_runs_report_is_made_printed_and_opened(capsys, store, opened, status):
    started = "2026-11-22T00:00:00.000+00:00"
    record = RunRecord(run="20261122-000000-abcd", started=started, status=status)
    save_run(store, record)
    assert call("show", "2026", "--open") == cli.DONE
    out, err = capsys.readouterr()
    path = report_path(store, record.run)
    assert (out, err) == (f"Report: {path}\n", "")
    assert opened == [path.as_uri()]
    # Its process is gone: nothing holds its lock.
    assert ("process died" in path.read_text()) is (status == "running")


def test_a_report_says_its_path_to_programs(capsys, store, opened):
    save_run(store, RunRecord(run="a-run", started="2026-11-22T00:00:00.000+00:00"))
    assert call("show", "latest", "--open", "--json") == cli.DONE
    assert json.loads(capsys.readouterr().out) == {"report": str(report_path(store, "a-run"))}


def test_a_report_of_no_run_is_refused(capsys, store, opened):
    assert call("show", "pretrain", "--open") == cli.BAD_INPUT
    assert_refused(capsys, store, "no run 'pretrain'")
    assert not opened

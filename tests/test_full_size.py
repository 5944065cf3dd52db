"""The real thing: the whole of MNIST, from the command line, as a newcomer runs it."""

import json
import resource
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow


def digests(document):
    return {stage["name"]: stage["digest"] for stage in document["stages"]}


def report(capsys, text):
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")


@pytest.fixture(scope="module")
def full_size(headstart_at, tmp_path_factory):
    """A cold run at full size: the command, what it printed, its seconds."""
    command = headstart_at(tmp_path_factory.mktemp("full"))
    began = time.monotonic()
    document = command.json("run")
    return command, document, time.monotonic() - began


def test_the_cold_run_reaches_what_readme_promises(full_size, capsys):
    command, document, seconds = full_size
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    stages = ", ".join(f"{s['name']} {s['seconds']:.1f}" for s in document["stages"])
    report(capsys, f"cold run: {seconds:.1f} s, peak {peak:.2f} GB ({stages})")
    results = {result["name"]: result for result in document["results"]}
    # The lowest of ten seeds in README, less a little for another machine's rounding.
    assert results["pretrained"]["accuracy"] >= 0.994
    assert results["full fine-tuning"]["accuracy"] >= 0.975
    assert results["full fine-tuning"]["accuracy"] > results["from scratch"]["accuracy"]
    assert results["from scratch"]["accuracy"] > results["softmax on pixels"]["accuracy"]


def test_the_published_protocol_gives_what_was_published(full_size, tmp_path):
    document = full_size[0].with_store(tmp_path).json("run", "--preset", "published")
    results = {result["name"]: result for result in document["results"]}
    printed = {"pretrained", "head on hidden4", "head on hidden5", "from scratch"}
    assert {name for name, result in results.items() if "published_low" in result} == printed
    for name in printed:
        assert results[name]["accuracy"] >= results[name]["published_low"], results[name]
    assert len([name for name in results if name.startswith("head on ")]) == 5


def test_the_flow_run_is_completed_in_prefects_database(full_size):
    command, document, _ = full_size
    flow_run = command.prefect(f"flow_runs/{document['flow_run_id']}")
    assert flow_run["state_name"] == "Completed"
    command("ui", "--stop")


def test_the_second_run_computes_nothing(full_size, capsys):
    command, document, _ = full_size
    began = time.monotonic()
    again = command.json("run")
    report(capsys, f"second run: {time.monotonic() - began:.2f} s")
    assert {stage["state"] for stage in again["stages"]} == {"cached"}
    assert digests(again) == digests(document)
    assert again["results"] == document["results"]


def test_a_fresh_store_gives_the_same_bits(full_size, headstart_at, tmp_path):
    _, document, _ = full_size
    other = headstart_at(tmp_path)
    assert digests(other.json("run")) == digests(document)
    assert {s.read_bytes() for c in (other, full_size[0]) for s in weights(c)} == {
        s.read_bytes() for s in weights(other)
    }


def weights(command):
    return command.store.glob("pretrain/*/classifier/weights.npz")


def run_alone(code, *arguments):
    """Runs code in a process that has none of this project's modules."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd="/",
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_saved_model_serves_with_tensorflow_alone(full_size):
    (folder,) = full_size[0].store.glob("export-checkpoint/*/saved_model")
    code = """
import json, sys
import tensorflow as tf

serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
(name,) = serve.structured_input_signature[1]
answers = [serve(**{name: tf.zeros([rows, 784])}) for rows in (1, 1000)]
shapes = [{key: list(value.shape) for key, value in answer.items()} for answer in answers]
own = {"models", "tasks", "flows", "artifacts", "prefect"} & set(sys.modules)
print(json.dumps({"shapes": shapes, "own": sorted(own)}))
"""
    found = run_alone(code, str(folder))
    assert found["own"] == []
    for rows, shapes in zip((1, 1000), found["shapes"], strict=True):
        assert shapes
        assert all(shape[0] == rows for shape in shapes.values())


def test_the_keras_file_loads_in_safe_mode(full_size):
    (file,) = full_size[0].store.glob("export-checkpoint/*/model.keras")
    code = """
import sys
import keras

model = keras.saving.load_model(sys.argv[1], safe_mode=True)
print(list(model.output_shape[1:]))
"""
    assert run_alone(code, str(file)) == [5]

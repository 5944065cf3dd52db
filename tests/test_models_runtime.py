"""How TensorFlow is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.fingerprint import ROOT

START = (
    "import os; from models.runtime import start_xla; start_xla(); print(os.environ['XLA_FLAGS'])"
)


@pytest.mark.parametrize("width", [512, 128])
def test_xla_starts_with_options_for_speed_unless_the_user_says_otherwise(
    tmp_path: Path, width: int
) -> None:
    given = f"--xla_dump_to={tmp_path}"
    if width != 512:
        given += f" --xla_cpu_prefer_vector_width={width}"
    done = subprocess.run(
        [sys.executable, "-c", START],
        env={**os.environ, "XLA_FLAGS": given},
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    (options,) = tmp_path.glob("*.debug_options")
    settings = options.read_text().splitlines()
    assert f"xla_cpu_prefer_vector_width: {width}" in settings
    assert "xla_cpu_copy_insertion_use_region_analysis: true" in settings
    assert '  key: "xla_cpu_use_multi_output_fusion"' in settings
    assert done.stdout.strip() == given


# An interrupt at any instant of making tensors, over and over.
INTERRUPTED = """
import signal
import tensorflow as tf
import models.runtime

class Interrupt(Exception):
    pass

def interrupt(number, frame):
    raise Interrupt

tf.constant(0)
signal.signal(signal.SIGALRM, interrupt)
for attempt in range(20_000):
    try:
        # Again after a second, if it comes where Python passes over it.
        signal.setitimer(signal.ITIMER_REAL, (20 + attempt % 97) / 1e6, 1)
        while True:
            tf.constant(attempt)
    except (Interrupt, RuntimeError):
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_an_interrupt_while_a_tensor_is_made_does_not_crash() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        check=False,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr

"""TensorFlow as this process runs it: threads, XLA's options, and safe to be interrupted."""

import os
import threading
from functools import cache
from operator import attrgetter

import tensorflow as tf
from tensorflow.python.eager.context import Context

# TensorFlow's C code reads this for every tensor it makes of a number, and takes for granted that
# it gets it. TensorFlow's own getter is Python code, in which an interrupt can be raised: then the
# process crashes. In this one no Python code runs.
Context._handle = property(attrgetter("_context_handle"))

# Vectors as wide as the processor has them take a seventh off an epoch. So, on some processors,
# does looking closer at which weights a step has to copy. Loops that give more than one result
# take off a tenth, most of it in Adam's update, and change the last bits.
_XLA_OPTIONS = (
    "--xla_cpu_prefer_vector_width=512",
    "--xla_cpu_copy_insertion_use_region_analysis=true",
    "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion",
)
_starting = threading.Lock()


def use_threads(threads: int) -> None:
    """Fixes how many threads one operation may use, since the last bits depend on it.

    Raises:
        RuntimeError: If TensorFlow has started with another number in this process.
    """
    if tf.config.threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        msg = (
            f"run.threads = {threads}, but TensorFlow has started in this process with another "
            "number; run it in a process of its own"
        )
        raise RuntimeError(msg) from None


def start_xla() -> None:
    """Starts TensorFlow's XLA with options for speed, unless it runs already.

    It reads ``XLA_FLAGS`` once in a process. What the user has there comes last, so it counts;
    afterwards it is as it was, since another library's XLA may not know these options.
    """
    with _starting:
        _start_xla_once()


@cache
def _start_xla_once() -> None:
    given = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = " ".join([*_XLA_OPTIONS, given or ""])
    try:
        tf.function(lambda: tf.constant(0), jit_compile=True, autograph=False)()
    finally:
        if given is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = given

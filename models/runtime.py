"""TensorFlow as this process runs it."""

import tensorflow as tf


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

"""Importing large libraries: in less time, and without their remarks on this machine."""

import contextlib
import gc
import os
import tempfile
from collections.abc import Iterator

# TensorFlow's own remarks about this machine are for its developers.
QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3"}


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Keeps the garbage collector from what is imported meanwhile, and ever after.

    Imported modules live as long as the process. To look through them for garbage again and
    again takes a third of the time of the imports, and slows whatever runs later.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def import_libraries() -> None:
    """Imports what takes long while the server starts, which takes longer still."""
    for name, value in QUIET_TENSORFLOW.items():
        os.environ.setdefault(name, value)
    with importing(), tempfile.TemporaryFile() as said:
        # It remarks on this machine before its own settings can keep it from that.
        terminal = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            import matplotlib.figure  # noqa: F401
            import tensorflow  # noqa: F401
        except Exception:
            said.seek(0)
            os.write(terminal, said.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)

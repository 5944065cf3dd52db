"""Being asked to stop, whatever became of the exception that told it; and ending at once.

A signal becomes an exception wherever the program happens to be, and code in between may make
another one of it: an interrupt inside one of pydantic's serializers comes out as a ValueError. So
the signals themselves are noted, by Python's wakeup descriptor, whoever handles them.
"""

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn

# Kept for the life of the process: the reading and the writing end.
_noted: list[int] = []


class Terminated(BaseException):
    """Somebody asked this process to end."""


def heed() -> None:
    """Notes signals from now on, and takes SIGTERM for an exception; only in the main thread."""
    signal.signal(signal.SIGTERM, _terminate)
    if not _noted:
        _noted.extend(os.pipe())
        for end in _noted:
            os.set_blocking(end, False)
    signal.set_wakeup_fd(_noted[1], warn_on_full_buffer=False)


def meant(error: BaseException) -> BaseException:
    """What an exception stands for: an interrupt if it arose while one was under way."""
    if isinstance(error, Exception) and _noted:
        try:
            numbers = os.read(_noted[0], 4096)
        except BlockingIOError:
            return error
        if signal.SIGINT in numbers:
            return KeyboardInterrupt()
        if signal.SIGTERM in numbers:
            return Terminated()
    return error


def leave(code: int) -> NoReturn:
    """Ends the process at once.

    Python would wait for what threads still compute, and take a second and more to take
    TensorFlow apart.
    """
    # Prefect sends its last logs, temporary files are removed.
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to have both
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _terminate(number: int, frame: object) -> None:
    raise Terminated

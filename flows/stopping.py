"""Being asked to stop, whatever became of the exception that told it; and ending at once.

A signal becomes an exception wherever the program happens to be, and code in between may make
another one of it: an interrupt inside one of pydantic's serializers comes out as a ValueError. So
the signals themselves are noted, by Python's wakeup descriptor, whoever handles them. Where Python
only reports an exception and goes on, as in the callback of a weak reference, the signal is sent
again.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    # Which Python has for type checkers alone.
    from sys import UnraisableHookArgs

# Kept for the life of the process: the reading and the writing end.
_noted: list[int] = []

# Seconds after which a signal is sent again; by then what swallowed its exception is over.
_AGAIN = 0.01


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
    sys.unraisablehook = _send_again


def meant(error: BaseException) -> BaseException:
    """What an exception stands for: an interrupt if it arose while one was under way."""
    if isinstance(error, Exception):
        match _last_noted():
            case signal.SIGINT:
                return KeyboardInterrupt()
            case signal.SIGTERM:
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


def _last_noted() -> int | None:
    """The signal to stop that has come since this was last asked."""
    numbers = b""
    if _noted:
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(_noted[0], 4096)
    return next((each for each in (signal.SIGINT, signal.SIGTERM) if each in numbers), None)


def _send_again(unraisable: "UnraisableHookArgs") -> None:
    stopping = not isinstance(unraisable.exc_value, Exception)
    number = _last_noted() if stopping else None
    if number is None:
        sys.__unraisablehook__(unraisable)
        return
    # Sent to the main thread, a signal also ends its waiting for another.
    main = threading.main_thread().ident
    sender = threading.Timer(_AGAIN, signal.pthread_kill, (main, number))
    sender.daemon = True
    sender.start()


def _terminate(number: int, frame: object) -> None:
    raise Terminated

"""Stages that run beside others, each line of them in a thread of its own."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import NoReturn, TypeVar

from models.interruption import called_off
from tasks.progress import Event

Result = TypeVar("Result")


class Abandoned(BaseException):
    """What a stage beside is for has come to an end without it."""


class Lanes:
    """Lines of work beside the main one.

    A lane that is abandoned ends at once while its stage waits for an epoch, else when the stage
    next tells of its progress; what it has kept until then, a later run goes on from.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        # Fails once the lanes are abandoned.
        self._over: Future[NoReturn] = Future()

    def begin(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begins some work beside what comes next.

        Args:
            work: Called at once in a thread of its own, in this one's context.

        Returns:
            A function that waits for the work's result, or raises what the work raised.
        """
        future: Future[Result] = Future()

        def run() -> None:
            called_off.set(self._over)
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where somebody waits for it
                future.set_exception(error)

        # Not of a pool: nobody waits for a lane when the process ends.
        context = copy_context()
        thread = threading.Thread(target=context.run, args=(run,), daemon=True, name="lane")
        self._threads.append(thread)
        thread.start()
        return future.result

    def __call__(self, event: Event) -> None:
        """Heeds the progress of a stage: ends it if it is in an abandoned lane."""
        if self.abandoned and self.inside:
            self._over.result()

    def abandon(self, patience: float | None) -> None:
        """Asks every lane to end, and waits for that so many seconds at most; None is for ever."""
        if not self.abandoned:
            self._over.set_exception(Abandoned())
        limit = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            thread.join(None if limit is None else max(0.0, limit - time.monotonic()))

    @property
    def inside(self) -> bool:
        """Whether a lane asks this."""
        return threading.current_thread() in self._threads

    @property
    def abandoned(self) -> bool:
        """Whether the lanes were asked to end."""
        return self._over.done()

"""Computing for long so that it can be ended meanwhile."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")

# Fails as soon as whoever has this context shall wait no longer for what it has computed.
called_off: ContextVar[Future[NoReturn] | None] = ContextVar("called_off", default=None)


@contextmanager
def interruptibly() -> Iterator[Callable[[Callable[[], Result]], Result]]:
    """Gives what calls functions that compute for long; can be ended meanwhile.

    Python handles signals in its main thread, between its own instructions, and no thread can end
    another one. So whoever calls only waits for another thread: until it is done, a signal comes,
    or ``called_off`` fails. The computation goes on to its end even if nobody waits any more.
    """
    pool = ThreadPoolExecutor(1)
    ended = called_off.get()

    def call(function: Callable[[], Result]) -> Result:
        computed = pool.submit(copy_context().run, function)
        awaited: list[Future[Any]] = [computed, ended] if ended else [computed]
        wait(awaited, return_when=FIRST_COMPLETED)
        if ended and ended.done():
            ended.result()
        return computed.result()

    try:
        yield call
    finally:
        pool.shutdown(wait=False)

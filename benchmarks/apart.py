"""Contenders in processes of their own: no other's threads are in the way, and each has its own."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Self

# Makes, in the process, what is to be timed; a function of some module, or a ``partial`` of one.
Maker = Callable[[], Callable[[], object]]


class Apart:
    """A contender in a process of its own, which ends with the block."""

    def __init__(self, make: Maker) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make), daemon=True)
        self._process.start()
        # Else there would be no end to wait for if the process died.
        there.close()

    def find_missing(self) -> str:
        """Waits until the contender is made; the library it lacks, or nothing."""
        return str(self._pipe.recv())

    def run(self) -> None:
        """Runs the contender once.

        Raises:
            EOFError: If it failed; what it says is on standard error.
        """
        self._pipe.send(None)
        self._pipe.recv()

    def __enter__(self) -> Self:
        """Gives the contender."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()


@contextmanager
def bring(makers: Mapping[str, Maker]) -> Iterator[tuple[dict[str, Callable[[], None]], list[str]]]:
    """Makes contenders, each in a process, for the time of the block.

    Yields:
        How to run each of them, and those that are not installed, with what they lack.
    """
    with ExitStack() as stack:
        apart = {name: stack.enter_context(Apart(make)) for name, make in makers.items()}
        lacking = {name: contender.find_missing() for name, contender in apart.items()}
        runs = {name: apart[name].run for name, library in lacking.items() if not library}
        yield runs, [f"{name} ({library})" for name, library in lacking.items() if library]


def _serve(pipe: Connection, make: Maker) -> None:
    try:
        run = make()
    except ImportError as error:
        pipe.send(error.name)
        return
    pipe.send("")
    while True:
        pipe.recv()
        run()
        pipe.send(None)

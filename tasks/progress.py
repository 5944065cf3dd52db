"""What a running stage says of itself, and who listens."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Event:
    """One thing that happened in a stage.

    Attributes:
        stage: Name of the stage.
        kind: ``start``, ``progress`` or ``end``.
        text: What it does, or what came of it.
        done: How many of ``total`` units (epochs, blocks, heads) are done.
        total: The most there can be; early stopping may end sooner.
        values: Figures to show, such as ``val_loss``.
    """

    stage: str
    kind: Literal["start", "progress", "end"]
    text: str = ""
    done: int = 0
    total: int = 0
    values: dict[str, float] = field(default_factory=dict)


Listener = Callable[[Event], None]

_listeners: list[Listener] = []
_telling = threading.RLock()


def emit(event: Event) -> None:
    """Tells every listener; one event at a time, also of stages that run side by side."""
    with _telling:
        for listener in list(_listeners):
            listener(event)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls ``listener`` for every event meanwhile."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)

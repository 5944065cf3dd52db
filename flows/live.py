"""A run's tags, and how far each training stage is, in Prefect's UI while it runs.

Stages know nothing of it: they tell whoever listens. A thread of its own talks to the server, so
that training never waits for it, and gives up at the first fault.
"""

import contextvars
import logging
import threading
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from tasks.progress import Event

# Seconds between two messages to the server.
EVERY = 2.0


class LiveProgress:
    """Listens to a run's events and keeps an artifact ``progress-<stage>`` up to date.

    Attributes:
        flow_run_id: The flow run that the artifacts and the tags belong to.
        tags: What the flow run shall be found by.
        newest: The latest event of each stage that tells of its progress.
        posted: The artifact of each stage.
    """

    def __init__(self, flow_run_id: str, tags: Iterable[str]) -> None:
        self.flow_run_id = UUID(flow_run_id)
        self.tags = sorted(tags)
        self.newest: dict[str, Event] = {}
        self.posted: dict[str, UUID] = {}
        self.finished = threading.Event()
        # Prefect keeps its settings, such as the server's address, in the context.
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(self._talk,), daemon=True)

    def __enter__(self) -> "LiveProgress":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.finished.set()
        self.thread.join(timeout=5)

    def __call__(self, event: Event) -> None:
        """Takes note; the end of a stage counts only if it told of its progress before."""
        if event.kind == "progress" or (event.kind == "end" and event.stage in self.newest):
            self.newest[event.stage] = event

    def _talk(self) -> None:
        from prefect.client.orchestration import get_client

        client = get_client(sync_client=True)
        told: dict[str, Event] = {}
        try:
            # Given to the flow before it starts, they would go to each task too, and a task with
            # tags asks the server about their concurrency limits. While that writes what other
            # tasks tell, it often says to ask again in two seconds.
            client.update_flow_run(self.flow_run_id, tags=self.tags)
            while not self.finished.wait(EVERY):
                self._tell(client, told)
            self._tell(client, told)
        except Exception as error:  # noqa: BLE001 - nobody's result depends on who watches it
            logging.getLogger("headstart").warning("live progress ends: %s", error)

    def _tell(self, client: Any, told: dict[str, Event]) -> None:
        from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

        for stage, event in list(self.newest.items()):
            if told.get(stage) is event:
                continue
            told[stage] = event
            share, text = share_done(event), describe(event)
            if stage in self.posted:
                update = ArtifactUpdate(data=share, description=text)
                client.update_artifact(self.posted[stage], update)
            else:
                self.posted[stage] = client.create_artifact(
                    ArtifactCreate(
                        type="progress",
                        key=f"progress-{stage}",
                        data=share,
                        description=text,
                        flow_run_id=self.flow_run_id,
                    )
                ).id


def share_done(event: Event) -> float:
    """How much of the most there can be is done, in percent; early stopping may end sooner."""
    if event.kind == "end":
        return 100.0
    return round(100 * event.done / event.total, 1) if event.total else 0.0


def describe(event: Event) -> str:
    """What an event says, in a line: ``pretrain: trunk, epoch 12 of at most 1000, ...``."""
    if event.kind == "end":
        return f"{event.stage}: {event.text}"
    values = "".join(f", {name} {value:.4f}" for name, value in event.values.items())
    return f"{event.stage}: {event.text}, {event.done} of at most {event.total}{values}"

"""Runs whose process died: found by the lock they no longer hold, and marked as crashed.

Prefect alone shows such a run as Running for ever.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from artifacts.runs import RunRecord, is_alive, load_runs, none_beginning, save_run
from artifacts.store import Store

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

# Those that keep a record in the store; a night has its own.
FLOWS = ["transfer-learning", "study", "search", "reproduce"]
NOTE = "Its process died; headstart found it at a later start. Run again: it goes on from there."


def find_ghosts(store: Store) -> list[RunRecord]:
    """Records of runs that say they are under way and are not."""
    return [
        record
        for record in load_runs(store.root)
        if record.status == "running" and not is_alive(store.root, record)
    ]


def bury_ghosts(store: Store) -> Iterator[str]:
    """Marks dead runs as crashed in Prefect and in the store; yields their names.

    Needs a server that answers.
    """
    from prefect.client.orchestration import get_client

    with none_beginning(store.root) as alone, get_client(sync_client=True) as client:
        for record in find_ghosts(store):
            if record.flow_run_id:
                _crash(client, UUID(record.flow_run_id))
            save_run(store.root, record.model_copy(update={"status": "died"}))
            yield record.run
        for flow_run in _without_record(client, store) if alone else ():
            _crash(client, flow_run.id)
            yield flow_run.name


def bury(flow_run_id: str) -> None:
    """Marks one dead flow run as crashed in Prefect."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        _crash(client, UUID(flow_run_id))


def _without_record(client: "SyncPrefectClient", store: Store) -> list["FlowRun"]:
    """Flow runs on this store whose process died before they were in it.

    Runs of deployments are left to their workers, which notice such a death.
    """
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter

    recorded = {record.flow_run_id for record in load_runs(store.root)}
    under_way = client.read_flow_runs(
        flow_filter=FlowFilter.model_validate({"name": {"any_": FLOWS}}),
        flow_run_filter=FlowRunFilter.model_validate(
            {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        ),
    )
    return [
        flow_run
        for flow_run in under_way
        if flow_run.parameters.get("store") == str(store.root)
        and flow_run.deployment_id is None
        and str(flow_run.id) not in recorded
    ]


def _crash(client: "SyncPrefectClient", flow_run: UUID) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    try:
        state = client.read_flow_run(flow_run).state
    except ObjectNotFound:
        return  # It ran against another server's database.
    if state and state.is_final():
        return
    of_the_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    for task_run in client.read_task_runs(flow_run_filter=of_the_run):
        if task_run.state and not task_run.state.is_final():
            client.set_task_run_state(task_run.id, Crashed(message=NOTE), force=True)
    client.set_flow_run_state(flow_run, Crashed(message=NOTE), force=True)

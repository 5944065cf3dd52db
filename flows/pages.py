"""Where a run is to be seen in Prefect's UI."""

from collections.abc import Iterator

from artifacts.runs import load_runs
from artifacts.store import Store
from flows import server


def open_pages(store: Store) -> Iterator[str]:
    """Sees to it that the UI is there; yields its address and that of the latest run's page."""
    address = server.keep()
    yield f"Prefect: {address}"
    for record in load_runs(store.root):
        # A store may hold runs that other servers know.
        if record.flow_run_id and server.knows(address, record.flow_run_id):
            yield f"Latest run ({record.run}): {address}/runs/flow-run/{record.flow_run_id}"
            yield f"Summaries of all runs: {address}/artifacts/key/run-summary"
            break
    yield "It stays until: headstart ui --stop"

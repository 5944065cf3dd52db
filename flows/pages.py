"""Where a run is to be seen in Prefect's UI."""

from collections.abc import Iterator

from artifacts.runs import load_runs
from artifacts.store import Store
from flows import server


def open_pages(store: Store) -> Iterator[str]:
    """Sees to it that the UI is there; yields its address and that of the latest run's page."""
    address = server.keep()
    yield f"Prefect: {address}"
    latest = next((record for record in load_runs(store.root) if record.flow_run_id), None)
    if latest:
        yield f"Latest run ({latest.run}): {address}/runs/flow-run/{latest.flow_run_id}"
        yield f"Its artifacts over time: {address}/artifacts/key/run-summary"
    yield "It stays until: headstart ui --stop"

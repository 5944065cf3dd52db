"""Runs whose process died."""

from flows.ghosts import FLOWS
from flows.reproduce import run_reproduction
from flows.search import run_search
from flows.study import run_study
from flows.transfer_learning import transfer_learning


def test_every_flow_with_a_record_is_looked_for() -> None:
    flows = transfer_learning, run_study, run_search, run_reproduction
    assert sorted(flow.name for flow in flows) == sorted(FLOWS)

from datetime import UTC, datetime, timedelta

import pytest

from artifacts.nights import begin_night, save_night
from artifacts.store import Store
from flows.selection import read_graph
from flows.serving import is_missed, make_deployments
from models.config import Config

AT_TWO = ("0 2 * * *", "UTC")
NINE = datetime(2026, 3, 20, 9, tzinfo=UTC)


def spend(root, when):
    save_night(root, begin_night(when).model_copy(update={"status": "completed"}))


@pytest.mark.parametrize("nights", [1, 3, 7])
def test_nights_missed_are_one_to_catch_up_with(tmp_path, nights):
    last = datetime(2026, 3, 20, 2, 0, 5, tzinfo=UTC) - timedelta(days=nights)
    spend(tmp_path, last)
    assert is_missed(tmp_path, *AT_TWO, NINE)
    spend(tmp_path, NINE)
    assert not is_missed(tmp_path, *AT_TWO, NINE + timedelta(minutes=5))


def test_nothing_is_missed_before_the_first_night_or_after_last_night_s(tmp_path):
    assert not is_missed(tmp_path, *AT_TWO, NINE)
    spend(tmp_path, datetime(2026, 3, 20, 2, 0, 5, tzinfo=UTC))
    assert not is_missed(tmp_path, *AT_TWO, NINE)


def test_two_o_clock_is_two_in_the_named_timezone(tmp_path):
    spend(tmp_path, datetime(2026, 3, 20, 1, 30, tzinfo=UTC))
    assert is_missed(tmp_path, *AT_TWO, NINE)
    # It is two in Berlin at one in UTC.
    assert not is_missed(tmp_path, "0 2 * * *", "Europe/Berlin", NINE)


def test_the_deployments_are_those_of_the_file(tmp_path):
    made = make_deployments(Config(), Store(tmp_path), *AT_TWO)
    assert [deployment.name for deployment in made] == [
        "transfer-learning",
        *read_graph(Config()),
        "nightly-retrain",
    ]
    assert all(deployment.entrypoint.startswith("flows.") for deployment in made)

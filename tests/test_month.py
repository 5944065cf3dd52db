"""A simulated month, shrunk to what can go wrong and a good night after it."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from benchmarks.month import DAY_ROWS, account, simulate

BAD = {
    2: "killed in ingest",
    3: "corrupt",
    4: "drifted",
    5: "mislabelled",
    6: "killed in training",
    7: "disk full",
}
NIGHTS = 8


def spend(folder):
    return list(simulate(folder, NIGHTS, BAD))


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    folder = tmp_path_factory.mktemp("month")
    # Nights choose how many threads TensorFlow uses, which a process can do only once.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as another:
        return folder, another.submit(spend, folder).result()


@pytest.mark.slow
def test_no_image_is_lost_and_none_counts_twice(month):
    folder, _ = month
    found = account(folder, NIGHTS)
    assert (found["lost"], found["counted twice"]) == (0, 0)
    assert (found["in training"], found["in quarantine"]) == (5 * DAY_ROWS, 3 * DAY_ROWS)


@pytest.mark.slow
def test_the_champion_only_ever_changes_for_a_better_one(month):
    _, lines = month
    champions = dict.fromkeys((line.champion, line.accuracy) for line in lines)
    accuracies = [accuracy for _, accuracy in champions]
    assert accuracies == sorted(accuracies)
    assert len(champions) >= 1


@pytest.mark.slow
def test_bad_deliveries_are_refused_and_bad_nights_made_up_for(month):
    _, lines = month
    # What a killed night left in the inbox is taken in by the night after.
    assert [line.taken / DAY_ROWS for line in lines][:7] == [1, 0, 1, 0, 0, 0, 0]
    assert lines[-1].taken >= DAY_ROWS
    assert [line.refused for line in lines] == [0, 0, 1, DAY_ROWS, DAY_ROWS, 0, 0, 0]
    assert [line.decision for line in lines if line.night in (2, 6, 7)] == ["no decision"] * 3
    assert lines[-1].challenger is not None

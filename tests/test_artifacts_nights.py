from datetime import UTC, datetime, timedelta

import pytest

from artifacts.nights import begin_night, is_done, load_nights, save_night, without_promotion

TWO = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def spend(root, when, status="completed", promoted=False):
    record = begin_night(when).model_copy(update={"status": status, "promoted": promoted})
    save_night(root, record)
    return record


@pytest.mark.parametrize("missed", [1, 3, 7])
def test_however_many_nights_were_missed_one_catches_up(tmp_path, missed):
    back = TWO + 10 * DAY + timedelta(hours=7)
    due = [TWO + (10 - night) * DAY for night in range(missed)]
    ran = 0
    for when in due:
        if not is_done(tmp_path, when):
            spend(tmp_path, back + timedelta(minutes=ran))
            ran += 1
    assert ran == 1
    assert not is_done(tmp_path, TWO + 11 * DAY)


def test_a_night_that_failed_or_died_is_not_done(tmp_path):
    for status in ("failed", "running"):
        spend(tmp_path, TWO, status)
    assert not is_done(tmp_path, TWO - DAY)
    assert is_done(tmp_path, TWO) is False
    spend(tmp_path, TWO + timedelta(hours=1))
    assert is_done(tmp_path, TWO)


def test_nights_since_the_last_promotion_are_counted(tmp_path):
    assert without_promotion(tmp_path) == 0
    spend(tmp_path, TWO, promoted=True)
    for night in (1, 2, 3):
        spend(tmp_path, TWO + night * DAY, status="failed" if night == 2 else "completed")
    assert without_promotion(tmp_path) == 2


def test_an_unreadable_record_is_left_out(tmp_path):
    record = spend(tmp_path, TWO)
    (tmp_path / ".nights" / "20990101.json").write_text("{")
    assert list(load_nights(tmp_path)) == [record]

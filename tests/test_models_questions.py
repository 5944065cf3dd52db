"""Answers: that they say no more than the runs do."""

from models.questions import common_loss, compare_pairs, compare_ratios, epochs_to


def history(*losses):
    return {"val_loss": list(losses)}


def test_an_answer_is_clear_only_if_its_interval_is():
    told = {"confidence": 0.95, "more": "more", "less": "less"}
    assert compare_pairs("?", "points", [1.0, 1.2, 0.9], **told).text == "more"
    assert compare_pairs("?", "points", [-1.0, -1.2, -0.9], **told).text == "less"
    assert compare_pairs("?", "points", [1.0, -1.2, 0.9], **told).text.startswith("not clear")
    assert compare_ratios("?", "ratio", [0.5, 0.6, 0.55], **told).text == "less"
    assert compare_ratios("?", "ratio", [1.5, 1.6, 1.55], **told).text == "more"
    found = compare_ratios("?", "ratio", [0.5, 1.5, 1.0], **told)
    assert found.low < found.value < found.high


def test_trainings_are_timed_to_a_loss_that_both_reach():
    quick, slow = history(0.5, 0.2, 0.1), history(0.9, 0.5, 0.4, 0.3)
    loss = common_loss(quick, slow)
    assert loss == 0.3
    assert (epochs_to(quick, loss), epochs_to(slow, loss)) == (2, 4)
    assert epochs_to(slow, 0.1) == 5

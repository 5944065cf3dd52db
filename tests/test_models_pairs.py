"""Same/different pairs: how they are drawn, and the network that tells them apart."""

from functools import partial

import keras
import numpy as np
import pytest

from models.config import Network, Pairs, Transfer
from models.networks import build_classifier, build_trunk, measure_pixels
from models.pairs import (
    PAIR_ACCURACY,
    FixedPairs,
    PairMaker,
    build_pair_network,
    same_or_not,
)
from models.programs import predict
from models.strategies import make_strategy
from models.training import State, fit
from models.transfer import adopt_trunk, build_network

COLUMNS, CLASSES = 6, 3
NETWORK = Network(hidden_layers=2, units=16, batch_norm=False)
SETTINGS = Pairs(batch_size=50, max_epochs=4, epoch_pairs=400)


def make_maker(rows=60, seed=5, of=0):
    """Images in three clouds apart from each other."""
    random = np.random.default_rng(of)
    labels = np.arange(rows) % CLASSES
    centres = 2 * np.random.default_rng(99).normal(size=(CLASSES, COLUMNS))
    images = centres[labels] + random.normal(size=(rows, COLUMNS))
    return PairMaker(images.astype(np.float32), labels, seed)


MAKER = make_maker()
HELD_OUT = FixedPairs(make_maker(of=1), 200), same_or_not(200)


def build(seed=1, network=NETWORK):
    return build_pair_network(network, COLUMNS, joint_units=4, seed=seed)


def train(model, settings=SETTINGS, **options):
    rows = np.arange(settings.epoch_pairs), same_or_not(settings.epoch_pairs)
    return fit(
        model,
        *rows,
        settings=settings,
        validation=HELD_OUT,
        seed=3,
        loss="binary_crossentropy",
        metrics=PAIR_ACCURACY,
        change=MAKER.change,
        **options,
    )


def assert_same_weights(first, second):
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- Drawing ---


def test_even_pairs_are_of_one_class_and_odd_ones_of_two():
    first, second = MAKER.labels[MAKER.draw(np.arange(1000), epoch=2)].T
    np.testing.assert_array_equal(first == second, same_or_not(1000)[:, 0] == 1)
    assert same_or_not(5).tolist() == [[1], [0], [1], [0], [1]]


def test_no_image_is_paired_with_itself_unless_it_is_alone_in_its_class():
    first, second = MAKER.draw(np.arange(2000), epoch=0).T
    assert (first != second).all()
    alone = PairMaker(MAKER.images[:3], MAKER.labels[:3], seed=1)
    first, second = alone.draw(np.arange(0, 200, 2), epoch=0).T
    np.testing.assert_array_equal(first, second)


def test_every_image_and_every_partner_is_drawn_about_as_often():
    maker = make_maker(rows=9)
    for numbers, partners in ((np.arange(0, 40_000, 2), 2), (np.arange(1, 40_000, 2), 6)):
        counts = np.zeros((9, 9))
        np.add.at(counts, tuple(maker.draw(numbers, epoch=0).T), 1)
        shares = counts[counts > 0] / len(numbers)
        assert len(shares) == 9 * partners
        np.testing.assert_allclose(shares, 1 / (9 * partners), rtol=0.25)


def test_a_pair_depends_on_seed_epoch_and_its_own_number_alone():
    drawn = MAKER.draw(np.arange(100), epoch=1)
    numbers = np.array([70, 3, 3, 99])
    np.testing.assert_array_equal(MAKER.draw(numbers, epoch=1), drawn[numbers])
    np.testing.assert_array_equal(make_maker().draw(numbers, epoch=1), drawn[numbers])
    assert not np.array_equal(MAKER.draw(numbers, epoch=2), drawn[numbers])
    assert not np.array_equal(make_maker(seed=6).draw(numbers, epoch=1), drawn[numbers])


def test_classes_of_any_size_in_any_order_are_paired_rightly():
    labels = np.random.default_rng(0).permutation([0] * 1 + [4] * 30 + [2] * 7)
    maker = PairMaker(np.zeros((38, 2), np.float32), labels, seed=1)
    first, second = labels[maker.draw(np.arange(3000), epoch=0)].T
    np.testing.assert_array_equal(first == second, np.arange(3000) % 2 == 0)


def test_what_is_fed_to_training_are_both_images_of_each_fresh_pair():
    numbers = np.array([4, 5])
    shown = MAKER.change(numbers, numbers, 7)
    rows = MAKER.draw(numbers, epoch=7)
    assert shown.shape == (2, 2, COLUMNS)
    np.testing.assert_array_equal(shown[1, 0], MAKER.images[rows[1, 0]])
    np.testing.assert_array_equal(shown[1, 1], MAKER.images[rows[1, 1]])


def test_fixed_pairs_are_the_same_whenever_and_however_they_are_read():
    fixed = FixedPairs(MAKER, 10)
    whole = fixed[:]
    assert whole.shape == (10, 2, COLUMNS)
    np.testing.assert_array_equal(np.concatenate([fixed[:3], fixed[3:]]), whole)


def test_images_of_one_class_alone_are_refused():
    with pytest.raises(ValueError, match="2 images of 1 classes; there must be two classes"):
        PairMaker(MAKER.images[:2], np.zeros(2, int), seed=1)


# --- The network ---


def test_each_stack_sees_its_own_image_and_has_its_own_weights():
    model = build()
    inside = keras.Model(model.input, [model.get_layer(n).output for n in ("pixels", "hidden2")])
    other = keras.Model(model.input, model.get_layer("other_pixels").output)
    pairs = MAKER.make(np.arange(5), epoch=0)
    trunk = build_trunk(NETWORK, COLUMNS, seed=1)
    pixels, hidden = inside(pairs)
    np.testing.assert_array_equal(pixels.numpy(), pairs[:, 0])
    np.testing.assert_array_equal(other(pairs).numpy(), pairs[:, 1])
    np.testing.assert_allclose(hidden.numpy(), trunk(pairs[:, 0]).numpy(), rtol=1e-5)
    kernels = [model.get_layer(f"{name}hidden1_dense").get_weights()[0] for name in ("", "other_")]
    assert not np.array_equal(*kernels)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_network_has_as_many_weights_as_its_parts(batch_norm):
    network = Network(hidden_layers=5, units=100, batch_norm=batch_norm)
    model = build_pair_network(network, 784, joint_units=10, seed=0)
    stack = build_trunk(network, 784, seed=0).count_params()
    assert model.count_params() == 2 * stack + (200 * 10 + 10) + (10 + 1)


def test_stacks_may_have_any_layers_a_trunk_has():
    network = Network(widths=(7, 5), filters=(3,), inputs="standardized", dropouts=(0.1, 0.2))
    images = np.random.default_rng(0).normal(3, 2, (50, 16)).astype(np.float32)
    statistics = measure_pixels(images)
    model = build_pair_network(network, 16, joint_units=4, seed=1, statistics=statistics)
    trunk = build_trunk(network, 16, 1, statistics)
    inside = keras.Model(model.input, model.get_layer("hidden2").output)
    pairs = np.stack([images[:5], images[5:10]], axis=1)
    np.testing.assert_allclose(inside(pairs).numpy(), trunk(images[:5]).numpy(), atol=1e-5)
    classifier = build_classifier(build_trunk(network, 16, 8, statistics), CLASSES, 8)
    adopt_trunk(classifier, model)
    np.testing.assert_array_equal(
        classifier.get_layer("conv1_maps").get_weights()[0],
        model.get_layer("conv1_maps").get_weights()[0],
    )
    assert [v.path for v in classifier.trainable_variables] == ["head/kernel", "head/bias"]


def test_a_saved_network_loads_in_safe_mode_and_answers_the_same(tmp_path):
    model = build(network=NETWORK.model_copy(update={"batch_norm": True, "dropout": 0.2}))
    model.save(tmp_path / "pairs.keras")
    loaded = keras.models.load_model(tmp_path / "pairs.keras", safe_mode=True)
    pairs = MAKER.make(np.arange(5), epoch=0)
    np.testing.assert_array_equal(model(pairs).numpy(), loaded(pairs).numpy())


def test_the_network_learns_to_tell_pairs_apart():
    model = build()
    history = train(model, Pairs(batch_size=50, max_epochs=25, epoch_pairs=1000)).history
    assert history["val_accuracy"][0] < 0.75
    assert max(history["val_accuracy"]) > 0.85
    # What the engine measured is what the model answers.
    right = (predict(model, HELD_OUT[0]) > 0.5) == HELD_OUT[1]
    best = int(np.argmin(history["val_loss"]))
    assert right.mean() == pytest.approx(history["val_accuracy"][best])


def test_training_is_drawn_from_the_seed_and_goes_on_to_the_same_bits():
    states: list[State] = []
    whole, again, resumed = build(), build(), build(seed=9)
    train(whole, on_epoch=states.append)
    train(again)
    train(resumed, saved=State.from_arrays(states[1].to_arrays()))
    assert_same_weights(whole, again)
    assert_same_weights(whole, resumed)


@pytest.mark.slow
def test_pairs_read_block_by_block_are_those_of_the_epoch():
    seen = []

    def change(rows, numbers, epoch):
        seen.append((epoch, numbers))
        return MAKER.change(rows, numbers, epoch)

    rows = np.arange(100), same_or_not(100)
    settings = Pairs(batch_size=10, max_epochs=2)
    options = {"loss": "binary_crossentropy", "metrics": PAIR_ACCURACY}
    fit(
        build(),
        *rows,
        settings=settings,
        validation=HELD_OUT,
        seed=3,
        change=change,
        block_rows=30,
        **options,
    )
    for epoch in range(2):
        numbers = np.concatenate([part for which, part in seen if which == epoch])
        assert sorted(numbers) == list(range(100))


# --- Transfer ---


def test_a_classifier_adopts_the_first_stack_and_keeps_it():
    pairs, model = build(), build_classifier(build_trunk(NETWORK, COLUMNS, seed=8), CLASSES, 8)
    head = model.get_layer("head").get_weights()
    adopt_trunk(model, pairs)
    for name in ("hidden1_dense", "hidden2_dense"):
        for a, b in zip(
            model.get_layer(name).get_weights(), pairs.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], head[0])
    assert [variable.path for variable in model.trainable_variables] == ["head/kernel", "head/bias"]


def test_a_strategy_begins_with_the_layers_of_the_first_stack_below_its_cut():
    pairs = build()
    strategy = make_strategy("full", Transfer(), depth=1)
    begin = partial(build_network, strategy, pairs, rows=MAKER.images, classes=2, seed=4)
    model = begin(NETWORK.model_copy(update={"hidden_layers": 1}))
    np.testing.assert_array_equal(
        model.get_layer("hidden1_dense").get_weights()[0],
        pairs.get_layer("hidden1_dense").get_weights()[0],
    )
    assert model.output_shape == (None, 2)

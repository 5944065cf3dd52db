import keras
import numpy as np
import pytest

from benchmarks.contenders import CONTENDERS, EPOCHS, WIDTHS, build_model, draw_rows


def test_what_is_compared_is_what_every_library_can_build():
    layers = [layer for layer in build_model().layers if layer.weights]
    assert all(type(layer) is keras.layers.Dense for layer in layers)
    assert [layer.units for layer in layers] == WIDTHS[1:]


@pytest.mark.parametrize("name", ["headstart", "keras.fit"])
def test_a_contender_trains(name):
    history = CONTENDERS[name](draw_rows(200), draw_rows(50), 20)().history
    for quantity in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert len(history[quantity]) == EPOCHS[20]
        assert np.isfinite(history[quantity]).all()

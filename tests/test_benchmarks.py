import os
from functools import partial

import keras
import numpy as np
import pytest

from benchmarks.apart import bring
from benchmarks.contenders import (
    CONTENDERS,
    EPOCHS,
    PROTOCOL,
    THREADS,
    WIDTHS,
    build_model,
    draw_rows,
    threads_for,
)


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


def test_the_engine_has_the_threads_that_the_preset_gives_it():
    assert PROTOCOL.pretrain.batch_size == 20
    assert [threads_for(batch) for batch in EPOCHS] == [1, 2, 2]
    assert set(THREADS) <= set(CONTENDERS)


def note(path):
    """A contender that notes its process, and how often it has run."""
    return lambda: path.open("a").write(f"{os.getpid()}\n")


def lack():
    import no_such_library  # noqa: F401 This is what it is for.


def fail():
    return lambda: 1 / 0


def test_contenders_run_when_told_each_in_a_process_of_its_own(tmp_path):
    files = {name: tmp_path / name for name in ("a", "b")}
    makers = {name: partial(note, path) for name, path in files.items()}
    with bring(makers | {"c": lack}) as (contenders, missing):
        assert missing == ["c (no_such_library)"]
        assert list(contenders) == ["a", "b"]
        for name in ("a", "b", "a"):
            contenders[name]()
        first, second = (files[name].read_text().split() for name in "ab")
    assert len(first) == 2
    assert len(set(first)) == len(second) == 1
    assert len({str(os.getpid()), *first, *second}) == 3
    for process in {*first, *second}:
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


def test_a_contender_that_fails_is_not_waited_for(capfd):
    with bring({"a": fail}) as (contenders, _), pytest.raises(EOFError):
        contenders["a"]()
    assert "ZeroDivisionError" in capfd.readouterr().err

"""Imports without the garbage collector: it is on again afterwards, and skips them."""

import gc
import subprocess
import sys

import pytest

from flows.importing import importing


def test_what_is_imported_is_never_looked_through_again() -> None:
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)
    gc.unfreeze()


def test_collecting_goes_on_after_an_import_that_failed() -> None:
    with pytest.raises(ModuleNotFoundError), importing():
        import no_such_module  # noqa: F401
    assert gc.isenabled()
    gc.unfreeze()


def test_who_collects_no_garbage_is_left_alone() -> None:
    code = (
        "import gc; from flows.importing import importing; gc.disable()\nwith importing(): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "print(gc.isenabled())"], check=True, stdout=subprocess.PIPE
    )
    assert done.stdout == b"False\n"

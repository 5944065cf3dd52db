"""Prefect's result records, where several runs on one store keep them at once."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from prefect.context import TaskRunContext

from artifacts.reference import Ref
from artifacts.store import Store
from models.config import Limits
from models.datasets import find_dataset
from tasks.caching import StageKey, as_task
from tasks.load_dataset import load_dataset
from tasks.stage import Arguments, Untracked

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture
def arguments(tmp_path) -> Arguments:
    path = tmp_path / "images.npz"
    labels = np.arange(40) % 10
    images = np.ones((40, 4), np.float32)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return {"source": find_dataset(str(path)), "location": Untracked(str(path)), "limit": 0}


class Late(Store):
    """A store on which much happens between looking for an entry and hearing what was found."""

    meanwhile: Callable[[], object] | None = None

    def find(self, stage: str, key: str) -> Ref | None:
        """What is there before ``meanwhile`` is called, once."""
        ref = super().find(stage, key)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return ref


def look(store: Store, arguments: Arguments) -> str | None:
    """Asks for the cache key, as Prefect does before it looks for the record."""
    context: Any = SimpleNamespace(task=as_task(load_dataset, store, Limits()))
    policy = StageKey(stage=load_dataset, store=store)
    return policy.compute_key(cast(TaskRunContext, context), dict(arguments), {})


def test_who_found_no_entry_leaves_the_record_of_who_found_the_one_made_since(tmp_path, arguments):
    root = tmp_path / "store"
    other = threading.Thread(target=look, args=(Store(root), arguments))

    def meanwhile() -> None:
        load_dataset.run(arguments, Store(root), None)
        other.start()
        # It may have to wait for this one; if not, it has its record written by then.
        other.join(1)

    late = Late(root)
    late.meanwhile = meanwhile
    name = look(late, arguments)
    other.join()
    assert name
    assert Path(late.records_path(), name).exists()


def test_who_reads_a_record_while_it_is_replaced_reads_the_whole_of_it(tmp_path, arguments):
    store = Store(tmp_path / "store")
    load_dataset.run(arguments, store, None)
    record = store.records_path() / str(look(store, arguments))
    whole = record.read_bytes()
    record.write_bytes(b"another")
    with record.open("rb") as reader:
        look(store, arguments)
        assert reader.read() == b"another"
    assert json.loads(record.read_bytes())["result"] == json.loads(whole)["result"]

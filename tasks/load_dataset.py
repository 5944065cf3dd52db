"""Stage load-dataset: the images and labels, checked, as arrays that can be memory-mapped."""

from typing import Any

from models.sources import Source
from tasks.stage import Untracked, Work, stage


@stage("load-dataset", label="load {source.kind}")
def load_dataset(work: Work, *, source: Source, location: Untracked, limit: int) -> dict[str, Any]:
    """Checks the dataset's bytes and unpacks them."""
    from models import datasets

    dataset = datasets.load_dataset(location, limit, source)
    work.save_array("x_train.npy", dataset.x_train)
    work.save_array("y_train.npy", dataset.y_train)
    work.save_array("x_test.npy", dataset.x_test)
    work.save_array("y_test.npy", dataset.y_test)
    return {
        "train_rows": len(dataset.x_train),
        "test_rows": len(dataset.x_test),
        "image_shape": list(dataset.image_shape),
        "skipped": dict(dataset.skipped),
        "note": dataset.note,
    }

"""Stage cache-activations: what the frozen trunk makes of the target images, computed once."""

from typing import Any

from artifacts.reference import Ref
from tasks.rows import read_rows
from tasks.stage import Work, stage


@stage("cache-activations", label="cache activations of {layers}")
def cache_activations(
    work: Work,
    *,
    checkpoint: Ref,
    dataset: Ref,
    split: Ref,
    layers: tuple[str, ...],
    threads: int,
) -> dict[str, Any]:
    """Runs every target image through the frozen trunk, once for all layers."""
    from models.checkpoints import load_keras
    from models.networks import cut_trunk
    from models.runtime import use_threads
    from models.training import predict_blocks

    use_threads(threads)
    trunk = cut_trunk(load_keras(work.content(checkpoint, "model.keras")), layers)
    widths = [output.shape[1] for output in trunk.outputs]
    rows = {}
    for part in ("train", "validation", "test"):
        images, _ = read_rows(work, dataset, split, part)
        files = [
            work.create_array(f"{layer}/{part}.npy", (len(images), width))
            for layer, width in zip(layers, widths, strict=True)
        ]
        done = 0
        for block in predict_blocks(trunk, images):
            for file, values in zip(files, block, strict=True):
                file[done : done + len(values)] = values
            done += len(block[0])
            work.progress(part, done, len(images))
        rows[part] = done
    return {"layers": list(layers), "rows": rows}

"""Stage cache-activations: what the frozen trunk makes of the target images, computed once."""

from typing import Any

from artifacts.reference import Ref
from tasks.blocks import BlockWriter
from tasks.rows import PARTS, open_rows
from tasks.stage import Work, stage
from tasks.trained import load_classifier


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
    """Runs every target image through the frozen trunk, once for all layers, in blocks."""
    from models.networks import cut_trunk
    from models.programs import predict_blocks
    from models.runtime import use_threads

    use_threads(threads)
    trunk = cut_trunk(load_classifier(work, checkpoint), layers)
    widths = [output.shape[1] for output in trunk.outputs]
    rows = {}
    for part in PARTS:
        images = open_rows(work, dataset, split, part)
        names = [f"{layer}/{part}.npy" for layer in layers]
        writer = BlockWriter(work, part, names, widths, len(images))
        for block in predict_blocks(trunk, images, start=writer.done):
            writer.write(block)
            work.progress(part, writer.done, len(images))
        writer.finish()
        rows[part] = len(images)
    return {"layers": list(layers), "rows": rows}

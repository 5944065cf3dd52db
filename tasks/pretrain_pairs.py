"""Stage pretrain-pairs: a trunk that learns whether two images are of the same class."""

from typing import Any

import numpy as np

from artifacts.reference import Ref
from models.config import Network, Pairs, Run
from tasks.fitting import best_epoch, fit_resumably, save_history_table
from tasks.rows import Part, read_rows
from tasks.stage import Work, stage
from tasks.trained import save_model

# A fifth of a published epoch, so that all blocks share one program. Of MNIST they are 69 MB, and
# a few are in memory at once.
BLOCK_PAIRS = 11_000


@stage(
    "pretrain-pairs",
    label="pretrain {network.shape} {network.activation} on pairs, seed {run.seed}",
)
def pretrain_pairs(
    work: Work, *, dataset: Ref, split: Ref, network: Network, pairs: Pairs, run: Run
) -> dict[str, Any]:
    """Trains two stacks to tell pairs of the same class from others, on fresh pairs each epoch."""
    from models.feeding import choose_block_rows
    from models.networks import measure_pixels
    from models.pairs import (
        PAIR_ACCURACY,
        FixedPairs,
        PairMaker,
        build_pair_network,
        same_or_not,
    )
    from models.programs import predict
    from models.runtime import use_threads

    def make_pairs(part: Part) -> PairMaker:
        return PairMaker(*read_rows(work, dataset, split, part), run.seed)

    use_threads(run.threads)
    fresh = make_pairs("train")
    validation = FixedPairs(make_pairs("validation"), pairs.validation_pairs)
    test = FixedPairs(make_pairs("test"), pairs.test_pairs)
    statistics = measure_pixels(fresh.images)
    model = build_pair_network(
        network, fresh.images.shape[1], pairs.joint_units, run.seed, statistics
    )
    history = fit_resumably(
        work,
        "pairs",
        model,
        # Nothing but the number of a pair is there before it is drawn.
        (np.arange(pairs.epoch_pairs), same_or_not(pairs.epoch_pairs)),
        (validation, same_or_not(len(validation))),
        pairs,
        run.seed,
        loss="binary_crossentropy",
        metrics=PAIR_ACCURACY,
        block_rows=min(BLOCK_PAIRS, choose_block_rows(validation, pairs.batch_size)),
        change=fresh.change,
    )
    save_model(work, "classifier", model)
    work.save_json("history.json", history)
    save_history_table(work, {"pairs": history})
    best = best_epoch(history)
    right = (predict(model, test) > 0.5) == same_or_not(len(test))
    return {
        "classes": split.metrics["classes"],
        "parameters": model.count_params(),
        "epochs": len(history["loss"]),
        "best_epoch": best + 1,
        "validation_loss": history["val_loss"][best],
        "validation_accuracy": history["val_accuracy"][best],
        "test_accuracy": float(right.mean()),
        "test_pairs": len(test),
    }

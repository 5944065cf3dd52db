"""Stage train-baselines: what transfer must beat, trained on the same few images."""

from typing import Any

from artifacts.reference import Ref
from models.config import Baselines, Network, Run
from tasks.fitting import fit_resumably, save_history_table
from tasks.rows import read_rows
from tasks.stage import Work, stage
from tasks.trained import save_model

PIXELS, SCRATCH = "pixels", "scratch"


@stage("train-baselines", label="train baselines, seed {run.seed}")
def train_baselines(
    work: Work, *, dataset: Ref, split: Ref, network: Network, baselines: Baselines, run: Run
) -> dict[str, Any]:
    """Trains a softmax on pixels, and the pretrained network's twin from scratch."""
    from models.networks import build_classifier, build_head, build_trunk
    from models.runtime import use_threads

    use_threads(run.threads)
    train = read_rows(work, dataset, split, "train")
    validation = read_rows(work, dataset, split, "validation")
    columns, classes = train[0].shape[1], len(split.metrics["classes"])
    models = {
        PIXELS: build_head(columns, classes, run.seed),
        SCRATCH: build_classifier(build_trunk(network, columns, run.seed), classes, run.seed),
    }
    histories = {}
    for name, model in models.items():
        histories[name] = fit_resumably(
            work, name, model, train, validation, baselines, run.seed, keep_every=1.0
        )
        save_model(work, name, model)
    work.save_json("history.json", histories)
    save_history_table(work, histories)
    return {name: {"epochs": len(history["loss"])} for name, history in histories.items()}

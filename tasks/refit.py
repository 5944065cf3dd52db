"""Stage refit: the trunk trained with the settings that a search has chosen."""

from typing import Any

from artifacts.reference import Ref
from models.config import Augmentation, Network, Pretrain, Run
from tasks.pretrain import train_trunk
from tasks.stage import Work, stage


@stage("refit", label="pretrain with the best settings, seed {run.seed}")
def refit(
    work: Work,
    *,
    chosen: Ref,
    dataset: Ref,
    split: Ref,
    augmentation: Augmentation | None,
    run: Run,
) -> dict[str, Any]:
    """Trains the trunk as stage pretrain would with the chosen settings, on all training images."""
    network = Network.model_validate(chosen.metrics["network"])
    pretrain = Pretrain.model_validate(chosen.metrics["pretrain"])
    return train_trunk(work, dataset, split, network, pretrain, augmentation, run)

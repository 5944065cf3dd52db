"""Stage export-checkpoint: the pretrained model in the forms that others load."""

from typing import Any

from artifacts.reference import Ref
from tasks.stage import Work, stage
from tasks.trained import load_model


@stage("export-checkpoint", label="export .keras and SavedModel")
def export_checkpoint(work: Work, *, pretrained: Ref, threads: int) -> dict[str, Any]:
    """Writes the pretrained model as .keras and as a SavedModel with a serving signature."""
    from models.checkpoints import save_keras, save_serving
    from models.runtime import use_threads

    # Nothing here depends on them, but whichever stage starts TensorFlow settles them for all.
    use_threads(threads)
    classes = pretrained.metrics["classes"]
    model = load_model(work, pretrained, "classifier")
    save_keras(model, work.path("model.keras"))
    save_serving(model, classes, work.path("saved_model"))
    # TensorFlow puts random ids into a SavedModel: checked, but no part of what it means.
    work.draft.volatile = ("saved_model/",)
    return {"classes": classes, "parameters": model.count_params()}

"""Stage export-checkpoint: the pretrained model in the forms that others load, and its card."""

from typing import Any

from artifacts.card import Checkpoint, checkpoint_card
from artifacts.reference import Ref
from tasks.stage import Work, stage
from tasks.trained import load_model


@stage("export-checkpoint", label="export .keras and SavedModel")
def export_checkpoint(work: Work, *, pretrained: Ref, threads: int) -> dict[str, Any]:
    """Writes the pretrained model as .keras and SavedModel, with a card that describes it."""
    from models.checkpoints import save_keras, save_serving
    from models.runtime import use_threads

    # Nothing here depends on them, but whichever stage starts TensorFlow settles them for all.
    use_threads(threads)
    classes = pretrained.metrics["classes"]
    model = load_model(work, pretrained, "classifier")
    save_keras(model, work.path("model.keras"))
    save_serving(model, classes, work.path("saved_model"))
    card = Checkpoint(
        digest=pretrained.digest,
        layers=[
            f"`{layer.name}`: {type(layer).__name__}, output {layer.output.shape[1:]}"
            for layer in model.layers
        ],
        classes=classes,
        columns=model.input_shape[-1],
        parameters=model.count_params(),
        training=pretrained.metrics,
    )
    work.save_bytes("model-card.md", checkpoint_card(card).encode())
    # Checked, but no part of what the model means: TensorFlow puts random ids into a SavedModel,
    # and other words about the same model leave what was made from it as it is.
    work.draft.volatile = ("saved_model/", "model-card.md")
    return {"classes": classes, "parameters": model.count_params()}

"""Model cards in Markdown: what a model is for, how it was made, how good it is, where it ends.

References:
    Mitchell et al. (2019), Model Cards for Model Reporting, https://arxiv.org/abs/1810.03993: the
    headings and their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from artifacts.summary import classes_table, listed, percent, results_table

USE = """\
Meant as a trunk to transfer from, and for learning how transfer behaves: cut at a hidden layer,
keep the layers below it frozen, train a new head for other classes of the same kind of image. Not
meant for deciding anything about a person or anything that costs money, nor for images from
another source than its training data.
"""

LICENCE = "Licence of the code that made it: Apache-2.0; the data keeps its own."

LIMITS = """\
- It knows its own classes only and answers with one of them whatever it is shown; nothing tells it
  that an image belongs to none.
- These are one seed's weights. The intervals speak of other test images, not of other seeds;
  `benchmarks/accuracy.py` shows how far those lie apart.
- How it answers to images that are shifted, turned, inverted or noisy was not measured.
- The data does not say whose images they are, so whether it serves all people equally was not
  measured.
"""


@dataclass(frozen=True)
class Checkpoint:
    """What an exported checkpoint is.

    Attributes:
        digest: SHA-256 of what it was exported from.
        layers: A line for each layer.
        classes: What its outputs stand for, in their order.
        columns: Values of one input row.
        parameters: Trained values.
        training: The metrics of the stage that trained it.
    """

    digest: str
    layers: Sequence[str]
    classes: Sequence[int]
    columns: int
    parameters: int
    training: Mapping[str, Any]


def checkpoint_card(checkpoint: Checkpoint) -> str:
    """The card of a pretrained checkpoint, measured on validation images only.

    It is written when the checkpoint is exported, before any test image is looked at.
    """
    training = checkpoint.training
    names = listed(checkpoint.classes)
    return _card(
        f"Pretrained trunk, classes {names}",
        {
            "Model details": (
                f"A dense network with a softmax over the classes {names}; input: rows of "
                f"{checkpoint.columns} values, as the training data has them. "
                f"{checkpoint.parameters:,} parameters. {LICENCE}\n\n"
                + "\n".join(f"- {layer}" for layer in checkpoint.layers)
                + "\n\nFiles: `model.keras` (opens in Keras's safe mode), `saved_model/` "
                "(TensorFlow alone, with a serving signature)."
            ),
            "Intended use": USE,
            "Training data": (
                f"The training images of the classes {names}; the rows kept for validation were "
                "not trained on. `headstart lineage export-checkpoint` names the entry that holds "
                "them, with the SHA-256 of the dataset's files."
            ),
            "Evaluation data": "The validation images of the same classes.",
            "Metrics": (
                f"Accuracy {percent(training['validation_accuracy'])} %, loss "
                f"{training['validation_loss']:.4f} (cross-entropy, nats). This epoch was chosen "
                "on the same validation images, so both are a little too good. Accuracy and "
                "metrics by class on test images are measured later: see `model-card.md` in the "
                "stage publish."
            ),
            "Limits": LIMITS,
            "How it was made": (
                f"Trained for {training['epochs']} epochs, the best being epoch "
                f"{training['best_epoch']}; exported from the content with SHA-256 "
                f"`{checkpoint.digest}`. `headstart show pretrain` prints settings, code, releases "
                f"and machine.{_forged_classes(training)}{_pair_training(training)}"
            ),
        },
    )


def _forged_classes(training: Mapping[str, Any]) -> str:
    """What the trunk was trained on besides the classes that it tells apart now."""
    if not training["forged_classes"]:
        return ""
    return (
        f"\n\nIn training it had {training['forged_classes']} forged classes to tell apart as "
        "well: images put together from those of two classes. Its outputs for them were cut off."
    )


def _pair_training(training: Mapping[str, Any]) -> str:
    """How the hidden layers were trained where the epochs told of are the head's alone."""
    if "pair_accuracy" not in training:
        return ""
    return (
        "\n\nThese epochs trained the head alone. The hidden layers were trained before, on "
        "telling pairs of images of the same class from others; of pairs of validation images "
        f"{percent(training['pair_accuracy'])} % were told rightly."
    )


def results_card(evaluation: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The card of the chosen model, with its metrics on test images, class by class.

    Args:
        evaluation: What the stage evaluate measured.
        inputs: SHA-256 of each stage's content that it was made from, by the stage's name.
    """
    source, target = (listed(evaluation[f"{kind}_classes"]) for kind in ("source", "target"))
    chosen = evaluation["chosen"]
    return _card(
        f"{chosen[:1].upper()}{chosen[1:]}, classes {target}",
        {
            "Model details": (
                f"`{chosen}`: the trunk pretrained on the classes {source}, and what was trained "
                f"on top of it for the classes {target}. {LICENCE}"
            ),
            "Intended use": USE,
            "Training data": (
                f"{evaluation['few_shot']} training images of each of the classes {target}; the "
                f"trunk saw the classes {source} only."
            ),
            "Evaluation data": (
                f"All test images of the classes {target}. Which model counts as chosen was "
                "decided on validation images, before."
            ),
            "Metrics": (
                f"{evaluation['gain']['sentence']}\n\nTest accuracy in %; `pretrained` on "
                f"the classes {source}, all others on {target}:\n\n"
                f"{results_table(evaluation)}\n\nOf `{chosen}`, by class, in %:\n\n"
                f"{classes_table(evaluation)}"
            ),
            "Limits": LIMITS,
            "How it was made": (
                "From the entries with these SHA-256; `headstart lineage publish` prints all they "
                "came from.\n\n" + "\n".join(f"- {name}: `{inputs[name]}`" for name in inputs)
            ),
        },
    )


def _card(title: str, sections: Mapping[str, str]) -> str:
    parts = [f"# {title}\n", *(f"## {name}\n\n{text.strip()}\n" for name, text in sections.items())]
    return "\n".join(parts)

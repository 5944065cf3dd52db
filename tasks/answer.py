"""Stage answer: the documents' own questions, answered by the recipes, and their pictures."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts import figures
from artifacts.reference import Ref
from artifacts.summary import percent
from models.intervals import mean_interval
from models.questions import Answer, common_loss, compare_pairs, compare_ratios, epochs_to
from tasks.found import Found, read_found
from tasks.stage import Work, stage
from tasks.time_caching import SECONDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Recipes whose learning curves are drawn together.
CURVES: Mapping[str, tuple[str, ...]] = {
    "Batch norm and dropout, digits 0 to 4": (
        "transfer-pretrain",
        "transfer-pretrain-mended",
        "transfer-pretrain-bn",
        "transfer-pretrain-dropout",
    ),
    "Update rules on the same network": (
        "002-clip",
        "002-optimizers-momentum",
        "002-optimizers-nesterov",
        "002-optimizers-adagrad",
        "002-optimizers-rmsprop",
        "002-optimizers-adam",
    ),
    "Layers reused": ("002-continue", "002-reuse", "002-freeze", "002-cache"),
    "Norms, penalties, dropout": (
        "000-bn",
        "000-maxnorm",
        "002-leaky",
        "002-l1",
        "002-dropout",
        "002-dropout-mended",
    ),
    "Twenty hidden layers on Fashion-MNIST": ("004-selu", "004-bn-after", "004-bn-before"),
    "Letters": ("001-relu1024", "001-l2", "001-overfit", "001-dropout", "001-deep"),
    "Digits 5 to 9 from 100 images of each": (
        "transfer-frozen5",
        "transfer-frozen4",
        "transfer-unfrozen2",
        "transfer-unfrozen4",
        "transfer-scratch",
    ),
}


@stage("answer", label="answer the documents' questions", libraries=("matplotlib",))
def answer(
    work: Work, *, assessed: tuple[Ref, ...], caching: Ref | None, confidence: float
) -> dict[str, Any]:
    """Answers each question with an interval over the seeds, and draws the curves."""
    found = read_found(work, assessed)
    answers = [each.to_json() for each in _answer(found, work, caching, confidence)]
    work.save_json("answers.json", answers)
    drawn = []
    for number, (title, alt, figure) in enumerate(_draw(found), start=1):
        name = f"recipes-{number}"
        for kind in ("png", "svg"):
            work.save_bytes(f"{name}.{kind}", figures.render(figure, kind))
        drawn.append({"name": name, "title": title, "alt": alt})
    return {"answers": answers, "confidence": confidence, "figures": drawn}


def _answer(
    found: Mapping[str, Found], work: Work, caching: Ref | None, confidence: float
) -> Iterator[Answer]:
    plain, normed, dropped = (
        found.get(f"transfer-pretrain-{name}") for name in ("mended", "bn", "dropout")
    )
    if plain and normed:
        yield from _compare_trainings("batch norm", plain, normed, confidence)
    if plain and dropped:
        yield from _compare_trainings("dropout", plain, dropped, confidence)
    if caching:
        yield from _answer_caching(work, caching, confidence)
    yield from _answer_cut(found, confidence)


def _compare_trainings(
    name: str, without: Found, having: Found, confidence: float
) -> Iterator[Answer]:
    """Whether a way of training is faster, better, and overfits less, seed by seed."""
    pairs = list(zip(without.histories, having.histories, strict=False))
    epochs = [
        (epochs_to(b, loss), epochs_to(a, loss)) for a, b in pairs for loss in [common_loss(a, b)]
    ]
    spent = zip(epochs, pairs, without.seconds, having.seconds, strict=False)
    times = [
        (with_it * b / len(y["loss"])) / (alone * a / len(x["loss"]))
        for (with_it, alone), (x, y), a, b in spent
    ]
    faster = f"Does {name} converge faster?"
    yield compare_ratios(
        faster,
        "epochs to the same validation loss, ratio",
        [with_it / alone for with_it, alone in epochs],
        confidence,
        "no: it needs more epochs",
        "yes: it needs fewer epochs",
    )
    yield compare_ratios(
        faster,
        "seconds to the same validation loss, ratio",
        times,
        confidence,
        "no: it needs more time",
        "yes: it needs less time",
    )
    yield compare_pairs(
        f"Is the model better with {name}?",
        "test accuracy, percentage points",
        _differences(having.of("test"), without.of("test")),
        confidence,
        "yes",
        "no: it is worse",
    )
    gaps = [
        [a - b for a, b in zip(one.of("train"), one.of("test"), strict=True)]
        for one in (having, without)
    ]
    yield compare_pairs(
        f"Does {name} overfit?",
        "training less test accuracy, percentage points more than without",
        _differences(*gaps),
        confidence,
        "yes: more than without",
        "less than without",
    )


def _differences(first: list[float], second: list[float]) -> list[float]:
    return [100 * (a - b) for a, b in zip(first, second, strict=False)]


def _answer_caching(work: Work, caching: Ref, confidence: float) -> Iterator[Answer]:
    taken = json.loads(work.store.read_bytes(caching, SECONDS))
    epochs = caching.metrics["epochs"]
    question = "How much faster is training on cached activations?"
    more, less = "cached activations are faster", "cached activations are slower"
    yield compare_ratios(
        question,
        "seconds an epoch, uncached : cached",
        [
            (a / epochs["uncached"]) / (b / epochs["cached"])
            for a, b in zip(taken["uncached"], taken["cached"], strict=True)
        ],
        confidence,
        more,
        less,
    )
    yield compare_ratios(
        question,
        "seconds to the same loss, uncached : cached with the caching itself",
        [
            a / (b + taken["caching"])
            for a, b in zip(taken["uncached"], taken["cached"], strict=True)
        ],
        confidence,
        more,
        less,
    )


def _answer_cut(found: Mapping[str, Found], confidence: float) -> Iterator[Answer]:
    cuts = {
        f"hidden{layers}": found[name].of("test")
        for layers in range(1, 6)
        if (name := f"transfer-frozen{layers}") in found
    }
    if len(cuts) < 2:
        return
    best, second, *_ = sorted(cuts, key=lambda name: -np.mean(cuts[name]))
    value, low, high = mean_interval(_differences(cuts[best], cuts[second]), confidence)
    clear = "" if low > 0 else ", but not clearly"
    means = ", ".join(f"{name} {percent(float(np.mean(cuts[name])))}" for name in cuts)
    yield Answer(
        "Which layer is best to cut at?",
        f"test accuracy of {best} less that of {second}, percentage points",
        value,
        low,
        high,
        f"{best}{clear} (means: {means})",
    )


def _draw(found: Mapping[str, Found]) -> Iterator[tuple[str, str, "Figure"]]:
    """Title, description and figure of each picture."""
    x = np.linspace(-5, 5, 201)
    sigmoid = 1 / (1 + np.exp(-x))
    edge = float(np.log(19 + np.sqrt(360)))  # Where s (1 - s) is a tenth of its 1/4.
    yield (
        "Where the sigmoid saturates",
        "The sigmoid is nearly linear around 0 and flat beyond about 3.6 either way, where no "
        "gradient comes through.",
        figures.saturation(x.tolist(), sigmoid.tolist(), edge),
    )
    curves = {
        "sigmoid": sigmoid,
        "ReLU": np.maximum(x, 0),
        "leaky ReLU": np.where(x > 0, x, 0.05 * x),
        "ELU": np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
        "SELU": 1.0507 * np.where(x > 0, x, 1.6733 * (np.exp(np.minimum(x, 0)) - 1)),
    }
    lines = {name: (x.tolist(), values.tolist()) for name, values in curves.items()}
    yield (
        "Activation functions",
        "Leaky ReLU and ELU let gradients through below 0; ELU and SELU end at a floor there.",
        figures.activation_functions(lines),
    )
    for title, ids in CURVES.items():
        histories = {id: found[id].histories[0] for id in ids if id in found}
        if histories:
            alt = f"Loss and accuracy over the epochs of the first seed: {', '.join(histories)}."
            yield title, alt, figures.learning_curves(histories)

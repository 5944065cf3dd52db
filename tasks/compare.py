"""Stage compare: every recipe's figures beside the printed ones, and the documents' questions."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts import figures
from artifacts.reference import Ref
from artifacts.summary import percent, table
from models.config import Section
from models.recipe import QUANTITIES, Printed, Quantity, Recipe
from tasks.stage import Work, stage
from tasks.time_caching import SECONDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from models.questions import Answer, History

COLUMNS = ("recipe", "what", "accuracy", "printed", "ours", "difference", "verdict", "seconds")

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


class Absent(Section):
    """A recipe that could not be run, and why."""

    recipe: str
    reason: str


@stage("compare", label="compare {recipes}", libraries=("matplotlib", "pandas"))
def compare(
    work: Work,
    *,
    recipes: tuple[Recipe, ...],
    measured: tuple[Ref, ...],
    absent: tuple[Absent, ...],
    stand_ins: tuple[str, ...],
    caching: Ref | None,
    confidence: float,
) -> dict[str, Any]:
    """Gives each recipe its verdict, answers the questions, draws the curves."""
    import pandas as pd

    found = {ref.metrics["recipe"]: Found(work, ref) for ref in measured}
    reasons = {each.recipe: each.reason for each in absent}
    rows = [
        row
        for recipe in recipes
        for row in _rows(recipe, found.get(recipe.id), reasons, recipe.id in stand_ins)
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.to_csv(work.path("recipes.csv"), index=False)
    frame.to_parquet(work.path("recipes.parquet"), index=False)
    lines = [[row[name] for name in COLUMNS] for row in rows]
    work.save_bytes("recipes.md", table(COLUMNS, lines).encode())
    answers = [answer.to_json() for answer in _answer(found, work, caching, confidence)]
    work.save_json("answers.json", answers)
    drawn = []
    for number, (title, alt, figure) in enumerate(_draw(found), start=1):
        name = f"recipes-{number}"
        for kind in ("png", "svg"):
            work.save_bytes(f"{name}.{kind}", figures.render(figure, kind))
        drawn.append({"name": name, "title": title, "alt": alt})
    return {
        "verdicts": {name: [r["verdict"] for r in rows].count(name) for name in _verdicts(rows)},
        "tables": [
            {
                "name": "recipes",
                "title": "Printed figures and ours, test or validation accuracy in %",
                "columns": list(COLUMNS),
                "rows": lines,
            },
            _answers_table(answers, confidence),
        ],
        "figures": drawn,
    }


class Found:
    """What was measured of one recipe."""

    def __init__(self, work: Work, ref: Ref) -> None:
        self.networks: list[dict[str, float]] = ref.metrics["networks"]
        self.rows: dict[str, int] = ref.metrics["rows"]
        told = work.json(ref, "histories.json")
        self.histories: list[History] = list(told.values())
        self.seconds = list(_seconds(work, ref))

    def of(self, quantity: str) -> list[float]:
        """One value a seed."""
        return [network[quantity] for network in self.networks]

    def rows_of(self, quantity: Quantity) -> int:
        """How many images a quantity is measured on."""
        known = {"test": self.rows["test"], "train": self.rows["train"], "first 100": 100}
        return known.get(quantity, self.rows["validation"])


def _seconds(work: Work, ref: Ref) -> Iterator[float]:
    """How long each network took to train when it was."""
    manifest = work.store.manifest(ref.stage, ref.key)
    for name, given in (manifest.inputs if manifest else {}).items():
        if name.startswith("trained"):
            made = work.store.manifest(given.stage, given.key)
            yield made.seconds if made else float("nan")


def _verdicts(rows: list[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(row["verdict"] for row in rows))


def _rows(
    recipe: Recipe, found: Found | None, reasons: Mapping[str, str], stand_in: bool
) -> Iterator[dict[str, str]]:
    from models.verdicts import compare_figures, give_verdict

    what = recipe.title + (f" (as printed: {recipe.defect})" if recipe.defect else "")
    row = dict.fromkeys(COLUMNS, "") | {"recipe": recipe.id, "what": what}
    if found is None:
        reason = reasons.get(recipe.id)
        yield row | {"verdict": f"not run: {reason}" if reason else "drawn in the report"}
        return
    for printed in recipe.printed or (Printed(quantity="test", values=(0,)),):
        values = [value / 100 for value in printed.values] if recipe.printed else []
        ours = found.of(printed.quantity)
        compared = compare_figures(values, ours, found.rows_of(printed.quantity))
        yield row | {
            "accuracy": QUANTITIES[printed.quantity],
            "printed": ", ".join(f"{100 * value:.2f}" for value in values),
            "ours": f"{percent(compared.ours)} ({percent(compared.low)} to "
            f"{percent(compared.high)}, {len(ours)})",
            "difference": ""
            if compared.difference is None
            else f"{100 * compared.difference:+.2f}",
            "verdict": give_verdict(recipe, compared, stand_in),
            "seconds": f"{sum(found.seconds):.0f}",
        }


def _answer(
    found: Mapping[str, Found], work: Work, caching: Ref | None, confidence: float
) -> Iterator["Answer"]:
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
) -> Iterator["Answer"]:
    """Whether a way of training is faster, better, and overfits less, seed by seed."""
    from models.questions import common_loss, compare_pairs, compare_ratios, epochs_to

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


def _answer_caching(work: Work, caching: Ref, confidence: float) -> Iterator["Answer"]:
    from models.questions import compare_ratios

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


def _answer_cut(found: Mapping[str, Found], confidence: float) -> Iterator["Answer"]:
    from models.intervals import mean_interval
    from models.questions import Answer

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


def _answers_table(answers: list[dict[str, Any]], confidence: float) -> dict[str, Any]:
    rows = [
        [
            answer["question"],
            answer["text"],
            answer["quantity"],
            f"{answer['value']:.2f} ({answer['low']:.2f} to {answer['high']:.2f})",
        ]
        for answer in answers
    ]
    return {
        "name": "answers",
        "title": f"The documents' questions, with {100 * confidence:g}% intervals over the seeds",
        "columns": ["question", "answer", "measured", "value (interval)"],
        "rows": rows,
    }


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
        "leaky ReLU, slope 0.05": np.where(x > 0, x, 0.05 * x),
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

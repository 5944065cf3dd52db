"""Stage publish: figures, tables and the model card as files."""

from typing import Any

from artifacts import figures
from artifacts.card import results_card
from artifacts.pictures import draw
from artifacts.reference import Ref
from artifacts.summary import results_markdown
from tasks.stage import Work, stage

LOGS = "tensorboard"


@stage("publish", label="draw figures and tables", libraries=("matplotlib",))
def publish(
    work: Work,
    *,
    pretrained: Ref,
    heads: Ref,
    trained: tuple[Ref, ...],
    evaluation: Ref,
    tensorboard: bool,
) -> dict[str, Any]:
    """Draws the figures and writes the tables and the model card."""
    measured = evaluation.metrics
    histories = {
        "pretraining": work.json(pretrained, "history.json"),
        **_target_histories(work, heads, trained),
    }
    shown = ("pretraining", measured["chosen"], *measured["baselines"])
    images = work.array(evaluation, "mistakes.npy")
    described = []
    for picture in draw(measured, {name: histories[name] for name in shown}, images):
        for kind in ("png", "svg"):
            content = figures.render(picture.figure, kind)
            work.save_bytes(f"{picture.name}.{kind}", content)
        described.append({"name": picture.name, "title": picture.title, "alt": picture.alt})
    work.save_bytes("results.md", results_markdown(measured).encode())
    digests = {ref.stage: ref.digest for ref in (pretrained, heads, *trained, evaluation)}
    work.save_bytes("model-card.md", results_card(measured, digests).encode())
    if tensorboard:
        _save_events(work, histories)
    return {"figures": described}


def _target_histories(work: Work, heads: Ref, trained: tuple[Ref, ...]) -> dict[str, Any]:
    """A history for each result's name; of an ensemble the first network's, its phases joined."""
    histories = {
        f"head on {layer}": history for layer, history in work.json(heads, "history.json").items()
    }
    for ref in trained:
        first = [
            history
            for name, history in work.json(ref, "history.json").items()
            if name.startswith("network1-")
        ]
        histories[ref.metrics["title"]] = {
            name: [value for phase in first for value in phase[name]] for name in first[0]
        }
    return histories


def _save_events(work: Work, histories: dict[str, Any]) -> None:
    # Only who asks for logs pays for TensorFlow here.
    from models.events import write_events

    for name, history in histories.items():
        write_events(history, work.path(LOGS) / name)

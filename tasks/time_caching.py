"""Stage time-caching: how much quicker a head learns from cached activations."""

import time
from typing import Any

from artifacts.reference import Ref
from models.config import Network
from models.strategies import Strategy
from tasks.stage import Work, stage
from tasks.train import read_inputs
from tasks.trained import load_classifier

ROUNDS = 5
SECONDS = "seconds.json"


@stage("time-caching", label="time training with and without cached activations")
def time_caching(
    work: Work,
    *,
    base: Ref,
    dataset: Ref,
    split: Ref,
    activations: Ref,
    network: Network,
    frozen: Strategy,
    cached: Strategy,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """Trains the same head both ways in turn; how long that took is no part of the result."""
    from models.runtime import use_threads
    from models.training import fit
    from models.transfer import build_network, freeze_below

    use_threads(threads)
    pretrained = load_classifier(work, base)
    classes = len(split.metrics["classes"])

    def train(strategy: Strategy) -> tuple[float, int, float]:
        source = activations if strategy.above else None
        rows = read_inputs(work, dataset, split, "train", strategy, source)
        held_out = read_inputs(work, dataset, split, "validation", strategy, source)
        model = build_network(strategy, pretrained, network, rows[0], classes, seed)
        (phase,) = strategy.phases
        freeze_below(model, phase.layers)
        settings = strategy.training_of(phase)
        started = time.perf_counter()
        history = fit(model, *rows, settings=settings, validation=held_out, seed=seed).history
        return time.perf_counter() - started, len(history["loss"]), min(history["val_loss"])

    ways = {"uncached": frozen, "cached": cached}
    for strategy in ways.values():
        train(strategy)  # Compiles.
    taken: dict[str, list[float]] = {name: [] for name in ways}
    epochs, losses = {}, {}
    for _ in range(ROUNDS):
        for name, strategy in ways.items():
            seconds, epochs[name], losses[name] = train(strategy)
            taken[name].append(seconds)
    manifest = work.store.manifest(activations.stage, activations.key)
    work.save_json(SECONDS, {**taken, "caching": manifest.seconds if manifest else 0.0})
    work.draft.volatile = (SECONDS,)
    return {"epochs": epochs, "validation_loss": losses}

"""One night as plain steps: take in, retrain, compare, promote or keep, tidy up, tell.

Knows neither Prefect nor the clock: ``flows.nightly`` brings both, a simulated month others.
"""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from artifacts import registry
from artifacts.garbage import describe_size, find_garbage, remove
from artifacts.nights import NightRecord, begin_night, load_nights, save_night, without_promotion
from artifacts.reference import Ref
from artifacts.store import Manifest, Store, StoreError
from artifacts.summary import percent
from flows.champions import doubt_by, judge, make_candidate
from flows.ingest import Ingested, dataset_now, ingest
from flows.notices import Notice
from models.comparison import Verdict
from models.config import Config

WHO = "nightly-retrain"


class Step(Protocol):
    """Runs a part of the night that has a name; what watches can show it."""

    def __call__(self, name: str, part: Callable[[], Any], /) -> Any:
        """Gives what the part gives."""


@dataclass(frozen=True)
class Around:
    """What a night needs from outside.

    Attributes:
        retrain: Runs the pipeline with some settings and gives its evaluation.
        tell: Sends a notice.
        now: The time, with its zone.
        step: Runs each part.
        bury: Told of each earlier night whose process died.
        flow_run_id: Of the night in Prefect's database, if it is there.
    """

    retrain: Callable[[Config], Manifest]
    tell: Callable[[Notice], None]
    now: Callable[[], datetime]
    step: Step
    bury: Callable[[NightRecord], None] = lambda record: None
    flow_run_id: str = ""


def run_night(config: Config, store: Store, around: Around) -> NightRecord:
    """Runs one night to its end; a second one at the same time waits for it.

    Args:
        config: All settings; the dataset as it was before anything came in.
        store: Where everything lies.
        around: What a night needs from outside.

    Returns:
        The record, also kept in the store.
    """
    with store.lock(".nights", "night"):
        _bury_dead(store, around)
        record = begin_night(around.now(), around.flow_run_id)
        save_night(store.root, record)
        try:
            record = _work(config, store, around, record)
        except Exception as error:
            failed = {"status": "failed", "error": str(error) or type(error).__name__}
            _clear_up(store, config, record.model_copy(update=failed))
            raise
    for notice in _notices(record, config, without_promotion(store.root)):
        around.tell(notice)
    return record


def _bury_dead(store: Store, around: Around) -> None:
    """Tells of nights that never came to their end; whoever asks holds the lock of the night."""
    for record in list(load_nights(store.root)):
        if record.status == "running":
            save_night(store.root, record.model_copy(update={"status": "died"}))
            around.bury(record)
            title = "headstart: a night died"
            text = (
                f"The process of the night of {record.started} is gone; this one goes on from it."
            )
            around.tell(Notice("failure", title, text))


def _work(config: Config, store: Store, around: Around, record: NightRecord) -> NightRecord:
    champion = _whole_champion(store)
    doubt = doubt_by(store, champion, config) if champion else _believe
    came: Ingested = around.step("ingest", lambda: ingest(store, config, doubt))
    evaluation = around.retrain(dataset_now(config, came))
    challenger: Ref = around.step("package", lambda: make_candidate(store, evaluation))
    verdict: Verdict = around.step("decide", lambda: decide(store, challenger, config))
    freed: int = around.step("tidy up", lambda: tidy_up(store, config))
    present = registry.champion(store)
    done = record.model_copy(
        update={
            "status": "completed",
            "deliveries": tuple(asdict(outcome) for outcome in came.outcomes),
            **{name: came.total(name) for name in ("accepted", "duplicates", "rejected")},
            "challenger": challenger.key,
            "challenger_accuracy": challenger.metrics["accuracy"],
            "champion": present.model.key if present else "",
            "promoted": verdict.promote,
            "why": verdict.why,
            "accuracy": present.model.metrics["accuracy"] if present else None,
            "removed_bytes": freed,
            "store_bytes": sum(f.stat().st_size for f in store.root.rglob("*") if f.is_file()),
            "free_bytes": shutil.disk_usage(store.root).free,
        }
    )
    save_night(store.root, done)
    return done


def _believe(images: object, labels: object) -> str:
    return ""


def _whole_champion(store: Store) -> Ref | None:
    """The champion; where it is damaged, the latest one that is not becomes it."""
    present = registry.champion(store)
    if present is None:
        return None
    problems = store.damage(present.model.stage, present.model.key)
    if not problems:
        return present.model
    try:
        return registry.rollback(store, WHO, f"the champion's {', '.join(problems)}").model
    except StoreError:
        return None


def decide(store: Store, challenger: Ref, config: Config) -> Verdict:
    """Promotes a challenger if it is better than the champion by the rule, or if there is none."""
    # Looked up anew: somebody may have promoted another one while this one was trained.
    champion = _whole_champion(store)
    if champion is None:
        accuracy = challenger.metrics["accuracy"]
        verdict = Verdict(True, "there was no whole champion", 0.0, accuracy, p=0.0)
    else:
        verdict = judge(store, champion, challenger, config.nightly)
    if verdict.promote:
        registry.promote(store, challenger, WHO, verdict.why)
    return verdict


def tidy_up(store: Store, config: Config) -> int:
    """Removes what retention lets go; the bytes freed."""
    limits = config.nightly
    found = find_garbage(
        store, limits.keep_runs, timedelta(days=limits.keep_days), limits.keep_champions
    )
    freed = 0
    for garbage in list(found):
        remove(store, garbage)
        freed += garbage.size
    return freed


def _clear_up(store: Store, config: Config, failed: NightRecord) -> None:
    """Makes room after a night that failed, perhaps for want of it, and keeps its record."""
    # What failed the night may fail this too; the night's own error is the one to tell.
    with contextlib.suppress(OSError, StoreError):
        tidy_up(store, config)
    with contextlib.suppress(OSError):
        save_night(store.root, failed)


def _notices(record: NightRecord, config: Config, quiet_nights: int) -> list[Notice]:
    """What a finished night has to tell."""
    found = []
    if record.promoted:
        title = f"headstart: new champion {record.champion[:12]}"
        found.append(Notice("success", title, record.why))
    elif quiet_nights and quiet_nights % config.nightly.patience == 0:
        title = f"headstart: no promotion for {quiet_nights} nights"
        found.append(Notice("warning", title, f"The last reason: {record.why}"))
    drifted = [d["name"] for d in record.deliveries if d["class_drift"] or d["pixel_drift"]]
    if drifted:
        lines = [_describe_drift(d) for d in record.deliveries if d["name"] in drifted]
        found.append(Notice("warning", "headstart: new data has drifted", "\n".join(lines)))
    refused = [
        f"{d['name']}: {d['reason']}"
        for d in record.deliveries
        if d["refused"] and not d["pixel_drift"]
    ]
    if refused:
        found.append(Notice("warning", "headstart: deliveries refused", "\n".join(refused)))
    return found


def _describe_drift(delivery: dict[str, Any]) -> str:
    drift = delivery["drift"]
    return (
        f"{delivery['name']}: classes {drift['classes']:.2f} (limit {drift['classes_limit']:.2f}), "
        f"brightness {drift['pixels']:.2f} (limit {drift['pixels_limit']:.2f}); "
        + (f"refused: {delivery['reason']}" if delivery["reason"] else "accepted")
    )


def summarise(record: NightRecord) -> dict[str, str]:
    """What a night did, in words, by what it is about."""
    return {
        "came in": f"{record.accepted} accepted, {record.duplicates} known, "
        f"{record.rejected} in quarantine",
        "decision": f"{'promoted' if record.promoted else 'kept'}: {record.why}",
        "champion": f"{record.champion[:12]}, {percent(record.accuracy or 0)} % of the hold-out",
        "store": f"{describe_size(record.store_bytes)}, {describe_size(record.free_bytes)} free, "
        f"{describe_size(record.removed_bytes)} tidied up",
    }


def list_nights(store: Store) -> list[dict[str, Any]]:
    """The nights of a store, youngest first."""
    return [record.model_dump(mode="json") for record in load_nights(store.root)]

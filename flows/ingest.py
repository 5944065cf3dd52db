"""From the inbox into a new version of the dataset: checked, kept, and only then removed.

Whatever dies half-way leaves the delivery in the inbox, and nothing of it in the present version;
or all of it in the version, and then it is known when it is seen again. So no image is lost and
none is counted twice.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts import versions
from artifacts.files import canonical_json, sha256_bytes
from artifacts.inbox import Inbox, Parcel, digest, settled
from artifacts.store import Store
from artifacts.versions import Intake
from models.config import Config
from models.datasets import Batch, Version, find_dataset, load_dataset
from models.deliveries import DeliveryError, ReaderMissing, read_delivery
from models.incoming import Findings, Reference, fingerprints, inspect, make_reference

Array = npt.NDArray[Any]
# Images (rows, columns) and labels (rows,) to why the labels are not believed, or nothing.
Doubt = Callable[[Array, Array], str]
WHOLE = "the whole delivery"


@dataclass(frozen=True)
class Outcome:
    """What became of one delivery tonight.

    Attributes:
        name: As it was called in the inbox.
        accepted: Images that joined the dataset.
        duplicates: Images that were in it already.
        rejected: Images in quarantine.
        reason: Why the whole of it was refused or left; empty if neither.
        left: Whether it lies in the inbox still.
        refused: Whether somebody should look at it.
        drift: How far it lies from the reference, and the limits.
        class_drift: Whether its classes come in other shares than before.
        pixel_drift: Whether its images are brighter or darker than before.
    """

    name: str
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    reason: str = ""
    left: bool = False
    refused: bool = False
    drift: dict[str, float] = field(default_factory=dict)
    class_drift: bool = False
    pixel_drift: bool = False


@dataclass(frozen=True)
class Ingested:
    """What came in tonight.

    Attributes:
        dataset: What ``data.dataset`` is from now on.
        rows: New training images of each class since the beginning.
        outcomes: What became of each delivery.
    """

    dataset: str
    rows: dict[int, int]
    outcomes: tuple[Outcome, ...] = ()

    def total(self, name: str) -> int:
        """Sum of one of the counts over all deliveries."""
        return sum(getattr(outcome, name) for outcome in self.outcomes)


def ingest(store: Store, config: Config, doubt: Doubt) -> Ingested:
    """Takes in what lies in the inbox.

    Args:
        store: Where batches, versions and quarantine lie.
        config: The dataset, its classes, the inbox and the thresholds.
        doubt: Says why labels are not believed.

    Raises:
        InboxError: If the inbox cannot be read.
        StoreError: If what came in before is damaged.
    """
    with store.lock(versions.VERSION, "ingest"):
        intake = _Intake(store, config, doubt)
        if not config.nightly.inbox:
            return Ingested(intake.commit(), intake.count_rows())
        inbox = Inbox(config.nightly.inbox)
        outcomes: dict[Parcel, Outcome] = {}
        for parcel in inbox.parcels():
            if not settled(parcel, config.nightly.settle_seconds):
                outcomes[parcel] = Outcome(parcel.name, reason="is still changing", left=True)
                continue
            try:
                contents = inbox.read(parcel)
            except OSError as error:
                reason = f"cannot be read: {error.strerror or error}"
                outcomes[parcel] = Outcome(parcel.name, reason=reason, left=True, refused=True)
            else:
                outcomes[parcel] = intake.take(parcel, contents)
        dataset = intake.commit()
        for parcel, outcome in outcomes.items():
            if not outcome.left:
                inbox.remove(parcel)
        return Ingested(dataset, intake.count_rows(), tuple(outcomes.values()))


class _Intake:
    """One night's intake: what is known, what has been accepted so far."""

    def __init__(self, store: Store, config: Config, doubt: Doubt) -> None:
        self.store, self.config, self.doubt = store, config, doubt
        self.source = find_dataset(config.data.dataset)
        self.base = sha256_bytes(canonical_json(self.source.model_dump()))
        self.present = versions.present_version(store, self.base)
        self.intakes = versions.intakes_of(store, self.present)
        self.labels: list[Array] = []
        self.known: dict[bytes, int] = {}
        self.batches: list[Batch] = []
        for key in dict.fromkeys(intake.batch for intake in self.intakes if intake.batch):
            self._learn(key)
        self.reference: Reference | None = None

    def _learn(self, key: str) -> None:
        """Counts a batch among what has joined."""
        images, labels, sha256 = versions.read_batch(self.store, key)
        self.known.update(zip(fingerprints(images), map(int, labels), strict=True))
        self.labels.append(labels)
        place = f"../../{versions.BATCH}/{key}/{versions.IMAGES}"
        self.batches.append(Batch(file=place, sha256=sha256))

    def take(self, parcel: Parcel, contents: Mapping[str, bytes]) -> Outcome:
        """Checks one delivery; keeps what may join and what may not."""
        delivery = digest(parcel, dict(contents))
        if any(intake.delivery == delivery for intake in self.intakes):
            return Outcome(parcel.name, reason="was taken in before")
        if parcel.problem:
            return self._refuse(parcel.name, delivery, contents, parcel.problem)
        reference = self._get_reference()
        try:
            read = read_delivery(contents, reference.form)
        except ReaderMissing as error:
            return Outcome(parcel.name, reason=str(error), left=True, refused=True)
        except DeliveryError as error:
            return self._refuse(parcel.name, delivery, contents, str(error))
        findings = inspect(read, reference, self.known, self.config.nightly)
        images, labels = read.images[findings.accepted], read.labels[findings.accepted]
        reason = findings.refusal or self.doubt(images, labels)
        if reason:
            outcome = self._refuse(parcel.name, delivery, contents, reason, len(read.images))
            return _with_drift(outcome, findings)
        if findings.problems:
            versions.quarantine(self.store, parcel.name, delivery, contents, findings.problems)
        outcome = Outcome(
            parcel.name,
            accepted=len(images),
            duplicates=findings.duplicates,
            rejected=len(findings.problems),
        )
        batch = ""
        if len(images):
            batch = versions.add_batch(self.store, images, labels).key
            self._learn(batch)
        self._account(delivery, batch, outcome)
        return _with_drift(outcome, findings)

    def _refuse(
        self, name: str, delivery: str, contents: Mapping[str, bytes], reason: str, rows: int = 0
    ) -> Outcome:
        versions.quarantine(self.store, name, delivery, contents, {WHOLE: reason})
        return Outcome(name, rejected=rows, reason=reason, refused=True)

    def _account(self, delivery: str, batch: str, outcome: Outcome) -> None:
        self.intakes.append(
            Intake(
                name=outcome.name,
                delivery=delivery,
                batch=batch,
                accepted=outcome.accepted,
                duplicates=outcome.duplicates,
                rejected=outcome.rejected,
                when=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )

    def _get_reference(self) -> Reference:
        # Only when something came: fingerprints of a whole dataset take a moment.
        if self.reference is None:
            data = self.config.data
            dataset = load_dataset(data.dataset, source=self.source)
            self.reference = make_reference(dataset, data.source_classes + data.target_classes)
        return self.reference

    def commit(self) -> str:
        """Makes what was taken in the present version; what ``data.dataset`` is now."""
        if not self.batches:
            return self.config.data.dataset
        document = Version(
            base=self.config.data.dataset,
            source=self.source,
            held=self.config.data.validation_rows,
            batches=tuple(self.batches),
        )
        content = document.model_dump_json(indent=1).encode()
        ref = versions.add_version(self.store, self.base, content, self.present, self.intakes)
        return str(self.store.entry_path(ref.stage, ref.key) / versions.DOCUMENT)

    def count_rows(self) -> dict[int, int]:
        """New training images of each class since the beginning."""
        if not self.labels:
            return {}
        classes, counts = np.unique(np.concatenate(self.labels), return_counts=True)
        return {int(c): int(n) for c, n in zip(classes, counts, strict=True)}


def _with_drift(outcome: Outcome, findings: Findings) -> Outcome:
    if findings.drift is None:
        return outcome
    return replace(
        outcome,
        drift=asdict(findings.drift),
        class_drift=findings.drift.is_class_drift,
        pixel_drift=findings.drift.is_pixel_drift,
    )


def grow_few_shot(config: Config, rows: Mapping[int, int]) -> int:
    """How many images of each target class to train on: those asked for and all that came.

    As many for each class, so as many as came for the class that got fewest.

    Args:
        config: The settings before anything came.
        rows: New training images of each class.
    """
    new: Iterable[int] = (rows.get(wanted, 0) for wanted in config.data.target_classes)
    return config.data.few_shot + min(new)


def dataset_now(config: Config, ingested: Ingested) -> Config:
    """The settings with the dataset as it is after an intake."""
    data = {"dataset": ingested.dataset, "few_shot": grow_few_shot(config, ingested.rows)}
    return config.model_copy(update={"data": config.data.model_copy(update=data)})

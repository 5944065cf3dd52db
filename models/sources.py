"""What every dataset is to the rest: something that can be identified quickly, then read."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from models.images import Dataset, DatasetError


class Source(BaseModel):
    """What a dataset's bytes are, wherever they lie: the same content is the same source.

    Attributes:
        kind: The dataset's name, or the format of a given file or folder.
        files: SHA-256 of each file read, by its role; a given file's role is its format. Folders
            of pictures and letters that are drawn say in their own words what stands here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    files: dict[str, str]


class Material(Protocol):
    """A dataset that has been found but not read."""

    def identify(self) -> Source:
        """What it is; quick, because every command that looks at the pipeline asks.

        Raises:
            DatasetError: If it is missing or known to be damaged.
        """

    def read(self, limit: int, expected: Source | None) -> Dataset:
        """Reads and checks it.

        Args:
            limit: Keep only the first rows for training and for testing; 0 keeps all.
            expected: If given, what it must still be.

        Raises:
            DatasetError: If it is missing, damaged, changed, or not of the right form.
        """


# Takes the files' content by role and the most rows to keep (0: all).
Parser = Callable[[Mapping[str, bytes], int], Dataset]


@dataclass(frozen=True)
class Files:
    """A dataset in a few files that are read whole.

    Attributes:
        name: What the user calls it.
        kind: Of its source.
        paths: Where each file lies, by its role.
        parse: Makes the dataset of the files' content.
        known: What the SHA-256 of the content must be, by role; empty where nobody knows.
        unpacked: Whether content is what a gzipped file holds, so that the same values packed
            by another program are the same source.
        mend: What to do about a missing or damaged file.
    """

    name: str
    kind: str
    paths: Mapping[str, Path]
    parse: Parser
    known: Mapping[str, str] = field(default_factory=dict)
    unpacked: bool = False
    mend: str = ""

    def identify(self) -> Source:
        """See ``Material``; reads every byte, and keeps none."""
        return self._check({role: self._digest(path) for role, path in self.paths.items()})

    def read(self, limit: int, expected: Source | None) -> Dataset:
        """See ``Material``; what is parsed are the very bytes that were checked."""
        contents = {role: self._read(path) for role, path in self.paths.items()}
        digests = {role: hashlib.sha256(content).hexdigest() for role, content in contents.items()}
        refuse_change(self.name, self._check(digests), expected)
        try:
            return self.parse(contents, limit)
        except DatasetError as error:
            message = f"dataset {self.name}: {error}"
            raise DatasetError(message) from error.__cause__

    def _check(self, digests: dict[str, str]) -> Source:
        damaged = [role for role, digest in self.known.items() if digests[role] != digest]
        if damaged:
            files = ", ".join(str(self.paths[role]) for role in damaged)
            raise DatasetError(self._with_mend(f"dataset {self.name}: damaged {files}"))
        return Source(kind=self.kind, files=digests)

    def _digest(self, path: Path) -> str:
        # Not of the content in memory: a file of one's own may be large.
        with self._opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _read(self, path: Path) -> bytes:
        with self._opened(path) as file:
            return file.read()

    @contextmanager
    def _opened(self, path: Path) -> Iterator[io.BufferedIOBase]:
        try:
            packed = self.unpacked and path.suffix == ".gz"
            with gzip.open(path) if packed else path.open("rb") as file:
                yield file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            text = f"dataset {self.name}: damaged {path}: {error}"
            raise DatasetError(self._with_mend(text)) from error
        except (OSError, ValueError) as error:  # ValueError: a path no system can have.
            reason = getattr(error, "strerror", None) or error
            raise DatasetError(self._with_mend(f"dataset file {path}: {reason}")) from error

    def _with_mend(self, text: str) -> str:
        return f"{text}; {self.mend}" if self.mend else text


def refuse_change(name: str, found: Source, expected: Source | None) -> None:
    """Stops a run whose dataset is no longer what it was when the run began.

    Raises:
        DatasetError: If it is not.
    """
    if expected is not None and found != expected:
        message = f"dataset {name}: its bytes have changed since the run began; run again"
        raise DatasetError(message)

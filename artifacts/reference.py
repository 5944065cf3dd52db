"""References: the small values that stages hand on instead of arrays."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from artifacts.files import canonical_json, sha256_bytes


class FileDigest(BaseModel):
    """What a stored file's bytes must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int


class Ref(BaseModel):
    """Names one entry of the store and pins its content.

    Attributes:
        stage: The stage that made the entry.
        key: Hash of all that went into it; with the stage it says where the entry lies.
        digest: Hash of all that came out of it; what later stages' keys depend on.
        files: Digest and size of each file, by its path inside the entry.
        metrics: A few figures that are part of the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    key: str
    digest: str
    files: dict[str, FileDigest] = {}
    metrics: dict[str, Any] = {}

    @classmethod
    def pending(cls, stage: str) -> "Ref":
        """Stands for a result that is not there: its stage has still to run, or is left out."""
        return cls(stage=stage, key="", digest="")

    @property
    def is_pending(self) -> bool:
        """Whether there is no entry behind this reference."""
        return not self.digest


def content_digest(files: dict[str, FileDigest], metrics: dict[str, Any]) -> str:
    """Hash of what a stage made: names and digests of its files, and its metrics."""
    named = {name: file.sha256 for name, file in files.items()}
    return sha256_bytes(canonical_json({"files": named, "metrics": metrics}))

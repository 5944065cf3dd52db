"""What was found in the project's code, kept from process to process for the very same files."""

import hashlib
import json
import os
import platform
import threading
from functools import cached_property
from pathlib import Path

from artifacts import files
from tasks.fingerprint import PACKAGES, ROOT, Project

_SEAL = 64


def default_folder() -> Path:
    """Where it is kept: XDG_CACHE_HOME, else ~/.cache, as other programs' caches."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "headstart"


class RememberedProject(Project):
    """A project that is not read again while none of its files has changed.

    Reading all files and hashing them takes a tenth of the time of following every name in them.
    What is kept is sealed with the digest of those files and its own; whatever does not fit is
    found anew.
    """

    def __init__(
        self,
        root: Path = ROOT,
        packages: tuple[str, ...] = PACKAGES,
        folder: Path | None = None,
    ) -> None:
        """Args are a ``Project``'s, and the folder to keep things in."""
        super().__init__(root, packages)
        place = hashlib.sha256(str(root).encode()).hexdigest()[:16]
        self.file = (folder or default_folder()) / f"code-{place}.json"
        self._asking = threading.Lock()

    @cached_property
    def digest(self) -> str:
        """Of every source file, and of what reads them."""
        digests = {name: files.sha256_bytes(self.source(name)) for name in self.paths}
        return files.sha256_bytes(
            files.canonical_json({"python": platform.python_version(), "files": digests})
        )

    @cached_property
    def _found(self) -> dict[str, dict[str, str]]:
        try:
            sealed = self.file.read_bytes()
        except OSError:
            return {}
        seal, content = sealed[:_SEAL], sealed[_SEAL:]
        if files.sha256_bytes(content).encode() != seal:
            return {}
        kept = json.loads(content)
        found: dict[str, dict[str, str]] = kept["found"] if kept["digest"] == self.digest else {}
        return found

    def code(self, module: str, function: str) -> dict[str, str]:
        """As of a ``Project``."""
        name = f"{module}.{function}"
        # Stages may run side by side.
        with self._asking:
            if name not in self._found:
                self._found[name] = super().code(module, function)
                self._keep()
            return dict(self._found[name])

    def _keep(self) -> None:
        content = files.canonical_json({"digest": self.digest, "found": self._found})
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            sealed = files.sha256_bytes(content).encode() + content
            files.write_atomic(self.file, sealed, durable=False)
        except OSError:
            # Without it everything works, a little slower.
            return

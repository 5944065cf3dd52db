"""What makes a function a stage: its key, its place in the store, what it works with.

Imports neither Prefect nor TensorFlow, so that what would run can be told without them.
``tasks.caching`` turns a stage into a Prefect task.
"""

import importlib.metadata
import inspect
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from artifacts import files
from artifacts.reference import Ref
from artifacts.store import Draft, Store
from models.config import Config
from tasks import progress
from tasks.fingerprint import Project, library_versions
from tasks.memory import RememberedProject

Arguments = Mapping[str, Any]

# Stages that need a few fields of a section, not all of it, take them by their own name; this is
# what a user calls them. Fields of the same name in several sections are passed as a section.
SETTING_OF = {
    field: f"{section}.{field}"
    for section, group in Config.model_fields.items()
    for field in getattr(group.annotation, "model_fields", {})
    if section in ("data", "activations", "run")
}


class Untracked(str):
    """An argument that a result does not depend on, such as the place where a file lies."""


class StageError(Exception):
    """A stage cannot keep its result; the message says why and what to do."""


@cache
def project() -> Project:
    """The project's code as it is when this process first asks."""
    return RememberedProject()


class Work:
    """What a stage works with: its inputs, checked as they are read, and its unfinished entry."""

    def __init__(self, store: Store, draft: Draft) -> None:
        self.store = store
        self.draft = draft
        self.resumed = False

    def array(self, ref: Ref, name: str) -> npt.NDArray[Any]:
        """An input's array as a read-only memory map."""
        return self.store.array(ref, name)

    def json(self, ref: Ref, name: str) -> Any:
        """An input's JSON file."""
        return json.loads(self.store.read_bytes(ref, name))

    def arrays(self, ref: Ref, name: str) -> dict[str, npt.NDArray[Any]]:
        """An input's .npz file."""
        return files.unpack_arrays(self.store.read_bytes(ref, name))

    def content(self, ref: Ref, name: str) -> bytes:
        """An input's file as it is."""
        return self.store.read_bytes(ref, name)

    def file(self, ref: Ref, name: str) -> Path:
        """The path of an input's file."""
        return self.store.file(ref, name)

    def path(self, name: str) -> Path:
        """Where to write a file of the result."""
        path = self.draft.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def save_array(self, name: str, array: npt.NDArray[Any]) -> None:
        """Makes an array part of the result, as .npy."""
        # Not np.save, which says neither why nor where it failed when the disk is full.
        if array.dtype.hasobject:
            msg = f"{name}: an array of Python objects cannot be stored without running code"
            raise ValueError(msg)
        array = np.ascontiguousarray(array)
        with self.path(name).open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(array.data)

    def save_arrays(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Makes named arrays part of the result, as .npz."""
        self.path(name).write_bytes(files.pack_arrays(arrays))

    def save_json(self, name: str, value: object) -> None:
        """Makes a value part of the result, as JSON."""
        self.path(name).write_bytes(json.dumps(value, indent=1, allow_nan=False).encode())

    def save_bytes(self, name: str, content: bytes) -> None:
        """Makes bytes part of the result."""
        self.path(name).write_bytes(content)

    def save_state(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keeps what this stage can go on from if it dies; replaced atomically."""
        content = files.pack_arrays(arrays)
        sealed = files.sha256_bytes(content).encode() + content
        files.write_atomic(self.state(name), sealed)

    def load_state(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """What an earlier try at this stage left, if it is whole."""
        try:
            sealed = self.state(name).read_bytes()
        except OSError:
            return None
        content = sealed[64:]
        if files.sha256_bytes(content).encode() != sealed[:64]:
            return None
        self.resumed = True
        return files.unpack_arrays(content)

    def state(self, name: str) -> Path:
        """The path of a file that this stage can go on from."""
        return self.store.state_path(self.draft.stage, self.draft.key) / name

    def progress(self, text: str, done: int, total: int, **values: float) -> None:
        """Tells whoever watches how far the stage is."""
        progress.emit(progress.Event(self.draft.stage, "progress", text, done, total, dict(values)))


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        function: Called with a ``Work`` and the stage's arguments (references and sections of
            the settings); writes files, returns the metrics.
        name: As it is called on the command line and in the store.
        label: What one run of it does, with ``{argument.field}`` to be filled in.
        libraries: What the result depends on besides the numeric libraries.
    """

    function: Callable[..., dict[str, Any]]
    name: str
    label: str
    libraries: tuple[str, ...] = ()

    def named(self, name: str) -> "Stage":
        """The same stage as one of several: ``train.named("full")`` is ``train-full``."""
        return replace(self, name=f"{self.name}-{name}")

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def describe(self, arguments: Arguments) -> str:
        """The label filled in: ``split source classes 0, 1, 2``."""
        plain = {
            name: ", ".join(map(str, value)) if isinstance(value, tuple) else value
            for name, value in arguments.items()
        }
        return self.label.format(**plain)

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """The stage's arguments: all of the function's but the ``Work``."""
        return list(inspect.signature(self.function).parameters.values())[1:]

    def code(self) -> dict[str, str]:
        """Hash of each definition the stage can reach."""
        return project().code(self.function.__module__, self.function.__name__)

    def versions(self) -> dict[str, str]:
        """Releases of the libraries that the result depends on."""
        own = {name: importlib.metadata.version(name) for name in self.libraries}
        return {**library_versions(), **own}

    def fingerprint(self, arguments: Arguments) -> str:
        """Hash of the arguments alone, as long as code and libraries stay as they are."""
        return files.sha256_bytes(files.canonical_json(_identities(arguments)))

    def key(self, arguments: Arguments) -> str:
        """Hash of all that the result depends on: same key, same result."""
        parts = {
            "stage": self.name,
            "arguments": _identities(arguments),
            "code": self.code(),
            "versions": self.versions(),
        }
        return files.sha256_bytes(files.canonical_json(parts))[:40]

    def run(self, arguments: Arguments, store: Store, before: bytes | None) -> tuple[Ref, bool]:
        """Computes the result and stores it.

        Args:
            arguments: References and settings, by name.
            store: Where inputs lie and the result goes.
            before: The entry's manifest as it was when it was decided to run. If another process
                has made the entry since, that entry is taken.

        Returns:
            The reference, and whether the result was computed here.
        """
        key = self.key(arguments)
        with store.lock(self.name, key):
            if store.raw_manifest(self.name, key) != before:
                made_meanwhile = store.find(self.name, key)
                if made_meanwhile:
                    return made_meanwhile, False
            with store.draft(self.name, key) as draft:
                ref = self._compute(arguments, store, draft)
            store.forget_state(self.name, key)
        return ref, True

    def _compute(self, arguments: Arguments, store: Store, draft: Draft) -> Ref:
        code = self.code()
        work = Work(store, draft)
        started = time.perf_counter()
        draft.metrics = self.function(work, **arguments)
        seconds = time.perf_counter() - started
        self._refuse_changed_code(code)
        return store.commit(
            draft,
            inputs=inputs_of(arguments),
            settings=settings_of(arguments),
            code=code,
            versions=self.versions(),
            host=_host(),
            seconds=round(seconds, 3),
            resumed=work.resumed,
        )

    def _refuse_changed_code(self, code: dict[str, str]) -> None:
        if not project().changed_files(code):
            return
        now = Project(project().root, project().packages).code(
            self.function.__module__, self.function.__name__
        )
        changed = sorted(name for name, _ in code.items() ^ now.items())
        if changed:
            msg = (
                f"{', '.join(dict.fromkeys(changed))} changed while {self.name} ran, so which "
                "code made its result cannot be told; it is not kept. Run again"
            )
            raise StageError(msg)


def stage(
    name: str, label: str, libraries: tuple[str, ...] = ()
) -> Callable[[Callable[..., dict[str, Any]]], Stage]:
    """Declares a function to be a stage; the arguments are the fields of ``Stage``.

    Raises:
        TypeError: If the function is made inside another one: what it closes over cannot be seen
            in its code, so two different functions could share a key. If an argument has a
            default: Prefect fills it in, the plan does not, and their keys would differ.
    """

    def declare(function: Callable[..., dict[str, Any]]) -> Stage:
        if not function.__qualname__.isidentifier() or function.__closure__:
            msg = f"stage {name!r}: {function.__qualname__} must be defined at the top of a module"
            raise TypeError(msg)
        made = Stage(function, name, label, libraries)
        defaulted = [p.name for p in made.parameters if p.default is not p.empty]
        if defaulted:
            msg = f"stage {name!r}: {', '.join(defaulted)} must be given by whoever calls it"
            raise TypeError(msg)
        return made

    return declare


def inputs_of(arguments: Arguments) -> dict[str, Ref]:
    """The references among a stage's arguments; those of a list are ``name 1``, ``name 2``."""
    found: dict[str, Ref] = {}
    for name, value in arguments.items():
        if isinstance(value, Ref):
            found[name] = value
        elif _is_inputs(value):
            found.update({f"{name} {number}": ref for number, ref in enumerate(value, start=1)})
    return found


def _is_inputs(value: object) -> TypeGuard[tuple[Ref, ...]]:
    return isinstance(value, tuple) and any(isinstance(part, Ref) for part in value)


def settings_of(arguments: Arguments) -> dict[str, Any]:
    """The settings among a stage's arguments, flat: ``{"pretrain.patience": 20, ...}``."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if value is None or isinstance(value, Ref | Untracked) or _is_inputs(value):
            continue
        if isinstance(value, BaseModel):
            flat.update(_flatten(name, value.model_dump(mode="json")))
        else:
            # As a manifest gives it back: JSON has lists, no tuples.
            flat[SETTING_OF.get(name, name)] = list(value) if isinstance(value, tuple) else value
    return flat


def _flatten(name: str, value: object) -> Iterator[tuple[str, Any]]:
    """The fields of a section, and of sections inside it, by the names that users know."""
    name = {"strategy.training": "transfer"}.get(name, name)
    if isinstance(value, dict) and value and all(map(str.isidentifier, value)):
        for field, inner in value.items():
            yield from _flatten(f"{name}.{field}", inner)
    else:
        yield name, value


def _identities(arguments: Arguments) -> dict[str, object]:
    return {
        name: _identity(value)
        for name, value in arguments.items()
        if not isinstance(value, Untracked)
    }


def _identity(value: object) -> object:
    # What an input holds counts, not how it came about: the same bytes made by other code leave
    # later stages cached.
    if isinstance(value, Ref):
        return {"digest": value.digest}
    if isinstance(value, tuple):
        return [_identity(part) for part in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value


def _host() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
    }

"""Imports point one way, and what plans or shows a run never pays for TensorFlow.

flows -> tasks -> {models, artifacts}. ``models.config`` holds plain values that anyone may
import; ``artifacts.reference`` too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "flows": {"flows", "tasks", "models", "artifacts"},
    "tasks": {"tasks", "models", "artifacts"},
    "models": {"models"},
    "artifacts": {"artifacts"},
}
PLAIN_VALUES = {"models.config", "artifacts.reference"}


def modules(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


EVERY_MODULE = [name for package in MAY_IMPORT for name in modules(package)]


def source_of(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    package = path / "__init__.py"
    # A folder that is no package may stand beside a module of its name: artifacts/store is one.
    return package if package.is_file() else path.with_suffix(".py")


def imports_of(module: str) -> Iterator[str]:
    """The modules that a module names in any import, inside functions too."""
    path = source_of(module)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            # `from models import config` names a module too.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_allowed(module: str, imported: str) -> bool:
    package, _, _ = imported.partition(".")
    if package not in MAY_IMPORT or package in MAY_IMPORT[module.partition(".")[0]]:
        return True
    # `from models.config import Config` also shows as models.config.Config.
    return any(imported == plain or imported.startswith(f"{plain}.") for plain in PLAIN_VALUES)


@pytest.mark.parametrize("module", EVERY_MODULE)
def test_imports_point_one_way(module):
    wrong = [name for name in imports_of(module) if not is_allowed(module, name)]
    assert not wrong, f"{module} imports {', '.join(wrong)}"


@pytest.mark.parametrize("module", modules("models") + modules("artifacts"))
def test_what_computes_and_what_keeps_know_nothing_of_prefect(module):
    assert "prefect" not in {name.partition(".")[0] for name in imports_of(module)}


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("import tasks.split", False),
        ("from tasks import split", False),
        ("def f():\n    from flows.cli import main", False),
        ("from models.config import Data", True),
        ("from models import config", False),  # Runs models/__init__.py's names: name the module.
        ("import models.config", True),
        ("import models.networks", False),
        ("from artifacts import files", True),
        ("from . import files", True),
        ("import numpy as np", True),
    ],
)
def test_the_rule_is_told_from_the_text(tmp_path, monkeypatch, text, allowed):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "store.py").write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    found = [is_allowed("artifacts.store", name) for name in imports_of("artifacts.store")]
    assert all(found) is allowed


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(modules("flows") + modules("tasks") + modules("artifacts"), id="all-above"),
        pytest.param(["models", "models.config", "models.datasets"], id="plain-values"),
    ],
)
def test_importing_does_not_import_tensorflow(names):
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    for heavy in ('tensorflow', 'keras'):\n"
        "        assert heavy not in sys.modules, f'{name} imports {heavy}'\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr

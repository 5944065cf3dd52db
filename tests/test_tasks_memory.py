"""What was found in the code is kept, and never believed of other code."""

import os
from pathlib import Path

import pytest

from tasks.fingerprint import Project
from tasks.memory import RememberedProject

SOURCES = {
    "a": "def helper(): return 1",
    "run": "from toy.a import helper\ndef work(): return helper()",
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / "toy" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def remember(toy: Path) -> RememberedProject:
    return RememberedProject(toy, ("toy",), toy / "kept")


def code(project: Project) -> dict[str, str]:
    return project.code("toy.run", "work")


@pytest.fixture
def parsed(monkeypatch):
    """Names of the modules that are parsed."""
    names = []
    parse = Project.module
    monkeypatch.setattr(
        Project, "module", lambda self, name: names.append(name) or parse(self, name)
    )
    return names


def test_what_is_kept_is_what_is_found(toy, parsed):
    fresh = code(Project(toy, ("toy",)))
    assert code(remember(toy)) == fresh
    parsed.clear()
    assert code(remember(toy)) == fresh
    assert parsed == []


@pytest.mark.parametrize("file", ["a", "run", "new"])
def test_after_any_edit_the_code_is_read_again(toy, parsed, file):
    code(remember(toy))
    parsed.clear()
    (toy / "toy" / f"{file}.py").write_text("def helper(): return 2\ndef work(): return helper()")
    assert code(remember(toy)) == code(Project(toy, ("toy",)))
    assert parsed


@pytest.mark.parametrize("damage", [b"", b"{}", b"x" * 200, None])
def test_what_is_damaged_is_not_believed(toy, damage):
    project = remember(toy)
    right = code(project)
    content = project.file.read_bytes()
    project.file.write_bytes(content.replace(b"a.py", b"b.py") if damage is None else damage)
    assert code(remember(toy)) == right


def test_a_folder_that_cannot_be_written_is_done_without(toy):
    (toy / "kept").write_text("a file in its place")
    assert code(remember(toy)) == code(Project(toy, ("toy",)))


def test_files_changed_since_they_were_read_are_known_even_if_nothing_was_parsed(toy):
    code(remember(toy))
    project = remember(toy)
    reached = code(project)
    assert project.changed_files(reached) == []
    (toy / "toy" / "a.py").write_text("def helper(): return 3")
    assert project.changed_files(reached) == ["toy/a.py"]


def test_another_checkout_has_a_place_of_its_own(toy, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    folder = toy / "kept"
    assert (
        RememberedProject(toy, folder=folder).file != RememberedProject(other, folder=folder).file
    )


def test_the_users_cache_folder_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    assert RememberedProject().file.parent == tmp_path / "headstart"

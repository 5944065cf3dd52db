"""Which code a stage's key covers: all that can change its result, nothing that cannot."""

import ast
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artifacts.reference import Ref
from flows.pipeline import pipeline
from models.config import Config
from models.sources import Source
from tasks.fingerprint import BOUNDARY, PACKAGES, ROOT, Project
from tasks.stage import Stage
from tasks.train import train

# Generated edits of each sort; seconds for a hundred.
EDITS = int(os.environ.get("HEADSTART_EDITS", "100"))

Sources = dict[str, str]


def project(root: Path, sources: Sources) -> Project:
    """A project of one package ``toy``: a text for each module, by its name."""
    for name, text in {"": "", **sources}.items():
        path = root / "toy" / name.replace(".", "/")
        file = path / "__init__.py" if name in ("", "package") else path.with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Project(root, ("toy",))


def code(root: Path, sources: Sources) -> dict[str, str]:
    return project(root, sources).code("toy.run", "work")


def codes_with(root: Path, sources: Sources, *values: str) -> list[dict[str, str]]:
    """The code with each value in place of the word THIS."""
    edited = [{n: text.replace("THIS", value) for n, text in sources.items()} for value in values]
    return [code(root / str(number), each) for number, each in enumerate(edited)]


HELPER = {"a": "def helper():\n    return THIS\n"}

MATTERS: dict[str, Sources] = {
    "its own body": {"run": "def work():\n    return THIS"},
    "a helper three imports away": {
        "run": "from toy.a import a\ndef work(): return a()",
        "a": "from toy.b import b\ndef a(): return b()",
        "b": "from toy.c import c\ndef b(): return c()",
        "c": "def c(): return THIS",
    },
    "an import inside a function": {
        **HELPER,
        "run": "def work():\n    from toy.a import helper\n    return helper()",
    },
    "an import in a nested function": {
        **HELPER,
        "run": "def work():\n    def inner():\n        from toy.a import helper\n"
        "        return helper()\n    return inner()",
    },
    "one of two nested functions that import the same name": {
        **HELPER,
        "b": "def helper(): return 1",
        "run": "def work():\n    def one():\n        from toy.a import helper\n"
        "        return helper()\n    def two():\n        from toy.b import helper\n"
        "        return helper()\n    return one() + two()",
    },
    "import a.b": {**HELPER, "run": "import toy.a\ndef work(): return toy.a.helper()"},
    "import a.b as c": {**HELPER, "run": "import toy.a as c\ndef work(): return c.helper()"},
    "from a import b": {**HELPER, "run": "from toy import a\ndef work(): return a.helper()"},
    "from a import b as c": {
        **HELPER,
        "run": "from toy.a import helper as h\ndef work(): return h()",
    },
    "a relative import": {**HELPER, "run": "from .a import helper\ndef work(): return helper()"},
    "a relative import of a module": {
        **HELPER,
        "run": "from . import a\ndef work(): return a.helper()",
    },
    "a relative import from below": {
        **HELPER,
        "package": "",
        "package.b": "from ..a import helper\ndef b(): return helper()",
        "run": "from toy.package.b import b\ndef work(): return b()",
    },
    "a name passed on by a package": {
        "package": "from toy.package.core import helper",
        "package.core": "def helper(): return THIS",
        "run": "from toy.package import helper\ndef work(): return helper()",
    },
    "a name passed on under another name": {
        "package": "from .core import helper as public",
        "package.core": "def helper(): return THIS",
        "run": "import toy.package\ndef work(): return toy.package.public()",
    },
    "a name passed on by a star import": {
        "package": "from toy.package.core import *",
        "package.core": "def helper(): return THIS",
        "run": "from toy.package import helper\ndef work(): return helper()",
    },
    "a star import of a package that passes on": {
        "package": "from toy.package.core import helper",
        "package.core": "def helper(): return THIS",
        "run": "from toy.package import *\ndef work(): return helper()",
    },
    "a function called as the module it came from": {
        "package": "from toy.package.helper import helper",
        "package.helper": "def helper(): return THIS",
        "run": "from toy.package import helper\ndef work(): return helper()",
    },
    "a function called as a module it did not come from": {
        "package": "from toy.package.core import helper",
        "package.helper": "",
        "package.core": "def helper(): return THIS",
        "run": "from toy.package import helper\ndef work(): return helper()",
    },
    "a star import": {**HELPER, "run": "from toy.a import *\ndef work(): return helper()"},
    "imports in a circle": {
        "a": "from toy.b import b\ndef a(): return 1",
        "b": "from toy.a import a\ndef b(): return a() + THIS",
        "run": "from toy.a import b\ndef work(): return b()",
    },
    "a package without __init__": {
        "folder.a": "def helper(): return THIS",
        "run": "import toy.folder.a\ndef work(): return toy.folder.a.helper()",
    },
    "a package without __init__, imported by itself": {
        "folder.a": "def helper(): return THIS",
        "run": "import toy.folder.a\nfrom toy import folder\ndef work(): return folder.a.helper()",
    },
    "a constant": {"a": "RATE = THIS", "run": "from toy.a import RATE\ndef work(): return RATE"},
    "one constant of several bound at once": {
        "run": "(A, B), C = (1, 2), THIS\ndef work(): return B"
    },
    "an annotated constant": {"run": "RATE: float = THIS\ndef work(): return RATE"},
    "a constant added to": {"run": "TOTAL = 1\nTOTAL += THIS\ndef work(): return TOTAL"},
    "a table filled later": {"run": "TABLE = {}\nTABLE['a'] = THIS\ndef work(): return TABLE"},
    "an alias": {
        **HELPER,
        "run": "from toy.a import helper\nalias = helper\ndef work(): return alias()",
    },
    "a decorator of a helper": {
        "a": "def twice(function): return lambda: function() * THIS",
        "run": "from toy.a import twice\n@twice\ndef helper(): return 1\n"
        "def work(): return helper()",
    },
    "a decorator's argument": {
        "run": "from functools import lru_cache\n@lru_cache(THIS)\ndef helper(): return 1\n"
        "def work(): return helper()",
    },
    "a default argument": {
        **HELPER,
        "run": "from toy.a import helper\ndef inner(x=helper()): return x\n"
        "def work(): return inner()",
    },
    "a method": {
        "a": "class Model:\n    def fit(self):\n        return THIS",
        "run": "from toy.a import Model\ndef work(): return Model().fit()",
    },
    "a base class": {
        "a": "class Base:\n    rate = THIS",
        "run": "from toy.a import Base\nclass Model(Base): pass\ndef work(): return Model()",
    },
    "a class attribute": {"run": "class A:\n    rate: int = THIS\ndef work(): return A.rate"},
    "a method that uses a helper": {
        **HELPER,
        "run": "from toy.a import helper\nclass Model:\n    def fit(self): return helper()\n"
        "def work(): return Model().fit()",
    },
    "a nested function": {"run": "def work():\n    def inner(): return THIS\n    return inner()"},
    "a lambda": {"run": "pick = lambda x: x + THIS\ndef work(): return pick(1)"},
    "a comprehension": {**HELPER, "run": "from toy import a\ndef work(): return [a.helper()]"},
    "a function only handed on": {
        **HELPER,
        "run": "from toy.a import helper\ndef work(): return map(helper, [])",
    },
    "a name in an annotation": {
        **HELPER,
        "run": "from toy.a import helper\ndef work(x: helper = None): return x",
    },
    "getattr on a module": {
        **HELPER,
        "run": "from toy import a\ndef work(): return getattr(a, 'help' + 'er')()",
    },
    "getattr on a package that passes on": {
        "package": "from toy.package.core import helper",
        "package.core": "def helper(): return THIS",
        "run": "import toy.package as p\ndef work(): return getattr(p, 'help' + 'er')()",
    },
    "a module under another name": {
        **HELPER,
        "run": "from toy import a\ndef work():\n    b = a\n    return b.helper()",
    },
    "a module imported by its name as a text": {
        **HELPER,
        "run": "import importlib\ndef work(): return importlib.import_module('toy.a').helper()",
    },
    "the first of two imports to choose from": {
        **HELPER,
        "b": "def helper(): return 1",
        "run": "try:\n    from toy.a import helper\nexcept ImportError:\n"
        "    from toy.b import helper\ndef work(): return helper()",
    },
    "the second of two imports to choose from": {
        **HELPER,
        "b": "def helper(): return 1",
        "run": "import sys\nif sys.platform == 'x':\n    from toy.b import helper\nelse:\n"
        "    from toy.a import helper\ndef work(): return helper()",
    },
    "a condition at the top of a module": {
        "run": "if THIS > 1:\n    RATE = 1\nelse:\n    RATE = 2\ndef work(): return RATE"
    },
    "a function in one branch": {
        "run": "if 1:\n    def helper(): return THIS\ndef work(): return helper()"
    },
    "a name bound by `with`": {
        "run": "with open('f', THIS) as file:\n    X = 1\ndef work(): return file"
    },
    "a name bound in a condition": {"run": "if n := THIS:\n    X = 1\ndef work(): return n"},
    "a loose statement": {"a": "print(THIS)\nX = 1", "run": "from toy.a import X\ndef work(): X"},
    "a loose statement beside others in a block": {
        "a": "if 1:\n    X = 1\n    print(THIS)\nY = 1",
        "run": "from toy.a import Y\ndef work(): return Y",
    },
    "a loose statement of a package above": {
        **HELPER,
        "package": "print(THIS)",
        "package.a": "def helper(): return 1",
        "run": "from toy.package.a import helper\ndef work(): return helper()",
    },
    "a loose statement of a module imported for its effect": {
        "a": "print(THIS)",
        "run": "import toy.a\ndef work(): return 1",
    },
    "an attribute of another module set at the top": {
        "a": "import numpy\nnumpy.rate = THIS\ndef helper(): return 1",
        "run": "from toy.a import helper\ndef work(): return helper()",
    },
    "a function that registers itself": {
        "a": "TABLE = {}\ndef register(f):\n    TABLE[f.__name__] = f\n    return f\n"
        "@register\ndef mean(): return THIS",
        "run": "from toy.a import TABLE\ndef work(): return TABLE['mean']()",
    },
    "a function for one type of argument": {
        "a": "from functools import singledispatch\n@singledispatch\ndef size(x): return 0\n"
        "@size.register\ndef _(x: int): return THIS",
        "run": "from toy.a import size\ndef work(): return size(1)",
    },
    "a method of a settings class": {
        "a": "class Section: pass\nclass Network(Section):\n    units: int = 1\n"
        "    def names(self): return THIS",
        "run": "from toy.a import Network\ndef work(network: Network): return network.names()",
    },
    "another decorator beside the stage's": {
        "run": "def stage(name): return lambda f: f\ndef other(n): return lambda f: f\n"
        "@stage('work')\n@other(THIS)\ndef work(): return 1"
    },
}


@pytest.mark.parametrize("sources", MATTERS.values(), ids=MATTERS)
def test_an_edit_that_can_matter_changes_the_code(tmp_path, sources):
    before, after = codes_with(tmp_path, sources, "1", "2")
    assert before != after


REBOUND: dict[str, Sources] = {
    "a name from a library": {
        "run": "from numpy import THIS as total\ndef work(): return total([1])"
    },
    "a library under one name": {"run": "import THIS as np\ndef work(): return np.sum([1])"},
    "a name from this project": {
        "a": "def sum(): return 1\ndef prod(): return 2",
        "run": "from toy.a import THIS as total\nfrom toy import a\n"
        "def work(): return total() + a.sum() + a.prod()",
    },
    "a library's name passed on": {
        "a": "from numpy import THIS as total",
        "run": "from toy.a import total\ndef work(): return total([1])",
    },
    "a library's name in a star import": {
        "run": "from numpy.THIS import *\ndef work(): return total([1])"
    },
    "a library's name in a class": {
        "run": "from numpy import THIS as total\nclass A:\n    f = total\ndef work(): return A.f"
    },
    "a library's name in a loose statement": {
        "a": "from numpy import THIS as run\nrun(1)\nX = 1",
        "run": "from toy.a import X\ndef work(): return X",
    },
}


@pytest.mark.parametrize("sources", REBOUND.values(), ids=REBOUND)
def test_what_an_imported_name_stands_for_is_part_of_the_code(tmp_path, sources):
    before, after = codes_with(tmp_path, sources, "sum", "prod")
    assert before != after


OTHER = "def work():\n    return 1\n"

INDIFFERENT: dict[str, Sources] = {
    "an unrelated module": {"run": OTHER, "a": "X = THIS"},
    "an unrelated function in the same module": {"run": f"{OTHER}def other(): return THIS"},
    "an unrelated constant in the same module": {"run": f"X = THIS\n{OTHER}"},
    "an unrelated function of a helper's module": {
        "a": "def helper(): return 1\ndef other(): return THIS",
        "run": "from toy.a import helper\ndef work(): return helper()",
    },
    "a module imported by an unrelated function": {
        "a": "def helper(): return THIS",
        "run": f"{OTHER}def other():\n    from toy.a import helper\n    return helper()",
    },
    "an import that only other functions use": {
        "run": "from numpy import nTHIS as total\ndef other(): return total\n" + OTHER
    },
    "who calls it": {"run": OTHER, "a": "from toy.run import work\nX = work() + THIS"},
    "an import for type checkers": {
        "run": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy import nTHIS\n"
        + OTHER
    },
    "a comment": {"run": f"# THIS\n{OTHER}  # THIS\n"},
    "a docstring": {"run": 'def work():\n    """THIS"""\n    return 1'},
    "a docstring of the module": {"run": f'"""THIS"""\n{OTHER}'},
    "a docstring of a method": {
        "run": 'class A:\n    """THIS"""\n    def f(self):\n        "THIS"\n        return 1\n'
        "def work(): return A().f()"
    },
    "a docstring of a nested function": {
        "run": 'def work():\n    def inner():\n        """THIS"""\n    return inner()'
    },
    "a text under a constant": {"run": 'X = 1\n"""THIS"""\ndef work(): return X'},
    "a settings field": {
        "a": "class Section: pass\nclass Network(Section):\n    units: int = THIS",
        "run": "from toy.a import Network\ndef work(network: Network): return network.units",
    },
    "a field of a settings class under another one": {
        "a": "class Section: pass\nclass Training(Section): pass\n"
        "class FineTune(Training):\n    rate: int = THIS",
        "run": "from toy.a import FineTune\ndef work(fine_tune: FineTune): return 1",
    },
    "the label of a stage": {
        "run": "def stage(name, label): return lambda f: f\n"
        "@stage('work', label='THIS')\ndef work(): return 1"
    },
    "another stage in the same module": {
        "run": "def stage(name): return lambda f: f\n@stage('work')\ndef work(): return 1\n"
        "@stage('other')\ndef other(): return THIS"
    },
}


@pytest.mark.parametrize("sources", INDIFFERENT.values(), ids=INDIFFERENT)
def test_an_edit_that_cannot_matter_leaves_the_code(tmp_path, sources):
    before, after = codes_with(tmp_path, sources, "1", "2")
    assert before == after


PLAIN = "from toy.a import helper\nX = {'a': 1}\ndef work(x=0x10):\n    return helper(X['a'] + x)\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        PLAIN.replace("    ", "  "),
        PLAIN.replace("'", '"').replace("0x10", "16"),
        PLAIN.replace("X['a'] + x", "\n        (X['a']\n          + x),  # why\n"),
        PLAIN.replace("toy.a", ".a"),
        "\n\n" + PLAIN + "\n# the end",
        "# -*- coding: latin-1 -*-\n" + PLAIN,
    ],
)
def test_the_same_syntax_tree_is_the_same_code(tmp_path, text):
    sources = {"a": "def helper(x): return x", "run": PLAIN}
    before = code(tmp_path / "before", sources)
    after = project(tmp_path / "after", sources)
    (tmp_path / "after" / "toy" / "run.py").write_bytes(text.encode())
    assert after.code("toy.run", "work") == before


@pytest.mark.parametrize(
    ("before", "after"),
    [("1", "1.0"), ("1", "True"), ("1", "'1'"), ("'a'", "b'a'"), ("()", "[]"), ("-1", "1"),
     ("a < b", "a <= b"), ("a and b", "a or b"), ("a - b", "b - a"), ("a", "a()"),
     ("f(a, b)", "f(a, *b)"), ("f(a=1)", "f(b=1)"), ("{}", "{**a}"), ("f'{a}'", "f'{a!r}'")],
)  # fmt: skip
def test_small_differences_of_meaning_are_seen(tmp_path, before, after):
    first, second = codes_with(tmp_path, {"run": "def work(): return THIS"}, before, after)
    assert first != second


def test_names_say_file_and_definition(tmp_path):
    sources = {
        "package": "from toy.package.core import helper\nprint(1)",
        "package.core": "def helper(): return 1\ndef other(): return 2",
        "run": "from toy.package import helper\ndef work(): return helper()",
    }
    assert list(code(tmp_path, sources)) == [
        "toy/package/__init__.py: helper",
        "toy/package/__init__.py: top level",
        "toy/package/core.py: helper",
        "toy/run.py: work",
    ]


@pytest.mark.parametrize(
    ("module", "function"), [("toy.run", "missing"), ("__main__", "work"), ("json", "loads")]
)
def test_a_function_that_is_not_in_the_project_is_refused(tmp_path, module, function):
    toy = project(tmp_path, {"run": OTHER})
    with pytest.raises(ValueError, match=f"{module}.{function} is not at the top of a module in"):
        toy.code(module, function)


def test_two_checkouts_have_the_same_code(tmp_path):
    sources = {**HELPER, "run": "from toy.a import helper\ndef work(): return helper()"}
    assert code(tmp_path / "one", sources) == code(tmp_path / "two" / "deeper", sources)


# --- noticing edits while a stage runs ----------------------------------------------------


def test_files_that_changed_since_they_were_read_are_named(tmp_path):
    sources = {**HELPER, "run": "from toy.a import helper\ndef work(): return helper()", "b": ""}
    toy = project(tmp_path, {**sources, "package": "def f(): return 1"})
    reached = toy.code("toy.run", "work")
    assert toy.changed_files(reached) == []
    (tmp_path / "toy" / "b.py").write_text("X = 1")
    assert toy.changed_files(reached) == []
    (tmp_path / "toy" / "run.py").unlink()
    (tmp_path / "toy" / "a.py").write_text("def helper(): return 2")
    assert toy.changed_files(reached) == ["toy/a.py", "toy/run.py"]


def test_a_package_that_changed_since_it_was_read_is_named(tmp_path):
    sources = {"package": "def f(): return 1", "run": "from toy.package import f\ndef work(): f()"}
    toy = project(tmp_path, sources)
    reached = toy.code("toy.run", "work")
    (tmp_path / "toy" / "package" / "__init__.py").write_text("def f(): return 2")
    assert toy.changed_files(reached) == ["toy/package/__init__.py"]


# --- this project -------------------------------------------------------------------------


def every_stage() -> list[Stage]:
    stages: list[Stage] = []

    def record(stage: Stage, /, **arguments: object) -> Ref:
        stages.append(stage)
        return Ref.pending(stage.name)

    pipeline(Config(), Source(kind="", files={}), record)
    return stages


STAGES = every_stage()


def codes(of: Project) -> dict[str, dict[str, str]]:
    return {s.name: of.code(s.function.__module__, s.function.__name__) for s in STAGES}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "store", "screenshots")
        shutil.copytree(ROOT / package, root / package, ignore=ignored)
    return root


@pytest.fixture(scope="module")
def original(checkout) -> Project:
    found = Project(checkout)
    codes(found)
    return found


def codes_after(original: Project, module: str, text: str) -> dict[str, dict[str, str]]:
    """Every stage's code when one module's text is another; the file is put back."""
    path = original.paths[module]
    before = path.read_bytes()
    edited = Project(original.root)
    # Modules know nothing of each other, so those that stay need not be parsed again.
    kept = {name: found for name, found in original._modules.items() if name != module}
    edited._modules.update(kept)
    try:
        path.write_text(text)
        return codes(edited)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_has_its_function_in_its_code_and_nothing_of_flows(original, stage):
    module = stage.function.__module__
    reached = original.code(module, stage.function.__name__)
    assert f"{module.replace('.', '/')}.py: {stage.function.__name__}" in reached
    files = {name.partition(":")[0] for name in reached}
    assert not [name for name in files if name.startswith("flows/")]
    assert not files & {f"{name.replace('.', '/')}.py" for name in BOUNDARY}


TRACE = """
import inspect, json, sys, threading
from pathlib import Path
from artifacts.store import Store
from flows.pipeline import pipeline
from models.config import load_config
from models.datasets import find_dataset
from tasks.fingerprint import PACKAGES, ROOT

PACKAGES = tuple(f"{ROOT}/{package}/" for package in PACKAGES)
store, config, called, now = Store(Path(sys.argv[1])), load_config(tiny=True), {}, []

def note(frame, event, argument):
    code = frame.f_code
    # The body of a class, which runs at import, is no function.
    is_function = code.co_flags & inspect.CO_OPTIMIZED
    if event == "call" and now and is_function and code.co_filename.startswith(PACKAGES):
        name = code.co_qualname.partition(".")[0]
        file = Path(code.co_filename).relative_to(ROOT).as_posix()
        called[now[-1]].add(f"{file}: {name}")

def call(stage, /, **arguments):
    key = stage.key(arguments)
    stage.code()
    called[stage.name] = set()
    now.append(stage.name)
    ref, computed = stage.run(arguments, store, store.raw_manifest(stage.name, key))
    now.pop()
    assert computed
    return ref

threading.setprofile(note)
sys.setprofile(note)
pipeline(config, find_dataset("mnist"), call)
print(json.dumps({name: sorted(names) for name, names in called.items()}))
"""


@pytest.mark.slow
def test_what_a_stage_calls_when_it_runs_is_in_its_code(tiny):
    process = tiny.start_python("-c", TRACE, str(tiny.store))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    carriers = {f"{name.replace('.', '/')}.py" for name in BOUNDARY}
    reached, missing = codes(Project()), {}
    for stage, called in json.loads(out).items():
        own = {name for name in called if name.partition(":")[0] not in carriers}
        # Modules and what has no name (`<module>`, `<lambda>`) run with what has one.
        keys = ("tasks/fingerprint", "tasks/memory")
        own = {name for name in own if "<" not in name and not name.startswith(keys)}
        assert len(own) > 1
        missing[stage] = sorted(own - reached[stage].keys())
    assert missing == dict.fromkeys(reached, [])


def test_only_publishing_depends_on_how_figures_are_drawn(original):
    drawn = [name for name, reached in codes(original).items() if "figures" in str(reached)]
    assert drawn == ["publish"]


def test_stages_that_do_not_train_do_not_depend_on_training(original):
    label = "models/training.py: fit"
    trained = {name for name, reached in codes(original).items() if label in reached}
    networks = {stage.name for stage in STAGES if stage.function is train.function}
    assert trained == {"pretrain", "fine-tune", *networks}


Edit = tuple[str, str, set[str]]  # Module, its new text, names of the definitions edited.


def label_of(statement: ast.stmt) -> set[str]:
    match statement:
        # What a library's decorator makes of a function, it makes when the module is imported.
        case ast.FunctionDef(name=name, decorator_list=[by]) if "tf." in ast.unparse(by):
            return {name, "top level"}
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=[ast.Tuple(elts=names)]):
            return {name.id for name in names if isinstance(name, ast.Name)}
    return {"top level"}


def change_meaning(node: ast.AST) -> bool:
    """Changes what a node means, in place; False if it cannot."""
    match node:
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=int(value) | float(value)):
            node.value = value + 1
        case ast.Constant(value=str(value)):
            node.value = value + "x"
        case ast.BinOp(op=ast.Add()):
            node.op = ast.Sub()
        case ast.BinOp(op=ast.Mult() | ast.Div() | ast.Sub()):
            node.op = ast.Add()
        case ast.Compare(ops=[op]):
            node.ops = [ast.NotEq() if isinstance(op, ast.Eq) else ast.Eq()]
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.Return(value=ast.expr(), lineno=_):
            node.value = ast.Tuple([node.value], ast.Load())
        case _:
            return False
    return True


def says_nothing(node: ast.AST) -> bool:
    """Whether a statement is a text alone, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def matters(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one whose change can change a result."""
    settings = isinstance(node, ast.ClassDef) and bool(node.bases)
    for name, value in ast.iter_fields(node):
        for inner in value if isinstance(value, list) else [value]:
            is_text = isinstance(inner, ast.AST) and says_nothing(inner)
            is_field = settings and isinstance(inner, ast.AnnAssign)
            is_piece = isinstance(node, ast.JoinedStr | ast.FormattedValue | ast.match_case)
            if isinstance(inner, ast.AST) and not (is_text or is_field or is_piece):
                if name != "decorator_list" or "stage" not in ast.unparse(inner):
                    yield inner
                    yield from matters(inner)


def semantic_edits(original: Project, chance: random.Random) -> Iterator[Edit]:
    """Edits that change a meaning: for each stage one that it reaches, then any in its modules."""
    modules = {str(path.relative_to(original.root)): m for m, path in original.paths.items()}
    stages = codes(original).values()
    for turn, reached in enumerate(itertools.cycle(stages)):
        edit = None
        while edit is None:
            file = chance.choice(sorted({label.partition(":")[0] for label in reached}))
            names = {label.partition(": ")[2] for label in reached if label.startswith(f"{file}:")}
            edit = draw_edit(original, modules[file], names if turn < len(stages) else None, chance)
        yield edit


def draw_edit(
    original: Project, module: str, names: set[str] | None, chance: random.Random
) -> Edit | None:
    """An edit of one of some names, or of any; None if what was drawn cannot be changed."""
    tree = ast.parse(original.paths[module].read_text())
    statements = (s for s in tree.body if not says_nothing(s))
    wanted = (s for s in statements if names is None or names & label_of(s))
    places = [(s, node) for s in wanted for node in matters(s)]
    if not places:
        return None
    statement, node = chance.choice(places)
    for_checkers = "TYPE_CHECKING" in ast.unparse(statement).partition("\n")[0]
    if for_checkers or not change_meaning(node):
        return None
    return module, ast.unparse(tree), label_of(statement)


@pytest.mark.slow
def test_a_semantic_edit_changes_the_code_of_exactly_the_stages_that_reach_it(original):
    chance = random.Random(7)  # noqa: S311 - not for secrets
    before, wrong, hit = codes(original), [], set()
    edits = semantic_edits(original, chance)
    for _ in range(EDITS):
        module, text, names = next(edits)
        labels = {f"{original.paths[module].relative_to(original.root)}: {n}" for n in names}
        expected = {stage for stage, reached in before.items() if labels & reached.keys()}
        after = codes_after(original, module, text)
        changed = {stage for stage in before if after[stage] != before[stage]}
        hit |= changed
        if changed != expected:
            wrong.append(f"{labels}: {sorted(changed)}, not {sorted(expected)}")
    assert wrong == []
    assert hit == set(before)


def add_lines(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    statements = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.stmt)]
    for line in sorted({s.lineno for s in statements}, reverse=True):
        if chance.random() < 0.2 and not lines[line - 1].lstrip().startswith(("def", "class")):
            indent = len(lines[line - 1]) - len(lines[line - 1].lstrip())
            lines.insert(line - 1, " " * indent + chance.choice(["# a remark", ""]))
    return "\n".join(lines)


def reword_docstrings(text: str, chance: random.Random) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            if ast.get_docstring(node) is not None and len(node.body) > 1:
                del node.body[0]
            if chance.random() < 0.5:
                node.body.insert(0, ast.Expr(ast.Constant("Other words.")))
    return ast.unparse(tree)


def reorder_imports(text: str, chance: random.Random) -> str:
    tree = ast.parse(text)
    imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    others = [n for n in tree.body if n not in imports]
    return ast.unparse(ast.Module(chance.sample(imports, len(imports)) + others, []))


def reword_descriptions(text: str, chance: random.Random) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "description":
            node.value = ast.Constant("Other words.")
    return ast.unparse(tree)


COSMETIC: list[Callable[[str, random.Random], str]] = [
    add_lines,
    reword_docstrings,
    reorder_imports,
    reword_descriptions,
    lambda text, chance: ast.unparse(ast.parse(text)),
    lambda text, chance: "import this_is_not_used\n" * ("__future__" not in text) + text,
    lambda text, chance: text + "\n\ndef _added(x):\n    return x\n",
    lambda text, chance: text,
]


@pytest.mark.slow
def test_a_cosmetic_edit_changes_no_stage(original):
    chance = random.Random(8)  # noqa: S311 - not for secrets
    before, names, wrong = codes(original), sorted(original._modules), []
    for number in range(EDITS):
        module, change = chance.choice(names), COSMETIC[number % len(COSMETIC)]
        after = codes_after(original, module, change(original.paths[module].read_text(), chance))
        changed = [stage for stage in before if after[stage] != before[stage]]
        if changed:
            wrong.append(f"{change.__name__} in {module}: {changed}")
    assert wrong == []


def test_a_moved_checkout_with_other_times_has_the_same_code(original, tmp_path):
    shutil.copytree(original.root, tmp_path / "moved", copy_function=shutil.copyfile)
    assert codes(Project(tmp_path / "moved")) == codes(original)

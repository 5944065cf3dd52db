"""Which code a stage can reach, and whether it means the same as before.

A stage's code is every top-level definition of this project that its function can reach: by the
names it uses, through imports at the top of a module or inside a function, transitively. Each is
hashed as its syntax tree without docstrings, comments and layout, with what its imported names
stand for. So a change in a helper three imports away changes the key of the stages that reach it,
and of no other.

The reading is static and errs on the side of reaching more: a module used as a value, a star
import, or a name that cannot be followed takes in the whole module. What it cannot see: a name put
together at run time, a docstring read as data, a subclass found through its base class, a section
of the settings that a stage makes up instead of taking it as an argument.
"""

import ast
import builtins
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks", "models", "artifacts")

# Numeric libraries whose release may change a result.
LIBRARIES = ("tensorflow", "keras", "numpy")

# These carry a result's bytes and never change them: digests hold that on every read. Left out,
# so that mending a lock or a message does not retrain anything.
BOUNDARY = frozenset(
    {"artifacts.files", "artifacts.reference", "artifacts.store", "tasks.progress", "tasks.stage"}
)

# In place of a definition's name: the statements of a module that run when it is imported; all
# that a module has to offer.
TOP_LEVEL, EVERYTHING = "", "*"

_BLOCKS = (
    ast.If,
    ast.Try,
    ast.TryStar,
    ast.With,
    ast.AsyncWith,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.Match,
)
_CHAINS = (ast.Name, ast.Attribute)
_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@cache
def library_versions() -> Mapping[str, str]:
    """Installed releases of the numeric libraries, without importing them."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class Definition:
    """One top-level name of a module, defined there or imported there from elsewhere."""

    module: str
    name: str


@dataclass
class Scope:
    """What import statements bind and run.

    Attributes:
        names: Local name to what it may stand for; an empty name is the module itself.
        stars: Modules whose every name is here.
        modules: Modules that are run, and names that may be modules.
    """

    names: dict[str, set[Definition]] = field(default_factory=dict)
    stars: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)

    def bind(self, name: str, module: str, member: str = "") -> None:
        """Notes one meaning of a name; an import in each branch of an `if` gives it several."""
        self.names.setdefault(name, set()).add(Definition(module, member))


class Module:
    """One source file, read but not run."""

    def __init__(self, name: str, source: bytes, project: "Project") -> None:
        self.name = name
        self.definitions: dict[str, list[ast.stmt]] = {}
        # Statements that do more at import than bind a name, for every user of the module.
        self.loose: list[ast.stmt] = []
        self._nodes: dict[str, list[ast.AST]] = {}
        body = _without_cosmetics(ast.parse(source).body, settings={("Section",)})
        # Imports under `if` or `try` at the top count as well; those inside functions do not.
        tops = [list(ast.walk(s)) if _is_block(s) else [s] for s in body]
        self.scope = project.scope([node for nodes in tops for node in nodes], name)
        for statement in body:
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                self._sort(statement)

    def _sort(self, statement: ast.stmt) -> None:
        names = _bound_names(statement)
        for name in dict.fromkeys(names):
            self.definitions.setdefault(name, []).append(statement)
        if not names or self._has_effects(statement):
            self.loose.append(statement)

    def _has_effects(self, statement: ast.stmt) -> bool:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                # `@register` and `@total.register` make known what no name leads to.
                return not all(map(self._is_pure, statement.decorator_list))
            case ast.Assign(targets=targets):
                return any(isinstance(t, ast.Attribute | ast.Subscript) for t in targets)
            case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
                return not isinstance(target, ast.Name)
        return True

    def _is_pure(self, decorator: ast.expr) -> bool:
        head = (*_dotted(getattr(decorator, "func", decorator)), "")[0]
        origins = self.scope.names.get(head, set())
        roots = {origin.module.partition(".")[0] for origin in origins}
        if not roots:
            return head not in self.definitions and hasattr(builtins, head)
        return roots <= sys.stdlib_module_names

    def statements(self, name: str) -> list[ast.stmt]:
        """The statements behind a name; none if it is imported."""
        return self.loose if name == TOP_LEVEL else self.definitions.get(name, [])

    def nodes(self, name: str) -> list[ast.AST]:
        """All that the statements behind a name are made of."""
        if name not in self._nodes:
            self._nodes[name] = [n for s in self.statements(name) for n in _parts(s)]
        return self._nodes[name]

    def chains(self, name: str) -> set[tuple[str, ...]]:
        """The names that the statements behind a name use, such as ``("np", "float32")``."""
        return {_dotted(n) for n in self.nodes(name) if isinstance(n, _CHAINS)} - {()}


class Project:
    """The source files of the project's packages."""

    def __init__(self, root: Path = ROOT, packages: tuple[str, ...] = PACKAGES) -> None:
        self.root = root
        self.packages = packages
        self._modules: dict[str, Module] = {}
        self._sources: dict[str, bytes] = {}
        self._hashes: dict[Definition, str] = {}
        self._edges: dict[Definition, frozenset[Definition]] = {}

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Module name to source file."""
        found = {}
        for package in self.packages:
            for path in sorted((self.root / package).rglob("*.py")):
                parts = path.relative_to(self.root).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                found[name] = path
        return found

    @cached_property
    def folders(self) -> frozenset[str]:
        """Names of packages, those without an ``__init__.py`` included."""
        return frozenset(folder for name in self.paths for folder in _parents(name))

    def module(self, name: str) -> Module:
        """A module of the project, parsed once."""
        if name not in self._modules:
            self._modules[name] = Module(name, self.source(name), self)
        return self._modules[name]

    def source(self, name: str) -> bytes:
        """What a module's file holds, read once."""
        if name not in self._sources:
            self._sources[name] = self.paths[name].read_bytes()
        return self._sources[name]

    def changed_files(self, code: Mapping[str, str]) -> list[str]:
        """Files behind some ``code`` that are no longer what they were when it was read."""
        files = {label.partition(":")[0] for label in code}
        read = {self._file(name): source for name, source in self._sources.items()}
        return [f for f in sorted(files & read.keys()) if _content(self.root / f) != read[f]]

    def code(self, module: str, function: str) -> dict[str, str]:
        """Hashes of every definition that a function can reach, its own included.

        The function's decorator ``@stage`` is left out: it declares how the function is run.

        Returns:
            ``{"models/networks.py: build_trunk": "9f86d081884c7d65", ...}``

        Raises:
            ValueError: If there is no such function at the top of a module of this project.
        """
        if module not in self.paths or function not in self.module(module).definitions:
            where = " or ".join(f"{package}/" for package in self.packages)
            msg = f"{module}.{function} is not at the top of a module in {where}"
            raise ValueError(msg)
        start = Definition(module, function)
        reached, waiting = {start}, [start]
        while waiting:
            for found in self._reached_from(waiting.pop()):
                if found not in reached:
                    reached.add(found)
                    waiting.append(found)
        code = {self._label(d): h for d in reached if (h := self._hash(d))}
        return dict(sorted(code.items()))

    def _label(self, definition: Definition) -> str:
        return f"{self._file(definition.module)}: {definition.name or 'top level'}"

    def _file(self, module: str) -> str:
        return self.paths[module].relative_to(self.root).as_posix()

    def _hash(self, definition: Definition) -> str:
        """Of a definition's statements and imported names; empty if it has neither."""
        if definition not in self._hashes:
            module, name = self.module(definition.module), definition.name
            parts = [_meaning(statement) for statement in module.statements(name)]
            used = {chain[0] for chain in module.chains(name)}
            stars = module.scope.stars if parts else ()
            imported = [
                f"{local}={origin.module}:{origin.name}"
                for local in (used or {name}) & module.scope.names.keys()
                for origin in module.scope.names[local]
            ]
            text = "\n".join([*parts, *sorted(imported), *sorted(stars)]).encode()
            self._hashes[definition] = hashlib.sha256(text).hexdigest()[:16] if text else ""
        return self._hashes[definition]

    def _reached_from(self, definition: Definition) -> frozenset[Definition]:
        if definition not in self._edges:
            found = set(self._leads_to(definition))
            ours = (d for d in found if d.module in self.paths and d.module not in BOUNDARY)
            self._edges[definition] = frozenset(ours)
        return self._edges[definition]

    def _leads_to(self, definition: Definition) -> Iterator[Definition]:
        module, name = self.module(definition.module), definition.name
        yield Definition(module.name, TOP_LEVEL)
        yield from self._used(name, module)
        if name == TOP_LEVEL:
            yield from (Definition(folder, TOP_LEVEL) for folder in _parents(module.name))
            yield from (Definition(run, TOP_LEVEL) for run in module.scope.modules)
        elif name == EVERYTHING:
            offered = module.definitions.keys() | module.scope.names.keys()
            yield from (Definition(module.name, offer) for offer in offered)
            yield from (Definition(star, EVERYTHING) for star in module.scope.stars)
        elif name in module.scope.names:
            yield from self._imported(name, (), module.scope)
        elif name not in module.definitions:
            yield Definition(module.name, EVERYTHING)

    def _used(self, name: str, module: Module) -> Iterator[Definition]:
        """Definitions that the statements behind a name use, and modules that they run."""
        nodes = module.nodes(name)
        inner = self.scope(nodes, module.name)
        yield from (Definition(run, TOP_LEVEL) for run in inner.modules)
        for star in module.scope.stars | inner.stars if nodes else ():
            yield Definition(star, EVERYTHING)
        for head, *rest in module.chains(name):
            yield from self._imported(head, rest, inner)
            yield from self._imported(head, rest, module.scope)
            if head in module.definitions:
                yield Definition(module.name, head)
        for node in nodes:
            # A module's name as a text, as `importlib.import_module` takes it.
            if isinstance(node, ast.Constant) and "." in str(node.value):
                yield Definition(str(node.value), EVERYTHING)

    def _imported(self, name: str, rest: Iterable[str], scope: Scope) -> Iterator[Definition]:
        for origin in scope.names.get(name, ()):
            yield from self._member(origin.module, [*filter(None, [origin.name]), *rest])

    def _member(self, module: str, rest: list[str]) -> Iterator[Definition]:
        """What ``module.a.b`` may stand for: submodules as far as they go, then a name."""
        while rest and self._is_module(f"{module}.{rest[0]}"):
            if module in self.paths and self._offers(module, rest[0]):
                yield Definition(module, rest[0])
            module, rest = f"{module}.{rest[0]}", rest[1:]
        yield Definition(module, rest[0] if rest else EVERYTHING)

    def _offers(self, module: str, name: str) -> bool:
        """Whether a package has a name of its own for what is also one of its modules."""
        offers = self.module(module)
        origins = offers.scope.names.get(name, set())
        return name in offers.definitions or not origins <= {Definition(module, name)}

    def scope(self, nodes: Iterable[ast.AST], importer: str) -> Scope:
        """What the imports among some nodes bind, and which of this project they run."""
        scope = Scope()
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    scope.bind(alias.asname or whole, whole)
                    scope.modules.add(alias.name)
            elif isinstance(node, ast.ImportFrom):
                source = self._source(node, importer)
                scope.modules.add(source)
                for alias in node.names:
                    scope.modules.add(f"{source}.{alias.name}")
                    if alias.name == "*":
                        scope.stars.add(source)
                    else:
                        scope.bind(alias.asname or alias.name, source, alias.name)
        return scope

    def _source(self, node: ast.ImportFrom, importer: str) -> str:
        if not node.level:
            return node.module or ""
        is_package = self.paths[importer].name == "__init__.py"
        base = importer.split(".")
        base = base[: len(base) - node.level + is_package]
        return ".".join([*base, *filter(None, [node.module])])

    def _is_module(self, name: str) -> bool:
        return name in self.paths or name in self.folders


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _without_cosmetics(body: list[ast.stmt], settings: set[tuple[str, ...]]) -> list[ast.stmt]:
    """Statements less what no result depends on, changed in place.

    That is docstrings (a bare text anywhere has no effect), what is for type checkers only, and
    the decorator that declares a stage. And the fields of settings classes: the values of settings
    are in the key in full, so their declarations, with descriptions and defaults, need not be.

    Args:
        body: The statements.
        settings: Names of settings classes; those found are added.
    """
    kept = [s for s in body if not _is_docstring(s) and not _is_for_type_checkers(s)]
    for statement in kept:
        match statement:
            case ast.FunctionDef(decorator_list=decorators):
                statement.decorator_list = [d for d in decorators if not _is_stage(d)]
            case ast.ClassDef(bases=bases) if any(_dotted(b)[-1:] in settings for b in bases):
                settings.add((statement.name,))
                statement.body = [s for s in statement.body if not isinstance(s, ast.AnnAssign)]
        branches = [*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]
        for part in ("body", "orelse", "finalbody"):
            for holder in (statement, *branches):
                if inner := getattr(holder, part, None):
                    setattr(holder, part, _without_cosmetics(inner, settings))
    return kept


def _is_docstring(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def _is_for_type_checkers(statement: ast.stmt) -> bool:
    match statement:
        case ast.If(test=test, orelse=[]):
            return _dotted(test)[-1:] == ("TYPE_CHECKING",)
    return False


def _is_stage(decorator: ast.expr) -> bool:
    """Whether a decorator declares a stage: ``@stage(...)``."""
    return _dotted(getattr(decorator, "func", decorator))[-1:] == ("stage",)


def _bound_names(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            nodes = [node for target in targets for node in ast.walk(target)]
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            nodes = list(ast.walk(target))
        case _ if _is_block(statement):
            nodes = list(ast.walk(statement))
        case _:
            return []
    names = [node.id for node in nodes if isinstance(node, ast.Name) and _is_bound(node, statement)]
    return [*names, *(node.name for node in nodes if isinstance(node, _NAMED))]


def _is_bound(name: ast.Name, statement: ast.stmt) -> bool:
    # In an assignment `TABLE["x"] = 1` adds to TABLE.
    return not _is_block(statement) or isinstance(name.ctx, ast.Store)


def _is_block(node: ast.AST) -> bool:
    return isinstance(node, _BLOCKS)


def _parts(node: ast.AST) -> list[ast.AST]:
    """A node and all below it, in no particular order."""
    found, waiting = [], [node]
    while waiting:
        node = waiting.pop()
        found.append(node)
        # `models.training.fit` is one chain, not also a bare use of `models`.
        if not (isinstance(node, ast.Attribute) and _dotted(node)):
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _dotted(node: ast.AST) -> tuple[str, ...]:
    """``a.b.c`` as ``("a", "b", "c")``; empty where the chain does not start at a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return (node.id, *parts) if isinstance(node, ast.Name) else ()


def _meaning(node: ast.AST) -> str:
    """A syntax tree as text without layout and comments.

    Empty fields are left out, so that a Python release that adds one changes nothing.
    """
    parts = [node.__class__.__name__]
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in _MEANINGLESS:
            continue
        items = value if isinstance(value, list) else [value]
        kept = [_meaning(item) if isinstance(item, ast.AST) else repr(item) for item in items]
        parts.append(f"{name}={','.join(kept)}")
    return f"({' '.join(parts)})"


_MEANINGLESS = frozenset({"ctx", "type_comment", "kind"})

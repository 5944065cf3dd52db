"""Which code a stage can reach, and whether it means the same as before.

A stage's code is every top-level definition of this project that its function can reach: by the
names it uses, through imports at the top of a module or inside a function, transitively. Each is
hashed as its syntax tree without docstrings, comments and layout. So a change in a helper three
imports away changes the key of the stages that reach it, and of no other.

The reading is static and errs on the side of reaching more: a module used as a value, a star
import, or a name that cannot be followed takes in the whole module.
"""

import ast
import hashlib
import importlib.metadata
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


@cache
def library_versions() -> Mapping[str, str]:
    """Installed releases of the numeric libraries, without importing them."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class Definition:
    """One top-level name of a module: ``models/networks.py: build_trunk``."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module.replace('.', '/')}.py: {self.name}"


@dataclass
class Scope:
    """What the names of a module, or of one function in it, stand for.

    Attributes:
        modules: Local name to the project module it stands for.
        names: Local name to the definition in another project module it stands for.
        stars: Project modules whose every name is here.
    """

    modules: dict[str, str] = field(default_factory=dict)
    names: dict[str, Definition] = field(default_factory=dict)
    stars: set[str] = field(default_factory=set)


class Module:
    """One source file, read but not run."""

    def __init__(self, name: str, source: str, project: "Project") -> None:
        self.name = name
        self.project = project
        self.definitions: dict[str, list[ast.stmt]] = {}
        # Statements that bind nothing by themselves run at import, for every user of the module.
        self.loose: list[ast.stmt] = []
        tree = ast.parse(source)
        # Imports under `if` or `try` at the top count as well; those inside functions do not.
        tops = [list(ast.walk(s)) if _is_block(s) else [s] for s in tree.body]
        self.scope = project.scope([node for nodes in tops for node in nodes], name)
        for statement in tree.body:
            self._sort(statement)

    def _sort(self, statement: ast.stmt) -> None:
        names = _bound_names(statement)
        for name in dict.fromkeys(names):
            self.definitions.setdefault(name, []).append(statement)
        if not names and not isinstance(statement, ast.Import | ast.ImportFrom):
            if not _is_docstring(statement):
                self.loose.append(statement)

    def statements(self, name: str) -> list[ast.stmt]:
        """The statements behind a definition; an empty name stands for the loose ones."""
        return self.definitions.get(name, []) if name else self.loose


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

    def module(self, name: str) -> Module:
        """A module of the project, parsed once."""
        if name not in self._modules:
            source = self.paths[name].read_bytes()
            self._sources[name] = source
            self._modules[name] = Module(name, source.decode(), self)
        return self._modules[name]

    def changed_files(self, code: Mapping[str, str]) -> list[str]:
        """Files behind some ``code`` that are no longer what they were when it was read."""
        names = {path.partition(":")[0] for path in code}
        by_path = {self.paths[m].relative_to(self.root).as_posix(): m for m in self._sources}
        return [
            path
            for path in sorted(names & by_path.keys())
            if (self.root / path).read_bytes() != self._sources[by_path[path]]
        ]

    def code(self, module: str, function: str) -> dict[str, str]:
        """Hashes of every definition that a function can reach, its own included.

        The function's decorators are left out: they declare how it is run.

        Returns:
            ``{"models/networks.py: build_trunk": "9f86d081884c7d65", ...}``
        """
        start = Definition(module, function)
        reached, waiting = {start}, [start]
        while waiting:
            for found in self._reached_from(waiting.pop()):
                if found not in reached and found.module not in BOUNDARY:
                    reached.add(found)
                    waiting.append(found)
        code = {str(d): self._hash(d) for d in reached if self.module(d.module).statements(d.name)}
        return dict(sorted(code.items()))

    def _hash(self, definition: Definition) -> str:
        if definition not in self._hashes:
            digest = hashlib.sha256()
            for statement in self.module(definition.module).statements(definition.name):
                digest.update(_meaning(statement).encode())
            self._hashes[definition] = digest.hexdigest()[:16]
        return self._hashes[definition]

    def _reached_from(self, definition: Definition) -> frozenset[Definition]:
        if definition not in self._edges:
            module = self.module(definition.module)
            found = {Definition(module.name, "")}
            for statement in module.statements(definition.name):
                found.update(self._used(statement, module))
            self._edges[definition] = frozenset(found)
        return self._edges[definition]

    def _used(self, statement: ast.stmt, module: Module) -> Iterator[Definition]:
        """Definitions that a statement names."""
        inner = self.scope(ast.walk(statement), module.name)
        scopes = (inner, module.scope)
        for star in inner.stars | module.scope.stars:
            yield from self._whole(star)
        for node in _nodes(statement):
            if isinstance(node, ast.Name | ast.Attribute):
                yield from self._named(_dotted(node), scopes, module)

    def _named(
        self, dotted: tuple[str, ...], scopes: tuple[Scope, Scope], module: Module
    ) -> Iterator[Definition]:
        head, *rest = dotted or ("",)
        for scope in scopes:
            if head in scope.modules:
                yield from self._member(scope.modules[head], rest)
            if head in scope.names:
                yield from self._follow(scope.names[head])
        if head in module.definitions:
            yield Definition(module.name, head)

    def _member(self, module: str, rest: list[str]) -> Iterator[Definition]:
        while rest and f"{module}.{rest[0]}" in self.paths:
            module, rest = f"{module}.{rest[0]}", rest[1:]
        if rest and module in self.paths:
            yield from self._follow(Definition(module, rest[0]))
        else:
            yield from self._whole(module)

    def _follow(self, definition: Definition) -> Iterator[Definition]:
        """The definition itself, through modules that only pass it on."""
        if definition.module in BOUNDARY:
            return
        module = self.module(definition.module)
        name = definition.name
        if name in module.definitions:
            yield definition
        elif name in module.scope.names:
            yield Definition(module.name, "")
            yield from self._follow(module.scope.names[name])
        elif name in module.scope.modules:
            yield from self._whole(module.scope.modules[name])
        else:
            yield from self._whole(module.name)

    def _whole(self, module: str) -> Iterator[Definition]:
        if module in self.paths and module not in BOUNDARY:
            yield Definition(module, "")
            for name in self.module(module).definitions:
                yield Definition(module, name)

    def scope(self, nodes: Iterable[ast.AST], importer: str) -> Scope:
        """What the imports among some nodes bind, as far as they are of this project."""
        scope = Scope()
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.split(".")[0]
                    if self._is_ours(whole):
                        scope.modules[alias.asname or whole] = whole
            elif isinstance(node, ast.ImportFrom):
                self._bind_from(node, importer, scope)
        return scope

    def _bind_from(self, node: ast.ImportFrom, importer: str, scope: Scope) -> None:
        source = node.module or ""
        if node.level:
            is_package = self.paths.get(importer, Path()).name == "__init__.py"
            base = importer.split(".")
            base = base[: len(base) - node.level + is_package]
            source = ".".join([*base, *filter(None, [node.module])])
        if not self._is_ours(source):
            return
        for alias in node.names:
            name = alias.asname or alias.name
            if alias.name == "*":
                scope.stars.add(source)
            elif f"{source}.{alias.name}" in self.paths:
                scope.modules[name] = f"{source}.{alias.name}"
            elif source in self.paths:
                scope.names[name] = Definition(source, alias.name)

    def _is_ours(self, module: str) -> bool:
        return module.split(".")[0] in self.packages


def _bound_names(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            nodes = [node for target in targets for node in ast.walk(target)]
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            nodes = [target]
        case _ if _is_block(statement):
            inner = [s for s in ast.walk(statement) if isinstance(s, ast.stmt) and s != statement]
            return [name for s in inner for name in _bound_names(s)]
        case _:
            return []
    return [node.id for node in nodes if isinstance(node, ast.Name)]


def _is_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While)


def _is_docstring(node: ast.AST) -> bool:
    # A bare text anywhere has no effect; at the top of a body it is the docstring.
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def _is_settings_field(node: ast.AST, parent: ast.AST) -> bool:
    """Whether a node declares a field of a settings class.

    The values of settings are in the key in full, so their declarations, with descriptions and
    defaults, need not be.
    """
    match parent, node:
        case ast.ClassDef(bases=[ast.Name(id="Section"), *_]), ast.AnnAssign():
            return True
    return False


def _children(node: ast.AST, top: bool = False) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if top and name == "decorator_list" and _is_stage(node):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_docstring(child):
                if not _is_settings_field(child, node):
                    yield child


def _is_stage(node: ast.AST) -> bool:
    """Whether a function is declared to be a stage: ``@stage(...)``."""
    decorators = getattr(node, "decorator_list", [])
    return any("stage" in _dotted(getattr(d, "func", d)) for d in decorators)


def _nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    waiting = list(_children(statement, top=True))
    while waiting:
        node = waiting.pop()
        yield node
        # `models.training.fit` is one chain, not also a bare use of `models`.
        if not (isinstance(node, ast.Attribute) and _dotted(node)):
            waiting.extend(_children(node))


def _dotted(node: ast.AST) -> tuple[str, ...]:
    """``a.b.c`` as ``("a", "b", "c")``; empty where the chain does not start at a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return (node.id, *parts) if isinstance(node, ast.Name) else ()


def _meaning(node: ast.AST, top: bool = True) -> str:
    """A syntax tree as text without layout, comments and docstrings.

    Empty fields are left out, so that a Python release that adds one changes nothing.
    """
    parts = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "type_comment", "kind") or value is None or value == []:
            continue
        if top and name == "decorator_list" and _is_stage(node):
            continue
        items = value if isinstance(value, list) else [value]
        kept = [
            _meaning(item, top=False) if isinstance(item, ast.AST) else repr(item)
            for item in items
            if not (
                isinstance(item, ast.AST)
                and (_is_docstring(item) or _is_settings_field(item, node))
            )
        ]
        parts.append(f"{name}={','.join(kept)}")
    return f"({' '.join(parts)})"

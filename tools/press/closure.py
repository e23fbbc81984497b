"""Which files of the helper module can a notebook reach? Found in the source, without importing."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

PACKAGE = "helpers"
ALWAYS = (PACKAGE, f"{PACKAGE}.session")


@dataclass
class Closure:
    """Walks the imports from a set of sources through the package that lies in ``folder``."""

    folder: Path
    modules: dict[str, Path] = field(init=False)
    reached: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.modules = {module_name(path, self.folder): path for path in sorted(self.folder.rglob("*.py"))}

    def files(self, sources: Iterable[str]) -> list[Path]:
        """Return the modules that the sources reach, and every data file of the package."""
        for name in ALWAYS:
            self.reach(name)
        for source in sources:
            self.follow(ast.parse(plain_python(source)), base="")
        others = (p for p in self.folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc"))
        return sorted({*(self.modules[name] for name in self.reached), *others})

    def reach(self, name: str) -> None:
        """Take in a module, the packages above it, and what they import."""
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            module = ".".join(parts[:depth])
            if module in self.modules and module not in self.reached:
                self.reached.add(module)
                self._enter(module)

    def _enter(self, module: str) -> None:
        path = self.modules[module]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        is_package = path.name == "__init__.py"
        self.follow(tree, base=module if is_package else module.rpartition(".")[0])
        # A package below the top that loads its modules by name: any of them may be meant.
        if is_package and module != PACKAGE and _defines_getattr(tree):
            self.reach_below(module)

    def reach_below(self, module: str) -> None:
        """Take in a package with all that it holds."""
        for name in self.modules:
            if name == module or name.startswith(f"{module}."):
                self.reach(name)

    def follow(self, tree: ast.AST, base: str) -> None:
        """Take in everything that a piece of source names."""
        bound: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._import(node, bound)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node, base, bound)
            elif isinstance(node, ast.Constant) and node.value in self.modules and node.value != PACKAGE:
                self.reach(node.value)
            elif isinstance(node, ast.Call) and _is_magic(node) and PACKAGE in ast.unparse(node):
                self.reach_below(PACKAGE)  # code inside a magic (`%%time`) is a string here
        self._follow_attributes(tree, bound)

    def _import(self, node: ast.Import, bound: dict[str, str]) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE:
                self.reach(alias.name)
                bound[alias.asname or PACKAGE] = alias.name if alias.asname else PACKAGE

    def _import_from(self, node: ast.ImportFrom, base: str, bound: dict[str, str]) -> None:
        origin = _absolute(node, base)
        if origin.split(".")[0] != PACKAGE:
            return
        self.reach(origin)
        for alias in node.names:
            if alias.name == "*":
                self.reach_below(origin)
            elif (name := f"{origin}.{alias.name}") in self.modules:
                self.reach(name)
                bound[alias.asname or alias.name] = name

    def _follow_attributes(self, tree: ast.AST, bound: dict[str, str]) -> None:
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                for name in _dotted(node, bound):
                    self.reach(name)
            elif isinstance(node, ast.Name) and bound.get(node.id) == PACKAGE and id(node) not in inner:
                self.reach_below(PACKAGE)  # the bare package is handed on: anything may be meant


def module_name(path: Path, folder: Path) -> str:
    """Return the dotted name of a file of the package in ``folder``."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join((PACKAGE, *(part for part in parts if part != "__init__")))


def plain_python(source: str) -> str:
    """Turn IPython's magics and shell lines into plain Python."""
    return TransformerManager().transform_cell(source)


def _defines_getattr(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)


def _is_magic(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr in ("run_line_magic", "run_cell_magic")


def _absolute(node: ast.ImportFrom, base: str) -> str:
    if not node.level:
        return node.module or ""
    parts = base.split(".")
    parents = parts[: len(parts) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _dotted(node: ast.Attribute, bound: dict[str, str]) -> Iterator[str]:
    """Yield the module names that ``a.b.c`` may stand for, if ``a`` is bound to a module."""
    names: list[str] = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        names.insert(0, value.attr)
        value = value.value
    if isinstance(value, ast.Name) and value.id in bound:
        for depth in range(1, len(names) + 1):
            yield ".".join([bound[value.id], *names[:depth]])

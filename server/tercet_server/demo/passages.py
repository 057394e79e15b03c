"""Passages: what the standard library's sources say about their public names, read without importing anything."""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# What is installed beside it, its own tests, programs and generated tables.
_LEFT_OUT = {
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "lib2to3", "ensurepip", "pydoc_data"),
    *("encodings", "distutils"),
}
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Passage:
    """One public module, class, function or method.

    Attributes:
        module: where it is defined, `csv`. name: within the module, `DictReader.fieldnames`; empty for the module.
        signature: as a caller writes it, with the defaults.
        doc: its docstring, or for a class without one what its module is about and what members it has.
    """

    module: str
    name: str
    signature: str
    doc: str

    @property
    def path(self) -> str:
        """The qualified name."""
        return f"{self.module}.{self.name}" if self.name else self.module

    @property
    def text(self) -> str:
        """What is encoded: the path in words and as it is written, then the docstring."""
        words = _CAPITAL.sub(" ", self.path.replace(".", " ").replace("_", " "))
        return f"{words}: {self.path}{self.signature}\n{self.doc}"

    @property
    def summary(self) -> str:
        """The first sentence or line of the docstring."""
        return self.doc.partition("\n")[0]


def standard_library() -> Path:
    """Return the folder of the standard library that runs this."""
    return Path(sysconfig.get_path("stdlib"))


def read_passages(root: Path) -> list[Passage]:
    """Return the passages of every public module below `root`, in the order of their names.

    Files that do not parse (some libraries ship templates and bad examples) are passed over.
    """
    passages: list[Passage] = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts and not any(part in _LEFT_OUT or not part.isidentifier() or part.startswith("_") for part in parts):
            passages += _of_file(path, ".".join(parts))
    unique = {passage.path: passage for passage in reversed(passages)}  # a property's getter stands before its setter
    return [unique[path] for path in sorted(unique)]


def _of_file(path: Path, module: str) -> Iterator[Passage]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return
    about = ast.get_docstring(tree) or ""
    if about:
        yield Passage(module, "", "", about)
    yield from _of_body(tree, module, "", about.strip().partition("\n")[0])


def _of_body(parent: ast.Module | ast.ClassDef, module: str, prefix: str, about: str) -> Iterator[Passage]:
    """Yield the public definitions of a module or class; `about` is what its module says of itself first."""
    for node in parent.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        name = f"{prefix}{node.name}"
        doc = ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            yield Passage(module, name, _signature(_initializer(node)), doc or _described(node, about))
            yield from _of_body(node, module, f"{name}.", about)
        elif doc:
            yield Passage(module, name, _signature(node), doc)


def _described(node: ast.ClassDef, about: str) -> str:
    """Return what can be said of a class without a docstring."""
    members = dict.fromkeys(m.name for m in node.body if isinstance(m, Definition) and not m.name.startswith("_"))
    return f"{about}\n{'Members: ' if members else ''}{', '.join(members)}".strip()


def _initializer(node: ast.ClassDef) -> Definition | None:
    functions = (member for member in node.body if isinstance(member, ast.FunctionDef))
    return next((function for function in functions if function.name == "__init__"), None)


def _signature(node: Definition | None) -> str:
    if node is None or isinstance(node, ast.ClassDef):
        return ""
    arguments = ast.unparse(node.args)
    return f"({re.sub(r'^(self|cls)(, /)?(, |$)', '', arguments)})"

"""Docstrings have one form: parameters, fields and errors are described in NumPy sections, by the names they have.

Sources are read and not imported, which takes a second.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SECTIONS = "Parameters|Other Parameters|Attributes|Returns|Yields|Raises|Warns|See Also|Notes|References|Examples"
_HEADING = re.compile(rf"^({SECTIONS})\n-{{3,}}$", re.MULTILINE)
_NAMES = r"\*{0,2}\w+(?:, \*{0,2}\w+)*"
_PROSE = re.compile(rf"(?:^|[.;)] )({_NAMES}): ", re.MULTILINE)
_RAISES = re.compile(r"(?:^|[.;:] )Raises [A-Z`]", re.MULTILINE)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function or class.

    Attributes
    ----------
    place : str
        The file and the name, for messages.
    node : ast.AST
        Its definition.
    parameters : list of str
        Names that it is called with.
    attributes : set of str
        Names that a class has besides.
    """

    place: str
    node: Function | ast.ClassDef
    parameters: list[str] = field(default_factory=list)
    attributes: set[str] = field(default_factory=set)

    @cached_property
    def _parts(self) -> list[str]:
        return _HEADING.split(ast.get_docstring(self.node) or "")

    @property
    def prose(self) -> str:
        """What stands before the sections, without code."""
        return re.sub(r"`[^`]*`", "`x`", self._parts[0])

    @property
    def named(self) -> list[str]:
        """The names that sections describe."""
        found = []
        for title, body in zip(self._parts[1::2], self._parts[2::2], strict=True):
            if title in ("Parameters", "Other Parameters", "Attributes"):
                lines = re.findall(rf"^({_NAMES})(?: : .*)?$", body, re.MULTILINE)
                found += [name.strip("*") for line in lines for name in line.split(", ")]
        return found

    def problems(self) -> Iterator[str]:
        """What is not as a docstring should be; says where."""
        known = {*self.parameters, *self.attributes}
        for names in _PROSE.findall(self.prose):
            if all(name.strip("*") in known for name in names.split(", ")):
                yield f"{self.place}: {names!r} is described in prose: use a section Parameters or Attributes"
        if found := _RAISES.search(self.prose):
            yield f"{self.place}: '{found[0].strip('.;: ')}…' stands in prose: name errors in a section Raises"
        for name in self.named:
            if name not in known:
                yield f"{self.place}: a section describes {name}, which it does not have"

    def incomplete(self) -> Iterator[str]:
        """Which parameters no section describes; says where."""
        if missing := [name for name in self.parameters if name not in self.named]:
            yield f"{self.place}: no section describes {', '.join(missing)}"


class Sources:
    """The source files of packages.

    Parameters
    ----------
    root : Path
        Folder of the packages.
    packages : str
        Their names.
    """

    def __init__(self, root: Path, *packages: str) -> None:
        paths = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
        self.modules = {path.relative_to(root).as_posix(): ast.parse(path.read_bytes()) for path in paths}
        classes = [node for tree in self.modules.values() for node in tree.body if isinstance(node, ast.ClassDef)]
        self._classes = {node.name: node for node in classes}

    def public(self, path: str) -> Iterator[Documented]:
        """Yield what a file defines, without names that begin with an underscore; methods after their class."""
        for node in self.modules[path].body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                yield self._documented(path, node)
                if isinstance(node, ast.ClassDef):
                    yield from self.methods(path, node)

    def methods(self, path: str, owner: ast.ClassDef) -> Iterator[Documented]:
        """Yield the public methods of a class that have a docstring, and its constructor."""
        for node in owner.body:
            private = (
                isinstance(node, Function) and node.name.startswith("_") and node.name not in ("__init__", "__call__")
            )
            if isinstance(node, Function) and not private and ast.get_docstring(node):
                yield Documented(f"{path}: {owner.name}.{node.name}", node, _arguments(node))

    def complete(self, path: str, name: str) -> Iterator[Documented]:
        """Yield what must describe all its parameters, where `name` in that file is public to users."""
        for node in self.modules[path].body:
            if isinstance(node, Function | ast.ClassDef) and node.name == name:
                yield self._documented(path, node)

    def find(self, module: str, name: str) -> tuple[str, str] | None:
        """Return (file, name) of the definition that a module gives a name to, through imports; None for a value."""
        path = self.path(module)
        for node in ast.walk(self.modules[path]):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == module.split(".")[0]:
                for alias in node.names:
                    if (alias.asname or alias.name) == name and self.path(node.module) != path:
                        return self.find(node.module, alias.name)
        defined = [n for n in self.modules[path].body if isinstance(n, Function | ast.ClassDef) and n.name == name]
        return (path, name) if defined else None

    def path(self, module: str) -> str:
        """Return the file of a module; an empty text where there is none."""
        stem = module.replace(".", "/")
        return next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if path in self.modules), "")

    def _documented(self, path: str, node: Function | ast.ClassDef) -> Documented:
        if not isinstance(node, ast.ClassDef):
            return Documented(f"{path}: {node.name}", node, _arguments(node))
        attributes = {name for one in self._line(node) for name in _attributes(one)}
        return Documented(f"{path}: {node.name}", node, self._constructor(node), attributes)

    def _line(self, node: ast.ClassDef) -> list[ast.ClassDef]:
        """The class and those of ours that it is derived from, the oldest first."""
        bases = [self._classes[name] for base in node.bases if (name := _last(base)) in self._classes]
        return [*(one for base in bases if base is not node for one in self._line(base)), node]

    def _constructor(self, node: ast.ClassDef) -> list[str]:
        found: list[str] = []
        for one in self._line(node):
            own = next((n for n in one.body if isinstance(n, Function) and n.name == "__init__"), None)
            record = any("dataclass" in ast.dump(d) for d in one.decorator_list)
            if own is not None:
                found = _arguments(own)
            elif record or any(_last(base) == "NamedTuple" for base in one.bases):
                found = [*found, *(name for name in _fields(one) if name not in found)]
        return found


def _last(node: ast.expr) -> str:
    """The last part of a dotted name, as of a base class with type arguments or without."""
    node = node.value if isinstance(node, ast.Subscript) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _arguments(node: Function) -> list[str]:
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """Fields of a record that its constructor takes."""
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            hidden = one.target.id.startswith("_") or "ClassVar" in ast.dump(one.annotation)
            given = one.value is None or "arg='init'" not in ast.dump(one.value)
            if not hidden and given:
                yield one.target.id


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and _last(one.value) == "self":
            yield one.attr
    for one in node.body:
        if isinstance(one, ast.AnnAssign):
            yield _last(one.target)
        elif isinstance(one, ast.Assign):
            yield from (_last(target) for target in one.targets)
        elif isinstance(one, Function) and any("property" in _last(d) for d in one.decorator_list):
            yield one.name


# --- what must be so


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources(ROOT, "shardkit", "trainer")


def _exported(sources: Sources) -> Iterator[tuple[str, str]]:
    """(file, name) of what folders export: `__all__`, or else the functions of their `__init__`."""
    for path, tree in sources.modules.items():
        if path.endswith("__init__.py"):
            module = path.removesuffix("/__init__.py").replace("/", ".")
            listed = [
                n.value for n in tree.body if isinstance(n, ast.Assign) and ast.dump(n.targets[0]).find("__all__") > 0
            ]
            names = (
                ast.literal_eval(listed[0]) if listed else [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
            )
            found = [sources.find(module, name) for name in names if not name.startswith("_")]
            yield from (one for one in found if one is not None)


def _on_pages(sources: Sources) -> Iterator[tuple[str, str]]:
    """(file, name) of what the pages of the API show: names, or all that a module defines."""
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        for name in re.findall(r"^::: ([\w.]+)", page.read_text(), re.MULTILINE):
            if path := sources.path(name):
                yield from ((path, one.node.name) for one in sources.public(path))
            elif found := sources.find(*name.rsplit(".", 1)):
                yield found
            else:
                raise AssertionError(f"{page.name} shows {name}, which is not there")


def _in_protocols(sources: Sources) -> Iterator[Documented]:
    """The methods that whoever adds a codec, a format, a model has to write."""
    for path, tree in sources.modules.items():
        if path.endswith("/base.py"):
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and any("'Protocol'" in ast.dump(base) for base in node.bases):
                    yield from sources.methods(path, node)


def test_docstrings_describe_parameters_and_errors_in_sections(sources: Sources) -> None:
    found = [one for path in sources.modules for one in sources.public(path)]
    assert "\n".join(problem for one in found for problem in one.problems()) == ""


def test_what_folders_export_and_pages_show_describes_all_its_parameters(sources: Sources) -> None:
    named = sorted({*_exported(sources), *_on_pages(sources)})
    assert len(named) > 30
    found = [one for path, name in named for one in sources.complete(path, name)]
    assert "\n".join(problem for one in [*found, *_in_protocols(sources)] for problem in one.incomplete()) == ""


BAD = '''
def prose(size, many):
    """Do it. size: in pixels, many: no section."""

def list_of_names(size, many):
    """Do it.

    size, many: in pixels.
    """

def errors(size):
    """Do it. Raises ValueError, in prose."""

def other(size):
    """Do it.

    Parameters
    ----------
    sise : int
        Misspelt.

    Raises
    ------
    ValueError
        Raises are fine here: as is this.
    """

@dataclass(frozen=True)
class Record:
    """A record, whose text says `size: 3`.

    width: described in prose.
    """

    width: int

    def method(self, size):
        """Do it; size: in pixels."""

def good(size):
    """Note: this says nothing of parameters, and size is a word in it.

    Parameters
    ----------
    size : int
        Pixels: of a side.
    """
'''


def test_what_is_not_in_this_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.py").write_text(BAD)
    sources = Sources(tmp_path, "bad")
    found = list(sources.public("bad/one.py"))
    told = [problem.removeprefix("bad/one.py: ").partition(":")[0] for one in found for problem in one.problems()]
    assert told == ["prose", "list_of_names", "errors", "other", "Record", "Record.method"]
    lacking = [one.place.removeprefix("bad/one.py: ") for one in found if list(one.incomplete())]
    assert lacking == ["prose", "list_of_names", "errors", "other", "Record", "Record.method"]

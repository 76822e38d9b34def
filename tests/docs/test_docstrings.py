"""Docstrings have one form: parameters, fields and errors are described in NumPy sections, by the names they have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .docstrings import Documented, Sources

ROOT = Path(__file__).resolve().parents[2]
NOT_YET: tuple[str, ...] = ("shardkit/", "trainer/")
"""Files and folders whose docstrings are still to be brought into this form."""


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources(ROOT, "shardkit", "trainer")


def _done(path: str) -> bool:
    return not path.startswith(NOT_YET)


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
        if path.endswith("/base.py") and _done(path):
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and any("'Protocol'" in ast.dump(base) for base in node.bases):
                    yield from sources.methods(path, node)


def test_docstrings_describe_parameters_and_errors_in_sections(sources: Sources) -> None:
    found = [one for path in sources.modules if _done(path) for one in sources.public(path)]
    assert [problem for one in found for problem in one.problems()] == []


def test_what_folders_export_and_pages_show_describes_all_its_parameters(sources: Sources) -> None:
    named = sorted({*_exported(sources), *_on_pages(sources)})
    assert len(named) > 30
    found = [one for path, name in named if _done(path) for one in sources.complete(path, name)]
    assert [problem for one in [*found, *_in_protocols(sources)] for problem in one.incomplete()] == []


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

"""What the pages say of the program is so: privacy, messages, recipes, links."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from shardkit import privacy
from shardkit.dataset import manifest
from shardkit.sources.dicom.metadata import stated
from trainer.recipes.registry import RECIPES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")]
HEADINGS = ("Building", "Opening a dataset", "Loading", "Training")
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def table_rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the rows of the table below a heading, without its titles."""
    text = (ROOT / "docs" / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


# --- privacy


class Asked(Dataset):
    """A data set without a value, which writes down what it is asked for."""

    names: set[str]

    def get(self, key: Any, default: Any = None) -> Any:
        self.names.add(key)
        return default


def test_the_privacy_statement_lists_all_columns_that_leave() -> None:
    headings = ("read from the header", "keyed pseudonyms", "about pixels and their encoding")
    said = [name for heading in headings for row in table_rows("privacy.md", f"What leaves: {heading}")
            for name in quoted(row[0])]  # fmt: skip
    assert sorted(said) == sorted(manifest.SCHEMA.names)


def test_the_privacy_statement_lists_all_attributes_that_are_read_for_metadata() -> None:
    rows = {
        name: row for row in table_rows("privacy.md", "What leaves: read from the header") for name in quoted(row[0])
    }
    asked = Asked()
    object.__setattr__(asked, "names", set())
    kept = privacy.metadata(stated(asked), demographics=True)
    assert {*rows} == {*kept, "modality"}
    said = {word for name, row in rows.items() if name != "modality" for word in row[1].split(", ")}
    assert said == asked.names


@pytest.mark.parametrize("name", ["presentation", "voi_function", "detector", "sex"])
def test_the_values_that_the_privacy_statement_names_are_those_that_pass(name: str) -> None:
    (row,) = [r for r in table_rows("privacy.md", "What leaves: read from the header") if name in quoted(r[0])]
    asked = Asked()
    object.__setattr__(asked, "names", set())
    stated(asked)
    assert row[1] in asked.names
    assert set(re.findall(r"FOR [A-Z]+|\b[A-Z_]{2,}\b|\b[A-Z]\b", row[2])) == privacy.ENUMERATIONS[name]


# --- troubleshooting


def _text(node: ast.AST) -> str | None:
    """A string as a message has it, … standing for values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    return None


def test_every_message_in_troubleshooting_is_one_of_the_program() -> None:
    program = [
        text
        for folder in ("shardkit", "trainer")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (text := _text(node))
    ]
    rows = [row for heading in HEADINGS for row in table_rows("troubleshooting.md", heading)]
    assert rows
    assert all(len(quoted(row[0])) == 1 and all(row[1:]) for row in rows)
    assert [row[0] for row in rows if not any(map(_pattern(row[0]).search, program))] == []


def _pattern(cell: str) -> re.Pattern[str]:
    """Of a message, in which … stands for anything."""
    return re.compile(".*".join(map(re.escape, filter(None, quoted(cell)[0].split("…")))), re.DOTALL)


# --- the rest


def test_all_recipes_are_described() -> None:
    lines = (ROOT / "docs" / "recipes.md").read_text().splitlines()
    assert {name for line in lines if line.startswith("| `") for name in quoted(line.split("|")[1])} == set(RECIPES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\S+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    docs = ROOT / "docs"
    assert listed == {str(p.relative_to(docs)) for kind in ("md", "ipynb") for p in docs.rglob(f"*.{kind}")}


def test_all_files_and_checks_that_the_page_about_extending_names_exist() -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    paths = re.findall(r"`((?:shardkit|trainer|tests|docs)/[\w/.]*)`", text)
    checks = re.findall(r"`((?:shardkit|trainer)\.[\w.]+)`", text)
    assert len(paths) > 15
    assert len(checks) > 4
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for name in checks:
        module, _, function = name.rpartition(".")
        assert f"def {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text(), name

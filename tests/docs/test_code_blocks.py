"""Every code block of the documentation is run, in order, on a small dataset; one that cannot be is checked by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_DEEP = {
    "build.md",
    "evaluation.md",
    "explaining.md",
    "finetuning.md",
    "format.md",
    "training.md",
}  # builds and training runs of their own: the README has the like


def test_the_readme_runs_from_dicom_to_weights(documented: Path) -> None:
    for name in ("shards/dataset.json", "image.png", "runs/tiny/report.html", "encoder.safetensors"):
        assert (documented / name).is_file()


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, id=p.name, marks=pytest.mark.deep if p.name in _DEEP else ()) for p in PAGES],
)
def test_the_blocks_of_a_page_run_one_after_another(
    page: Path, blocks: ModuleType, workplace: Callable[[bool], None]
) -> None:
    workplace(not blocks.builds(page))
    blocks.run_page(page)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_what_a_page_names_without_running_it_exists(page: Path, blocks: ModuleType) -> None:
    for block in blocks.blocks(page):
        assert block.language in ("bash", "python", "text"), f"{block.where} names no language"
        if block.language != "text" and block.skip:
            blocks.check(block)

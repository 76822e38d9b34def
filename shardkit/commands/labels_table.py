"""`shardkit labels`: what the labels of a dataset say, as tables that fit a terminal, and as plain lines in a pipe."""

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from shardkit import labels
from shardkit.dataset import contents
from shardkit.labels.summary import MANIFEST, ColumnSummary, Summary, summarise
from shardkit.storage import Store
from shardkit.terminal.output import Terminal
from shardkit.terminal.words import counted

_CATEGORIES = 8  # categories of a label that are shown
_LEVELS = {"image": "images", "study": "studies", "patient": "patients"}
_WIDE = 1 << 16  # columns of a pipe: nothing is wrapped or cut


def show(url: str, name: str | None, private: Path | None, console: Terminal) -> None:
    """Print what labels say.

    Parameters
    ----------
    url : str
        The dataset.
    name : str or None
        Of the labels, None for all.
    private : Path or None
        Folder of the ledger.
    console : Terminal
        Where to.

    Raises
    ------
    ArgumentError
        There are no such labels, or no dataset.
    """
    if not console.is_terminal:  # lines of a pipe are neither wrapped nor cut
        console = Terminal(width=_WIDE)
    store = Store(url)
    described = contents.description(store)
    names = [name] if name is not None else labels.names(store)
    if not names:
        console.print(f"{url} has no labels: shardkit label joins a table", highlight=False, soft_wrap=True)
        return
    samples = contents.samples(store, MANIFEST, described)
    for i, one in enumerate(names):
        if i:
            console.print()
        _show(summarise(labels.read(store, one), samples, described.digest, private), console)


def _show(found: Summary, console: Terminal) -> None:
    description = found.table.description
    facts = {
        "labels": f"{description.name}, {found.table.about} of {_LEVELS[description.level]}, digest"
        f" {found.table.digest[:12]}",
        "samples": f"{found.samples:,} with a row, {found.unlabelled:,} without: {_listed(found.by_split)}",
        "official split": _listed(found.by_official) or "none",
        "rows": "of the table, by their samples: "
        + ", ".join(f"{count:,} {what}" for what, count in description.rows.items()),
    }
    if description.vote:
        facts["vote"] = f"{description.vote}, of several rows for one image"
    if description.collection:
        facts["collection"] = description.collection
    if found.table.boxes is not None:
        boxes = found.table.boxes
        facts["boxes"] = f"{boxes.num_rows:,} in {counted(len(boxes['key'].unique()), 'sample')}"
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for fact, text in facts.items():
        grid.add_row(fact, text)
    console.print(grid)
    for kind, title in (("binary", _binary), ("category", _category), ("number", _number)):
        if columns := [column for column in found.columns if column.kind == kind]:
            console.print()
            console.print(title(columns, found))
    for warning in warnings(found):
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _table(first: str, heads: list[str], found: Summary, kind: str) -> tuple[Table, list[str], list[str]]:
    """Return a table whose last columns are the splits, and their names."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    splits, official = list(found.by_split), list(found.by_official)
    for head in [*heads, *(f"{kind}{split}" for split in splits), *(f"official {split}" for split in official)]:
        table.add_column(head, justify="right")
    return table, splits, official


def _by(column: ColumnSummary, splits: list[str], official: list[str]) -> list[str]:
    of_splits = [f"{column.by_split.get(split, 0):,}" for split in splits]
    return of_splits + [f"{column.by_official.get(split, 0):,}" for split in official]


def _binary(columns: list[ColumnSummary], found: Summary) -> Table:
    table, splits, official = _table("label", ["1", "0", "-1", "blank"], found, "1 in ")
    for column in columns:
        counts = [f"{column.counts[value]:,}" for value in ("1", "0", "-1")]
        table.add_row(column.name, *counts, f"{column.blank:,}", *_by(column, splits, official))
    return table


def _category(columns: list[ColumnSummary], found: Summary) -> Table:
    table, splits, official = _table("label", ["blank"], found, "")
    table.add_column("values", overflow="fold")
    for column in columns:
        shown = list(column.counts.items())[:_CATEGORIES]
        more = f" … {len(column.counts):,} in all" if len(column.counts) > _CATEGORIES else ""
        table.add_row(column.name, f"{column.blank:,}", *_by(column, splits, official), _listed(dict(shown)) + more)
    return table


def _number(columns: list[ColumnSummary], found: Summary) -> Table:
    table, splits, official = _table("label", ["least", "median", "greatest", "blank"], found, "")
    for column in columns:
        limits = [f"{value:g}" for value in column.range] if column.range else ["", "", ""]
        table.add_row(column.name, *limits, f"{column.blank:,}", *_by(column, splits, official))
    return table


def warnings(found: Summary) -> list[str]:
    """Say in a sentence each what is wrong with labels of a dataset."""
    said = [f"leak: the official split {leak.words}" for leak in found.leaks]
    if found.stale:
        said.append("stale: the dataset has changed since these labels were joined; run shardkit label again")
    if found.gone:
        said.append(f"rows of samples that the dataset has no more: {found.gone:,}; run shardkit label again")
    return said

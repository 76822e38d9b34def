"""The command that says which public collections are known, and what is expected of a copy of one."""

from typing import TYPE_CHECKING

from shardkit.commands import console

if TYPE_CHECKING:
    from shardkit.sources.collections import Collection


def collections(name: str | None = None) -> int:
    """List the public collections whose tables are known; of one, say what a copy looks like, its counts and traps.

    Parameters
    ----------
    name
        Of the collection to tell about, e.g. nih14.
    """
    from shardkit.sources.collections import COLLECTIONS, collection

    if name is not None:
        for line in _told(collection(name)):
            console.plain(line)
    elif console.is_terminal:
        _print_table(list(COLLECTIONS.values()))
    else:
        for one in COLLECTIONS.values():
            console.plain(f"{one.name:<20} {one.expected['images']:>7} {one.title}")
    return 0


def _print_table(known: "list[Collection]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (("collection", "left"), ("images", "right"), ("", "left"), ("terms", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for one in known:
        table.add_row(one.name, f"{one.expected['images']:,}", one.title, one.terms)
    console.print(table)
    console.plain("shardkit collections NAME says what a copy of one looks like, and what is known to go wrong with it")


def _told(one: "Collection") -> list[str]:
    """Return all that is known of a collection, as lines."""
    lines = [f"{one.name}: {one.title}", "", "images"]
    lines += [f"  {path}" for path in one.layout]
    lines += ["  (folders above these may be called anything)", "", "tables, beside the images or below"]
    lines += [f"  {table.called}{'' if table.needed else ' (may be absent)'}: {table.about}" for table in one.tables]
    lines += ["", "published counts"] if one.tables else ["  none", "", "published counts"]
    lines += [f"  {count:>9,} {what}" for what, count in one.expected.items()]
    lines += ["", "what is known to go wrong, and what is done about it"]
    lines += [f"  {trap}" for trap in one.traps]
    lines += ["", f"terms: {one.terms}", f"cite: {one.citation}", ""]
    lines += [f"shardkit build --collection {one.name} --source FOLDER --out DATASET"]
    return lines

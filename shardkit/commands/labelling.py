"""Commands about labels: join a table, say what labels there are, remove them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from shardkit.commands import console, errors, private_folder
from shardkit.errors import ArgumentError, clean

if TYPE_CHECKING:
    from shardkit.labels.base import Kind
    from shardkit.labels.joining.join import Joined
    from shardkit.labels.reading.tables import TableOptions

_WORDS = Parameter(consume_multiple=True, negative="", show_default=False)
_NAMED = 10  # rows of a kind that are named


def label(
    dataset: str,
    *,
    name: str,
    table: str,
    by: Literal["path", "name", "sop", "accession", "study", "patient", "key"],
    column: str | None = None,
    labels: Annotated[tuple[str, ...], _WORDS] = (),
    list_: Annotated[str | None, Parameter(name="--list")] = None,
    separator: str | None = None,
    kind: Annotated[tuple[str, ...], _WORDS] = (),
    level: Literal["image", "study", "patient"] | None = None,
    vote: Literal["majority", "any", "all", "first"] | None = None,
    reader: str | None = None,
    split_column: str | None = None,
    boxes: str | None = None,
    positive: Annotated[tuple[str, ...], _WORDS] = (),
    negative: Annotated[tuple[str, ...], _WORDS] = (),
    uncertain: Annotated[tuple[str, ...], _WORDS] = (),
    private: Path | None = None,
) -> int:
    """Join a table of labels with a dataset and store it beside the shards, which stay as they are.

    The same name again makes a new version; the same table again changes nothing.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    name
        Name of the labels: small letters, digits, - and _.
    table
        CSV, TSV or Parquet file with a header.
    by
        What names the images: path or file name, SOP Instance UID, accession, study, patient, or sample key.
    column
        Column that holds it; default one with a usual name, such as StudyInstanceUID.
    labels
        Columns to take, or findings of --list; default all but identifiers, dates and free text.
    list_
        Column with a list of findings, such as "Edema|Effusion": a label for each.
    separator
        What separates the items of --list; default what the cells suggest.
    kind
        COLUMN=binary, number or category, where it should not be guessed.
    level
        What the labels are of: image, study or patient; default what follows from --by.
    vote
        How several rows for one image become one; without it they must agree.
    reader
        Column that names the reader of a row: no label.
    split_column
        Column of the official split.
    boxes
        Table of boxes: image, label, left, top, width, height in pixels of the original files.
    positive
        Words that mean 1 in binary labels.
    negative
        Words that mean 0.
    uncertain
        Words that mean -1.
    private
        Folder of the ledger and the pseudonym key; default DATASET.private.
    """
    from shardkit.build.exclusive import alone
    from shardkit.labels.joining import join
    from shardkit.labels.joining.matching import NotTold
    from shardkit.labels.reading import tables
    from shardkit.labels.reading.cells import Meaning
    from shardkit.storage import Store

    options = tables.TableOptions(
        by=by,
        column=column,
        labels=labels,
        list_column=list_,
        separator=separator,
        kinds=_kinds(kind),
        level=level,
        vote=vote,
        reader=reader,
        split_column=split_column,
        boxes=boxes,
        meaning=Meaning.of(positive, negative, uncertain),
    )
    place = private_folder(dataset, private)
    rows, said = tables.read(table, options)
    for sentence in said:
        console.print(sentence, style="dim", highlight=False, soft_wrap=True)
    try:
        with alone(None, Store(dataset)):
            joined = join.label(dataset, name, rows, place)
    except join.NoMatch as error:
        raise ArgumentError(f"{error}; {_advice(dataset, table, options, place)}") from None
    except NotTold as error:
        raise ArgumentError(f"{error.why}; {_advice(dataset, table, options, place)}") from None
    _print_joined(joined, name)
    _print_leaks(joined, dataset, place)
    return 0


def _print_leaks(joined: "Joined", dataset: str, private: Path) -> None:
    """Print what an official split puts into different splits."""
    from shardkit.commands.labels_table import warnings
    from shardkit.dataset import contents
    from shardkit.labels.summary import MANIFEST, summarise
    from shardkit.storage import Store

    if joined.labels.table["split"].null_count < joined.samples:
        samples = contents.samples(Store(dataset), MANIFEST)
        for warning in warnings(summarise(joined.labels, samples, joined.labels.description.dataset, private)):
            errors.print(warning, style="yellow", highlight=False, soft_wrap=True)


def _kinds(pairs: Sequence[str]) -> "dict[str, Kind]":
    found: dict[str, Kind] = {}
    for pair in pairs:
        column, equals, kind = pair.rpartition("=")
        if not equals or not column or kind not in ("binary", "number", "category"):
            raise ArgumentError(f"--kind takes COLUMN=binary, COLUMN=number or COLUMN=category, not {pair!r}")
        found[column] = kind  # type: ignore[assignment]
    return found


def _advice(dataset: str, table: str, options: "TableOptions", private: Path) -> str:
    """Say what would match, or what columns look like."""
    from shardkit.labels.joining.advice import advice

    return advice(dataset, table, options.by, private)


def _print_joined(joined: "Joined", name: str) -> None:
    """Print what became of the rows; references are not shown, because they are clear text."""
    from shardkit.terminal.words import counted

    rows, outcome, description = joined.outcome.rows, joined.outcome, joined.labels.description
    lines = [
        f"{counted(sum(rows.values()), 'row')} by their samples: "
        + ", ".join(f"{count:,} {what}" for what, count in rows.items())
    ]
    if outcome.lost:
        lines.append("unmatched: " + ", ".join(f"{reason} {count:,}" for reason, count in outcome.lost.items()))
    for what, numbers in (("unmatched", outcome.unmatched_rows), ("ambiguous", outcome.ambiguous_rows)):
        if numbers:
            more = " …" if rows[what] > _NAMED else ""
            lines.append(f"{what} rows: {', '.join(f'{number}' for number in numbers[:_NAMED])}{more}")
    if outcome.duplicates:
        are, count = ("is", "counts") if outcome.duplicates == 1 else ("are", "count")
        copies = f"{counted(outcome.duplicates, 'row')} {are} of exact duplicates"
        lines.append(f"{copies} and {count} for the sample that was kept")
    if joined.boxes is not None:
        boxes = joined.boxes
        lines.append(
            f"{counted(boxes.table.num_rows, 'box', 'boxes')}; {boxes.unmatched:,} of no sample,"
            f" {boxes.outside:,} outside their image, {boxes.cut:,} cut at its edge"
        )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    for conflict in joined.conflicts[:_NAMED]:
        errors.print(
            f"conflict: rows {conflict.rows[0]:,} and {conflict.rows[1]:,} are of the same pixels and differ in"
            f" {conflict.column}: left blank in {conflict.key}",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    if len(joined.conflicts) > _NAMED:
        errors.print(f"… {len(joined.conflicts):,} conflicts in all", style="yellow", highlight=False)
    if joined.losses:
        errors.print(f"{name}: the new version {joined.losses}", style="yellow", highlight=False, soft_wrap=True)
    state = "unchanged" if not joined.changed else "replaces the last version" if description.replaces else "new"
    console.print(
        f"{name}: {joined.labels.about} of {counted(joined.samples, 'sample')}, {joined.unlabelled:,} without;"
        f" {state}, digest {joined.labels.digest[:12]}",
        highlight=False,
        soft_wrap=True,
    )


def unlabel(dataset: str, *, name: str) -> int:
    """Remove labels from a dataset; the shards stay as they are.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    name
        Name of the labels.
    """
    from shardkit import labels
    from shardkit.build.exclusive import alone
    from shardkit.dataset import contents
    from shardkit.report import dataset_page
    from shardkit.storage import Store

    store = Store(dataset)
    described = contents.description(store)
    with alone(None, store):
        labels.remove(store, name)
        dataset_page.write(store, contents.samples(store, described=described), described)
    console.print(f"{clean(name)} is removed", highlight=False)
    return 0


def labels(dataset: str, name: str | None = None, *, private: Path | None = None) -> int:
    """Print what labels a dataset has: counts by split, uncertain and blank ones, and where an official split leaks.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    name
        Name of the labels; default all.
    private
        Folder of the ledger: then leaks by exact duplicates are found, too.
    """
    from shardkit.commands.labels_table import show

    show(dataset, name, private, console)
    return 0

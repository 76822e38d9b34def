"""Looking at things: what a scan would find, what became of files, what a dataset holds, one sample as a picture."""

import csv
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from rich.table import Table

from shardkit.build import ledger
from shardkit.build.known_facts import KnownFacts
from shardkit.config import Rules
from shardkit.dataset import contents
from shardkit.errors import ArgumentError
from shardkit.looking.dataset import Dataset
from shardkit.looking.pictures import window
from shardkit.sources.base import ImageSource
from shardkit.sources.entries import Entry
from shardkit.storage import Store, no_folder, parquet, shown, translate_errors
from shardkit.terminal.output import Terminal
from shardkit.terminal.words import counted

_SHOWN = ["verdict", "reason", "path", "message", "key"]
_KEYS, _START = 5, 12  # keys that are named, and how much of them
_BLOCK = 1 << 12  # rows handled as Python objects at once


@dataclass
class ScanCounts:
    """What headers say of an export.

    Attributes
    ----------
    verdicts : Counter
        Files by verdict and reason.
    modalities : Counter
        Files by modality.
    pixels : int
        Pixels worth converting.
    """

    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    pixels: int = 0


def scan_counts(source: ImageSource, workers: int, rules: Rules, facts: KnownFacts | None = None) -> ScanCounts:
    """Read every header of an export.

    Parameters
    ----------
    source : ImageSource
        The export.
    workers : int
        Processes that read.
    rules : Rules
        What a build would take.
    facts : KnownFacts, optional
        What a table says of the files.

    Returns
    -------
    ScanCounts
        What the headers say.

    Raises
    ------
    ArgumentError
        The source is empty.
    """
    from shardkit.build import isolation, scan
    from shardkit.config import MEMORY_LIMIT, TIME_LIMIT

    source.files.check()
    counts = ScanCounts()

    def read(entries: list[Entry]) -> list[scan.ScannedFile]:
        return scan.scan_part(source, entries, rules, workers, MEMORY_LIMIT, TIME_LIMIT)

    try:
        with ThreadPoolExecutor(workers) as threads:
            listed = source.list() if facts is None else map(facts.of, source.list())
            for part in scan.parts(listed, workers * scan.CHUNK):
                chunks = [part[i : i + scan.CHUNK] for i in range(0, len(part), scan.CHUNK)]
                for found in threads.map(read, chunks):
                    for _, row in (image for file in found for image in file.images):
                        counts.verdicts[row.verdict or "to convert", row.reason or ""] += 1
                        counts.pixels += row.height * row.width
                        if row.modality:
                            counts.modalities[row.modality] += 1
    finally:
        isolation.close_children()
    if not counts.verdicts:
        raise ArgumentError(f"--source {shown(source.files.url)} holds no files")
    return counts


def ledger_rows(private: Path, verdict: str | None, reason: str | None, flag: str | None = None) -> pa.Table:
    """Read rows of the ledger in a private folder, by path.

    Parameters
    ----------
    private : Path
        The folder.
    verdict, reason : str or None
        What the files have become. Without any choice, all files that are not written.
    flag : str, optional
        What they are flagged with.

    Returns
    -------
    pyarrow.Table
        Verdict, reason, path and message of each file, and key of its sample; of a duplicate, of the one that was kept.

    Raises
    ------
    ArgumentError
        There is no ledger, or no such reason or flag.
    """
    from shardkit.triage import DROPS, QUARANTINES

    path = private / ledger.NAME
    if not path.exists():
        raise ArgumentError(f"{private} holds no {ledger.NAME}: name the --private folder of a build that has ended")
    if reason is not None and reason not in {*DROPS, *QUARANTINES, *ledger.WRITTEN}:
        there = ", ".join(sorted(set(parquet.read(path, ["reason"])["reason"].to_pylist())))
        raise ArgumentError(f"--class {reason} does not exist: this ledger has {there}")
    rows = ledger.select(parquet.read(path, [*_SHOWN, "flags"]), verdict, reason)
    if flag is not None:
        flags = sorted(set(parquet.read(path, ["flags"])["flags"].combine_chunks().flatten().to_pylist()))
        if flag not in flags:
            raise ArgumentError(f"--flag {flag}: no file has it; this ledger has {', '.join(flags) or 'no flags'}")
        rows = ledger.flagged(rows, flag)
    rows = rows.select(_SHOWN)
    return rows if verdict or reason or flag else rows.filter(pc.not_equal(rows["verdict"], "written"))


def show_ledger(rows: pa.Table, limit: int | None, as_csv: bool, console: Terminal, errors: Terminal) -> None:
    """Print rows of a ledger and how many there are: as text that fits a terminal, or as CSV with the count apart."""
    shown = rows.slice(0, limit)
    count = counted(rows.num_rows, "file") + (f", {shown.num_rows:,} shown" if shown.num_rows < rows.num_rows else "")
    if as_csv:
        writer = csv.writer(console.file)
        writer.writerow(rows.column_names)
        for batch in shown.to_batches(_BLOCK):
            writer.writerows(row.values() for row in batch.to_pylist())
        errors.print(count, highlight=False)
        return
    for row in shown.to_pylist():
        name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in row["path"])
        console.print(f"{row['verdict']} {row['reason']}  {name}", highlight=False, soft_wrap=True)
        for words in filter(None, (row["message"], row["key"] and f"key {row['key']}")):
            console.print(f"    {words}", style="dim", highlight=False, soft_wrap=True)
    console.print(count, highlight=False)


def show(url: str, console: Terminal) -> None:
    """Print a dataset's description as tables."""
    store = Store(url)
    described = contents.description(store)
    samples = contents.samples(store, ["bin_height", "bin_width", "length", "bits", "body_part"], described)
    pixels, stored = described.pixels, described.bytes
    lines = {
        "samples": f"{described.samples:,} in {described.shards:,} shards",
        "size": f"{stored / 1e9:,.3f} GB, {pixels / 1e6:,.0f} Mpx, ratio {2 * pixels / max(stored, 1):.2f}",
        "format": f"{described.shard_format}, {described.codec} (.{described.extension})"
        + (f", DICOM transfer syntax {syntax}" if (syntax := described.transfer_syntax) else ""),
        "splits": ", ".join(f"{k} {v:,}" for k, v in described.splits.items()),
        "tokens": f"{described.tokens:,} at patch {described.patch}, {described.padded_tokens:,} padded to bins"
        f" ({100 * described.padded_tokens / max(described.tokens, 1):.1f} %)",
        "bits": _counts(samples["bits"].to_pylist()),
        "body parts": _counts([part or "unknown" for part in samples["body_part"].to_pylist()]),
        "digest": described.digest,
    }
    for verdict, reasons in described.verdicts.items():
        lines[verdict] = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items()) or "none"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, text)
    console.print(table)
    bins = samples.group_by(["bin_height", "bin_width"]).aggregate([([], "count_all"), ("length", "sum")])
    rows = sorted(bins.to_pylist(), key=lambda r: (r["bin_height"], r["bin_width"]))
    sizes = Table("bin (height x width)", "samples", "MB", box=None, pad_edge=False)
    for row in rows:
        name = f"{row['bin_height']} x {row['bin_width']}"
        sizes.add_row(name, f"{row['count_all']:,}", f"{row['length_sum'] / 1e6:,.1f}")
    console.print()
    console.print(sizes)


def _counts(values: list[object]) -> str:
    return ", ".join(f"{value} {count:,}" for value, count in Counter(values).most_common(12))


def preview(url: str, key: str | None, level: int, out: Path) -> str:
    """Write a sample as an 8-bit PNG.

    Parameters
    ----------
    url : str
        The dataset.
    key : str or None
        Key of the sample, or its start; without one, a sample from the middle is taken.
    level : int
        How many times the image is halved.
    out : Path
        The PNG file.

    Returns
    -------
    str
        A line about the picture, with its key.

    Raises
    ------
    ArgumentError
        No sample has such a key, or several have.
    """
    samples = Dataset(url)
    sample = samples[len(samples) // 2 if key is None else key]
    pixels = sample.pixels(level)
    if absent := no_folder(out.absolute().parent):
        raise ArgumentError(f"-o {out}: {absent}")
    with translate_errors(str(out)):
        Image.fromarray(window(pixels, *sample.window)).save(out, "PNG")
    read, *_ = sample.level_bytes[level:]
    size = f"{pixels.shape[0]} rows x {pixels.shape[1]} columns"
    said = f"{out}: {sample.key}, {size}, level {level}, {read:,} of {sample.level_bytes[0]:,} bytes read"
    if key is None:
        others = samples.keys[:: max(1, len(samples) // _KEYS)]
        said += f"\nother keys, of which the start will do: {' '.join(name[:_START] for name in others[:_KEYS])}"
    return said

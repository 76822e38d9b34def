"""Commands that look at exports, datasets and samples."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from shardkit.commands import console, cores, errors, private_folder
from shardkit.errors import ArgumentError
from shardkit.terminal.words import counted


def scan(
    *,
    source: str,
    workers: int | None = None,
    follow_symlinks: bool = False,
    collection: str | None = None,
    facts: str | None = None,
    facts_columns: str = "",
    image_files: bool = False,
    frames: Literal["drop", "each"] = "drop",
    slices: str = "axis=2",
) -> int:
    """Read every header and print what a build would do, writing nothing.

    Parameters
    ----------
    source
        Folder or bucket url of the export.
    workers
        Processes that read; default one per core.
    follow_symlinks
        Read what symbolic links point to.
    collection
        The public collection that the source is a copy of, as for build.
    facts, facts_columns
        A table that says of files whom they are of and how they were taken, as for build.
    image_files
        Take PNG, JPEG, TIFF and NIfTI files, as well as DICOM.
    frames
        What to do with files of several frames: drop them, or take each frame as an image.
    slices
        Which slices of a NIfTI volume to take: axis=0, 1 or 2, and from, to (which is left out) and step.
    """
    from shardkit.build.known_facts import known_facts
    from shardkit.build.outcome import listed
    from shardkit.commands.building import columns_of
    from shardkit.commands.info import scan_counts
    from shardkit.config import DatasetOptions
    from shardkit.sources import image_source
    from shardkit.sources.images.slices import parse

    parse(slices)
    columns, rules = columns_of(facts_columns), DatasetOptions(collection=collection).rules
    with tempfile.TemporaryDirectory(prefix="shardkit-") as folder:  # its owner's alone
        images = image_source(
            source,
            follow_symlinks,
            indexes=Path(folder),
            image_files=image_files,
            frames=frames,
            slices=slices,
        )
        images.files.check()
        known = known_facts(images, source, collection, facts, columns)
        counts = scan_counts(images, workers or cores(), rules, known)
    for (verdict, reason), count in sorted(counts.verdicts.items()):
        console.print(f"{count:>10,}  {verdict:<12} {reason}", highlight=False)
    total, pixels = sum(counts.verdicts.values()), counts.pixels / 1e6
    console.print(f"{total:>10,}  files; {pixels:,.0f} Mpx worth converting", highlight=False)
    console.print(f"modalities: {listed(counts.modalities)}", highlight=False, soft_wrap=True)
    for sentence in known.joined() if known else ():
        console.print(sentence, highlight=False, soft_wrap=True)
    return 0


def ledger(
    out: str,
    *,
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    verdict: Literal["written", "dropped", "quarantined"] | None = None,
    flag: str | None = None,
    private: Path | None = None,
    limit: int | None = None,
    csv: bool = False,
) -> int:
    """Print which files of the export were dropped or quarantined, and why. Source paths are private: so is the output.

    Parameters
    ----------
    out
        Folder or bucket url of the dataset. Only its private folder is read.
    class_
        Show the files of this reason, e.g. decode_error.
    verdict
        Show the files of this verdict.
    flag
        Show the files that have this flag, e.g. bits_unsure.
    private
        Folder of the ledger and the pseudonym key; default OUT.private.
    limit
        Files to show; default 50 on a terminal, else all.
    csv
        Print comma-separated values, as is done where the output is no terminal; the count goes to standard error.
    """
    from shardkit.commands.info import ledger_rows, show_ledger

    if limit is not None and limit < 0:
        raise ArgumentError("--limit must be at least 0")
    as_csv = csv or not console.is_terminal
    rows = ledger_rows(private_folder(out, private), verdict, class_, flag)
    show_ledger(rows, 50 if limit is None and not as_csv else limit, as_csv, console, errors)
    return 0


def info(dataset: str) -> int:
    """Print what a dataset holds.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    """
    from shardkit.commands.info import show

    show(dataset, console)
    return 0


def verify(dataset: str, *, decode: bool = True, workers: int | None = None) -> int:
    """Read every byte back and name each bad member; exit code 1 if there is one.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    decode
        Also decode every image and compare its pixels' hash.
    workers
        Threads that read; default one per core.
    """
    from shardkit.dataset.verify import verify as check

    problems = 0
    summary = None
    for item in check(dataset, decode, workers or cores()):
        if isinstance(item, str):
            problems += 1
            errors.print(item, style="red", highlight=False, soft_wrap=True)
        else:
            summary = item
    assert summary is not None
    console.print(
        f"{counted(summary.samples, 'sample')} in {counted(summary.shards, 'shard')}, {summary.bytes:,} bytes read: "
        + (f"{problems:,} problem{'s' * (problems > 1)}" if problems else "all sound"),
        highlight=False,
    )
    return 1 if problems else 0


def preview(
    key: str | None = None, *, dataset: str, level: int = 0, out: Annotated[Path, Parameter(name=["--out", "-o"])]
) -> int:
    """Write one sample as an 8-bit PNG, windowed to its 0.5th-99.5th percentile.

    Parameters
    ----------
    key
        Key of the sample, or its start; without one, a sample from the middle is shown, and some keys are named.
    dataset
        Folder or bucket url of the dataset.
    level
        How many times the image is halved; only that level's bytes are read.
    out
        PNG file to write.
    """
    from shardkit.commands.info import preview as render

    console.print(render(dataset, key, level, out), highlight=False, soft_wrap=True)
    return 0


def demo(*, out: Path = Path("demo"), studies: int = 80, seed: int = 0, steps: int = 100) -> int:
    """Make a small synthetic export, build, verify and label it, train on it, and say where the pages about it are.

    Parameters
    ----------
    out
        Folder for the export and the dataset.
    studies
        How many studies to make.
    seed
        Seed of the synthetic patients; the same seed gives the same demo.
    steps
        How many steps to train.
    """
    from shardkit.commands.demo import demo as show

    return show(out, studies, seed, steps, cores(), console)

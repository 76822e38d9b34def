"""Commands that look at exports, datasets and samples."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shardkit.commands import console, cores, errors


def scan(*, source: str, workers: int | None = None, follow_symlinks: bool = False) -> int:
    """Read every header and print what a build would do, writing nothing.

    Parameters
    ----------
    source
        Folder or bucket url of the export.
    workers
        Processes that read; default one per core.
    follow_symlinks
        Read what symbolic links point to.
    """
    from shardkit.inspect import scan_counts
    from shardkit.source import Source

    counts, sizes = scan_counts(Source(source, follow_symlinks), workers or cores())
    for (verdict, reason), count in sorted(counts.items()):
        console.print(f"{count:>10,}  {verdict:<12} {reason}", highlight=False)
    console.print(f"{sum(counts.values()):>10,}  files; {sizes:,.0f} Mpx worth converting", highlight=False)
    return 0


def info(dataset: str) -> int:
    """Print what a dataset holds.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    """
    from shardkit.inspect import show

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
    from shardkit.verify import verify as check

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
        f"{summary.samples:,} samples in {summary.shards:,} shards, {summary.bytes:,} bytes read: "
        + (f"{problems:,} problems" if problems else "all sound"),
        highlight=False,
    )
    return 1 if problems else 0


def preview(key: str, *, dataset: str, level: int = 0, out: Annotated[Path, Parameter(name=["--out", "-o"])]) -> int:
    """Write one sample as an 8-bit PNG, windowed to its 0.5th-99.5th percentile.

    Parameters
    ----------
    key
        Key of the sample, or its start.
    dataset
        Folder or bucket url of the dataset.
    level
        How many times the image is halved; only that level's bytes are read.
    out
        PNG file to write.
    """
    from shardkit.inspect import preview as render

    console.print(render(dataset, key, level, out), highlight=False)
    return 0


def demo(*, out: Path = Path("demo"), studies: int = 40, seed: int = 0, steps: int = 300) -> int:
    """Make a small synthetic export, build it, verify it, train on it, and say where the pages about it are.

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
    from shardkit.demo import demo as show

    return show(out, studies, seed, steps, cores(), console)

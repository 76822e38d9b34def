"""The command line. Every error a user can cause ends in one sentence and exit code 1; a traceback is a bug.

Exit codes: 0 done, 1 could not, 2 bad usage, 3 done, but more files are quarantined than --max-quarantine allows.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console

from shardkit import __version__
from shardkit.errors import ArgumentError, ShardkitError

if TYPE_CHECKING:
    from shardkit.arguments import Arguments
    from shardkit.build import Outcome

app = App(
    name="shardkit",
    help="Stream hospital radiographs to GPUs: DICOM exports become resolution-binned, lossless, verified shards.",
    version=__version__,
    version_flags=["--version"],
)
console = Console()
_errors = Console(stderr=True)

Codec = Literal["htj2k", "png", "raw"]


@app.command
def build(
    *,
    source: str,
    out: str,
    private: Path | None = None,
    bins: str = "auto:36",
    patch: int = 48,
    codec: Codec = "htj2k",
    shard_size: int = 512,
    modalities: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    min_side: int = 64,
    max_side: int = 3072,
    oversize: Literal["drop", "halve"] = "drop",
    invert: Literal["full", "imagemax"] = "full",
    secondary_capture: Literal["keep", "drop"] = "keep",
    missing_patient_id: Literal["study", "quarantine"] = "study",
    near_duplicates: Literal["report", "drop"] = "report",
    demographics: bool = False,
    follow_symlinks: bool = False,
    source_moved: bool = False,
    max_quarantine: float = 0.01,
    workers: int | None = None,
    time_limit: float = 30.0,
    memory_limit: float = 4.0,
    dask: str | None = None,
) -> int:
    """Turn a DICOM export into a dataset. Run the same command again to resume, or to add new files.

    Parameters
    ----------
    source
        Folder or bucket url of the export.
    out
        Folder or bucket url of the dataset.
    private
        Folder for the ledger and the pseudonym key; default <out>.private, required when --out is a bucket.
    bins
        auto:K, thesis, or a JSON file of [height, width] pairs.
    patch
        Patch size in pixels that bins are multiples of.
    codec
        Image format of the samples: htj2k holds every resolution in one stream.
    shard_size
        Size aimed at for a shard, in MiB.
    modalities
        DICOM modalities to take; default CR DX MG PX IO RG.
    min_side
        Drop images with a side below this, in pixels.
    max_side
        Images with a side above this are dropped or halved, in pixels.
    oversize
        What to do with images above --max-side.
    invert
        full inverts as 2^bits - 1 - x; imagemax as max(image) - x, the thesis' variant.
    secondary_capture
        Whether to take secondary captures.
    missing_patient_id
        Without a PatientID, let the study stand for the patient, or quarantine.
    near_duplicates
        Report near-duplicates and keep them in one split, or drop all but one.
    demographics
        Keep sex and age (five-year steps).
    follow_symlinks
        Read what symbolic links point to.
    source_moved
        The export of the earlier runs now lies here.
    max_quarantine
        Share of files that may be quarantined before the exit code is 3.
    workers
        Processes that decode; default one per core.
    time_limit
        Seconds a file may take.
    memory_limit
        GiB a decoder may take.
    dask
        Address of a Dask scheduler that runs the work, e.g. tcp://scheduler:8786.
    """
    from shardkit.arguments import Arguments, Conversion
    from shardkit.dicom.triage import Rules
    from shardkit.source import Source

    rules = Rules(
        modalities=tuple(m.upper() for m in modalities) if modalities else Rules().modalities,
        min_side=min_side,
        max_side=max_side,
        oversize=oversize,
        secondary_capture=secondary_capture,
        missing_patient_id=missing_patient_id,
        near_duplicates=near_duplicates,
    )
    arguments = Arguments(
        conversion=Conversion(
            source=Source(source, follow_symlinks),
            out=out,
            codec=codec,
            rules=rules,
            invert=invert,
            demographics=demographics,
            time_limit=time_limit,
            memory_limit=int(memory_limit * (1 << 30)),
        ),
        private=_private(out, private),
        bins=bins,
        patch=patch,
        shard_bytes=shard_size << 20,
        max_quarantine=max_quarantine,
        source_moved=source_moved,
        workers=_cores() if workers is None else workers,
    )
    return _run(arguments, dask, None)


@app.command
def retry(
    *,
    class_: Annotated[str, Parameter(name="--class")],
    source: str,
    out: str,
    private: Path | None = None,
    max_quarantine: float = 0.01,
    workers: int | None = None,
    time_limit: float = 30.0,
    memory_limit: float = 4.0,
) -> int:
    """Take the quarantined files of one class in again, with the arguments of the build.

    Parameters
    ----------
    class_
        Reason the files are quarantined for, e.g. decode_error.
    source
        Folder or bucket url of the export.
    out
        Folder or bucket url of the dataset.
    private
        Folder of the ledger and the pseudonym key; default <out>.private.
    max_quarantine
        Share of files that may be quarantined before the exit code is 3.
    workers
        Processes that decode; default one per core.
    time_limit
        Seconds a file may take: more than before, to retry decode_timeout.
    memory_limit
        GiB a decoder may take: more than before, to retry memory_limit.
    """
    from dataclasses import replace

    from shardkit.state import recorded_arguments

    arguments = recorded_arguments(source, out, _private(out, private))
    limits = replace(arguments.conversion, time_limit=time_limit, memory_limit=int(memory_limit * (1 << 30)))
    arguments = replace(arguments, conversion=limits, max_quarantine=max_quarantine, workers=workers or _cores())
    return _run(arguments, None, class_)


def _run(arguments: "Arguments", dask: str | None, again: str | None) -> int:
    from shardkit import build as building
    from shardkit.dask import dask_executor
    from shardkit.progress import Shown

    with Shown(console) as progress:
        if dask is None:
            outcome = building.build(arguments, progress, retry=again)
        else:
            with dask_executor(dask) as (executor, slots, children):
                outcome = building.build(arguments.with_workers(slots, children), progress, executor, again)
    _print_outcome(outcome, arguments.conversion.out, arguments.private)
    if outcome.within_quarantine:
        return 0
    share = f"{100 * outcome.quarantine_share:.1f} % of the files are quarantined, above --max-quarantine"
    _errors.print(f"{share} {100 * arguments.max_quarantine:g} %: the ledger says why", style="yellow", highlight=False)
    return 3


def _print_outcome(outcome: "Outcome", out: str, private: Path) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim")
    for verdict, reasons in outcome.counts.items():
        text = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
        table.add_row(f"{sum(reasons.values()):,}", verdict, text)
    console.print(table)
    if outcome.changed or outcome.missing:
        console.print(
            f"{outcome.changed:,} files changed and {outcome.missing:,} vanished since they were built: their samples"
            " stay as they were, the ledger flags them",
            style="yellow",
        )
    console.print(
        f"{outcome.new_files:,} new files; {outcome.samples:,} samples in {out}, ledger and key in {private}",
        highlight=False,
    )
    if "://" not in out:
        console.print(f"report: {Path(out) / 'report' / 'index.html'}", highlight=False)


@app.command
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

    counts, sizes = scan_counts(Source(source, follow_symlinks), workers or _cores())
    for (verdict, reason), count in sorted(counts.items()):
        console.print(f"{count:>10,}  {verdict:<12} {reason}", highlight=False)
    console.print(f"{sum(counts.values()):>10,}  files; {sizes:,.0f} Mpx worth converting", highlight=False)
    return 0


@app.command
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


@app.command
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
    for item in check(dataset, decode, workers or _cores()):
        if isinstance(item, str):
            problems += 1
            _errors.print(item, style="red", highlight=False, soft_wrap=True)
        else:
            summary = item
    assert summary is not None
    console.print(
        f"{summary.samples:,} samples in {summary.shards:,} shards, {summary.bytes:,} bytes read: "
        + (f"{problems:,} problems" if problems else "all sound"),
        highlight=False,
    )
    return 1 if problems else 0


@app.command
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


@app.command
def plan(
    dataset: str,
    *,
    batching: str,
    seed: int = 0,
    epoch: int = 0,
    split: str = "train",
    window: int = 256,
    world_size: int = 1,
) -> int:
    """Print what an epoch costs: tokens, how well it is shuffled, bytes read and cache needed. Reads no shard.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    batching
        For example packed:tokens=24576,patch=48, binned:tokens=24576,patch=48 or resized:side=224,batch_size=64.
    seed
        Seed of the run.
    epoch
        Which epoch.
    split
        train, val, test or all.
    window
        Shards that are mixed at any time.
    world_size
        Ranks that share a step.
    """
    from shardkit.catalog import Catalog
    from shardkit.plan import EpochPlan, from_text
    from shardkit.plan.described import Described
    from shardkit.planning import show

    made = from_text(batching)
    if world_size < 1 or made.per_step % world_size:
        raise ArgumentError(f"per_step={made.per_step} cannot be shared among --world-size {world_size}")
    catalog = Catalog(dataset)
    chosen = None if split == "all" else split
    planned = EpochPlan(catalog.samples(chosen), seed, epoch, made, window)
    show(catalog, planned, Described(chosen, "", window, made), seed, epoch, world_size, console)
    return 0


@app.command
def replay(
    dataset: str,
    *,
    step: int,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    state: Path | None = None,
    batching: str | None = None,
    seed: int = 0,
    epoch: int = 0,
    split: str = "train",
    window: int = 256,
) -> int:
    """Write the images of one global step as a PNG, as the model saw them: crops and flips included.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    step
        Which step of the epoch.
    out
        PNG file to write.
    state
        JSON file with a loader's state; says batching, seed, epoch, split and window.
    batching
        Without --state: as for plan.
    seed
        Without --state: seed of the run.
    epoch
        Without --state: which epoch.
    split
        Without --state: train, val, test or all.
    window
        Without --state: shards that are mixed at any time.
    """
    from shardkit.plan import from_text
    from shardkit.plan.described import Described
    from shardkit.replay import open_loader, read_state
    from shardkit.replay import replay as draw

    if (state is None) == (batching is None):
        raise ArgumentError("replay needs either --state or --batching, one of the two")
    if state is not None:
        described, seed, epoch = read_state(state)
    else:
        described = Described(None if split == "all" else split, "", window, from_text(batching or ""))
    console.print(draw(open_loader(dataset, described, seed, epoch), step, out), highlight=False, soft_wrap=True)
    return 0


@app.command
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

    return show(out, studies, seed, steps, _cores(), console)


def _private(out: str, private: Path | None) -> Path:
    from shardkit.storage import is_remote, local_path

    if private is not None:
        return private
    if is_remote(out):
        raise ArgumentError(
            "--private DIR is required when --out is a bucket: keys and source paths must stay with you"
        )
    place = local_path(out)
    return (
        place.with_name(f"{place.name}.private")
        if place.name
        else place.absolute().with_name(f"{place.absolute().name}.private")
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(words: list[str] | None = None) -> int:
    """Run the command line `words` (default: the process's own); returns the exit code."""
    try:
        code = app(words, result_action="return_value")
    except ShardkitError as error:
        _errors.print(f"shardkit: {error}", style="red", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        _errors.print("shardkit: stopped; run the same command again to go on", style="yellow")
        return 130
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `shardkit` command."""
    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: threads that pyarrow 26 may still be starting abort the interpreter's shutdown now and then.
    os._exit(code)

"""Commands that make datasets."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from shardkit.commands import console, cores, errors, private_folder

if TYPE_CHECKING:
    from shardkit.build.outcome import Outcome
    from shardkit.config import Arguments

Format = Literal["webdataset", "zarr"]
Codec = Literal["htj2k", "png", "raw", "blosc"]


def build(
    *,
    source: str,
    out: str,
    private: Path | None = None,
    bins: str = "auto:36",
    patch: int = 48,
    format: Format = "webdataset",
    codec: Codec | None = None,
    levels: int = 0,
    shard_size: int = 512,
    modalities: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    min_side: int = 64,
    max_side: int = 3072,
    min_content: float = 0.05,
    oversize: Literal["drop", "halve"] = "drop",
    invert: Literal["full", "imagemax"] = "full",
    secondary_capture: Literal["keep", "drop"] = "keep",
    missing_patient_id: Literal["study", "quarantine"] = "study",
    near_duplicates: Literal["report", "drop"] = "report",
    demographics: bool = False,
    follow_symlinks: bool = False,
    source_moved: bool = False,
    max_quarantine: float = 0.01,
    accept_outcome: bool = False,
    workers: int | None = None,
    time_limit: float = 30.0,
    memory_limit: float = 4.0,
    dask: str | None = None,
) -> int:
    """Turn a DICOM export into a dataset. Run the same command again to resume, or to add new files.

    Exit code 4 means an outcome that nobody can want, each said in a sentence: no sample; no sample in the train split;
    a patient, a study or a group of near-duplicates with more than half of the samples (and 20 or more); a rule that
    dropped more than half of the images. Exit code 3 means too many quarantined files; where both are true it is 4.

    Parameters
    ----------
    source
        Folder or bucket url of the export.
    out
        Folder or bucket url of the dataset.
    private
        Folder for the ledger and the pseudonym key; default OUT.private, required when --out is a bucket.
    bins
        auto:K, thesis, or a JSON file of [height, width] pairs.
    patch
        Patch size in pixels that bins are multiples of.
    format
        webdataset (tars) or zarr (arrays).
    codec
        Image format of the samples, default htj2k, which holds every resolution in one stream; in Zarr always blosc.
    levels
        Zarr only: how many smaller images (1/2, 1/4, ...) to store beside each, as arrays pixels_1, pixels_2, ...
    shard_size
        Size aimed at for a shard, in MiB.
    modalities
        DICOM modalities to take; default CR DX MG PX IO RG. The SOP class stands in for one that is absent; NONE takes
        files for which it cannot.
    min_side
        Drop images with a side below this, in pixels.
    max_side
        Images with a side above this are dropped or halved, in pixels.
    min_content
        Drop images of which all but borders and padding fill less than this share.
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
    accept_outcome
        Do not end with exit code 4 for a dataset that nobody can want.
    workers
        Processes that decode; default one per core.
    time_limit
        Seconds a file may take.
    memory_limit
        GiB a decoder may take.
    dask
        Address of a Dask scheduler that runs the work, e.g. tcp://scheduler:8786.
    """
    from shardkit.config import Arguments, Conversion
    from shardkit.formats import codecs_of, shard_format
    from shardkit.sources.dicom.triage import Rules
    from shardkit.sources.listing import Source

    rules = Rules(
        modalities=tuple(m.upper() for m in modalities) if modalities else Rules().modalities,
        min_side=min_side,
        max_side=max_side,
        min_content=min_content,
        oversize=oversize,
        secondary_capture=secondary_capture,
        missing_patient_id=missing_patient_id,
        near_duplicates=near_duplicates,
    )
    arguments = Arguments(
        conversion=Conversion(
            source=Source(source, follow_symlinks),
            out=out,
            format=format,
            codec=codec or codecs_of(shard_format(format))[0],
            levels=levels,
            rules=rules,
            invert=invert,
            demographics=demographics,
            time_limit=time_limit,
            memory_limit=int(memory_limit * (1 << 30)),
        ),
        private=private_folder(out, private),
        bins=bins,
        patch=patch,
        shard_bytes=shard_size << 20,
        max_quarantine=max_quarantine,
        source_moved=source_moved,
        workers=cores() if workers is None else workers,
    )
    return _run(arguments, dask, None, accept_outcome)


def retry(
    *,
    class_: Annotated[str, Parameter(name="--class")],
    source: str,
    out: str,
    private: Path | None = None,
    source_moved: bool = False,
    max_quarantine: float = 0.01,
    accept_outcome: bool = False,
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
        Folder of the ledger and the pseudonym key; default OUT.private.
    source_moved
        The export of the earlier runs now lies here.
    max_quarantine
        Share of files that may be quarantined before the exit code is 3.
    accept_outcome
        Do not end with exit code 4 for a dataset that nobody can want.
    workers
        Processes that decode; default one per core.
    time_limit
        Seconds a file may take: more than before, to retry decode_timeout.
    memory_limit
        GiB a decoder may take: more than before, to retry memory_limit.
    """
    from dataclasses import replace

    from shardkit.build.workspace import recorded_arguments

    arguments = recorded_arguments(source, out, private_folder(out, private))
    limits = replace(arguments.conversion, time_limit=time_limit, memory_limit=int(memory_limit * (1 << 30)))
    arguments = replace(arguments, conversion=limits, max_quarantine=max_quarantine, workers=workers or cores())
    return _run(replace(arguments, source_moved=source_moved), None, class_, accept_outcome)


def convert(
    dataset: str,
    out: str,
    *,
    format: Format,
    codec: Codec | None = None,
    levels: int = 0,
    shard_size: int | None = None,
    workers: int | None = None,
) -> int:
    """Write a dataset in another format, pixel by pixel the same, without the DICOM. Run it again to resume.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset.
    out
        Folder or bucket url of the new one.
    format
        webdataset (tars) or zarr (arrays).
    codec
        Image format of the samples, default htj2k; in Zarr always blosc.
    levels
        Zarr only: how many smaller images to store beside each.
    shard_size
        Size aimed at for a shard, in MiB; default that of the dataset.
    workers
        Processes that decode and encode; default one per core.
    """
    from shardkit.build.transcode import Target, transcode
    from shardkit.formats import codecs_of, shard_format

    size = None if shard_size is None else shard_size << 20
    target = Target(out, format, codec or codecs_of(shard_format(format))[0], levels, size)
    done = transcode(dataset, target, workers or cores())
    console.print(
        f"{done.samples:,} samples in {done.shards:,} shards of {out}, {done.kept:,} of which were there",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _run(arguments: "Arguments", dask: str | None, again: str | None, accept: bool) -> int:
    from shardkit.build import run as building
    from shardkit.build.dask import dask_executor
    from shardkit.build.progress import Shown

    with Shown(console) as progress:
        if dask is None:
            outcome = building.build(arguments, progress, retry=again)
        else:
            with dask_executor(dask) as (executor, slots, children):
                outcome = building.build(arguments.with_workers(slots, children), progress, executor, again)
    _print_outcome(outcome, arguments.conversion.out, arguments.private)
    for sentence in _complaints(outcome, arguments, accept):
        errors.print(sentence, style="yellow", highlight=False, soft_wrap=True)
    if outcome.unwanted and not accept:
        return 4
    return 0 if outcome.within_quarantine else 3


def _complaints(outcome: "Outcome", arguments: "Arguments", accept: bool) -> list[str]:
    """A sentence for each thing that may make this dataset useless, and where to look and what to do."""
    said = [f"outcome: {sentence}" for sentence in outcome.unwanted]
    if not outcome.within_quarantine:
        share, limit = 100 * outcome.quarantine_share, 100 * arguments.max_quarantine
        said.append(f"{share:.1f} % of the files are quarantined, above --max-quarantine {limit:g} %")
    if said and any(outcome.counts[verdict] for verdict in ("dropped", "quarantined")):
        places = shlex.join([arguments.conversion.out, "--private", str(arguments.private)])
        said.append(f"see why: shardkit ledger {places}")
    if outcome.unwanted and not accept:
        said.append("if this is what you want: --accept-outcome")
    return said


def _print_outcome(outcome: "Outcome", out: str, private: Path) -> None:
    from rich.table import Table

    from shardkit.build.outcome import recovered

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
    lines = [f"{outcome.new_files:,} new files; {outcome.samples:,} samples in {out}, ledger and key in {private}"]
    if outcome.retried is not None:
        lines.insert(0, recovered(outcome.retried))
    if "://" not in out:
        lines.append(f"report: {Path(out) / 'report' / 'index.html'}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)

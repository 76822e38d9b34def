"""Commands that make datasets."""

import gc
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from shardkit.commands import console, cores, errors, private_folder
from shardkit.config import SHARD_SIZE, BuildConfig, Codec, DatasetOptions, Format, RunOptions, usual_codec
from shardkit.terminal.words import counted

if TYPE_CHECKING:
    from shardkit.build.outcome import Outcome


def build(
    *,
    source: str,
    out: str,
    private: Path | None = None,
    facts: str | None = None,
    facts_columns: str = "",
    dataset: DatasetOptions = DatasetOptions(),  # noqa: B008 (frozen)
    run: RunOptions = RunOptions(),  # noqa: B008 (frozen)
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
    facts
        Table (CSV or Parquet) that says of files whom they are of and how they were taken: columns path and any of
        patient, study, series, accession, view, body_part, laterality, sex, age, modality, spacing_row, spacing_col,
        bits, split.
    facts_columns
        What the table calls its columns, e.g. path=Image,patient=PatientID.
    dask
        Address of a Dask scheduler that runs the work, e.g. tcp://scheduler:8786.
    """
    place, columns = private_folder(out, private), columns_of(facts_columns)
    config = BuildConfig(
        source=source, out=out, private=place, facts=facts, facts_columns=columns, dataset=dataset, run=run
    )
    return _run(config, dask)


def columns_of(text: str) -> dict[str, str]:
    """Read --facts-columns."""
    if not text:
        return {}
    from shardkit.sources.facts_table import column_map

    return column_map(text)


def retry(
    *,
    class_: Annotated[str, Parameter(name="--class")],
    source: str,
    out: str,
    private: Path | None = None,
    facts: str | None = None,
    facts_columns: str = "",
    run: RunOptions = RunOptions(),  # noqa: B008 (frozen)
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
    facts, facts_columns
        As for build.
    """
    from shardkit.build.workspace import recorded

    config = recorded(source, out, private_folder(out, private), run)
    return _run(replace(config, facts=facts, facts_columns=columns_of(facts_columns)), retry=class_)


def transcode(
    dataset: str,
    out: str,
    *,
    format: Format,
    codec: Codec | None = None,
    levels: int = 0,
    shard_bytes: Annotated[int | None, SHARD_SIZE, Parameter(show_default=False)] = None,
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
    shard_bytes
        Size aimed at for a shard, in MiB; default that of the dataset.
    workers
        Processes that decode and encode; default one per core.
    """
    from shardkit.build import transcode as transcoding

    target = transcoding.Target(out, format, codec or usual_codec(format), levels, shard_bytes)
    done = transcoding.transcode(dataset, target, workers or cores())
    console.print(
        f"{counted(done.samples, 'sample')} in {counted(done.shards, 'shard')} of {out},"
        f" {done.kept:,} of which were there",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _run(config: BuildConfig, dask: str | None = None, retry: str | None = None) -> int:
    gc.disable()  # what loads now is to stay: a sixth of the time would go into looking for what could go
    from shardkit.build import isolation

    try:
        # Without a ledger there is work for certain: children load their libraries while this process loads its own.
        if dask is None and not (config.private / "ledger.parquet").exists():
            isolation.children(config.children or config.run.workers, config.run.memory_limit)
        return _built(config, dask, retry)
    finally:
        isolation.close_children()
        gc.enable()


def _built(config: BuildConfig, dask: str | None, retry: str | None) -> int:
    from shardkit.build import run as building
    from shardkit.build.dask import dask_executor
    from shardkit.build.progress import BuildProgressBar

    gc.freeze()
    gc.enable()
    with BuildProgressBar(console) as progress:
        if dask is None:
            outcome = building.build(config, progress, retry=retry)
        else:
            with dask_executor(dask) as (executor, slots, children):
                outcome = building.build(config.with_workers(slots, children), progress, executor, retry)
    _print_outcome(outcome, config.out, config.private)
    for sentence in outcome.told:
        console.print(sentence, highlight=False, soft_wrap=True)
    for sentence in _complaints(outcome, config):
        errors.print(sentence, style="yellow", highlight=False, soft_wrap=True)
    if outcome.unwanted and not config.run.accept_outcome:
        return 4
    return 0 if outcome.within_quarantine else 3


def _complaints(outcome: "Outcome", config: BuildConfig) -> list[str]:
    """Say in a sentence each what may make this dataset useless, and where to look and what to do."""
    said = [f"outcome: {sentence}" for sentence in outcome.unwanted]
    if not outcome.within_quarantine:
        share, limit = 100 * outcome.quarantine_share, 100 * config.run.max_quarantine
        said.append(f"{share:.1f} % of the files are quarantined, above --max-quarantine {limit:g} %")
    if said and any(outcome.counts[verdict] for verdict in ("dropped", "quarantined")):
        places = shlex.join([config.out, "--private", str(config.private)])
        said.append(f"see why: shardkit ledger {places}")
    if outcome.unwanted and not config.run.accept_outcome:
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
    files, samples = counted(outcome.new_files, "new file"), counted(outcome.samples, "sample")
    lines = [f"{files}; {samples} in {out}, ledger and key in {private}"]
    if outcome.retried is not None:
        lines.insert(0, recovered(outcome.retried))
    if "://" not in out:
        lines.append(f"report: {Path(out) / 'report' / 'index.html'}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)

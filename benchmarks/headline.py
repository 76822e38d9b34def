"""The README's one table: what a newcomer asks first, from the JSON of the benchmarks; a ratio is within one run."""

from __future__ import annotations

from benchmarks.peers import PEERS
from benchmarks.results import Record

NAME = "figures"
SOURCES = ("build", "loader", "token-overhead", "zarr")
_FEWER = "packed, 24,576 tokens"
_BINS, _FIXED = "DBB 6 x 6", "fixed, 3072 x 3072"


def readme(results: dict[str, Record]) -> str:
    """Return the table as Markdown.

    Parameters
    ----------
    results
        Figures by name, of SOURCES at least.
    """
    rows = [
        _build(results["build"]),
        *_loading(results["loader"]),
        _tokens(results["token-overhead"]),
        _zarr(results["zarr"]),
    ]
    lines = ["| question | shardkit | compared with |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _build(result: Record) -> tuple[str, str, str]:
    of = result["summary"]
    return (
        "build from DICOM, 2 processes",
        f"{of['build']['mpx_s']['median']:.0f} Mpx/s",
        f"script with pydicom, PNG and webdataset: {of['naive']['mpx_s']['median']:.0f} Mpx/s",
    )


def _loading(result: Record) -> list[tuple[str, str, str]]:
    rates = {(r["program"], r["variant"], r["source"], r["task"]): r for r in result["summary"]["rows"]}

    def full(program: str, variant: str = "", source: str = "s3") -> str:
        return f"{rates[program, variant, source, 'full']['mpx_s']['median']:.0f}"

    def best(variant: str, source: str, task: str) -> str:
        peers = [row for row in result["summary"]["rows"] if row["program"] in PEERS]
        there = [row for row in peers if (row["variant"], row["source"], row["task"]) == (variant, source, task)]
        return str(max(there, key=lambda row: row["samples_s"]["median"])["program"])

    def others(source: str) -> str:
        png, ours = (best(variant, source, "full") for variant in ("png", "htj2k"))
        return (
            f"best peer with PNG ({png}) {full(png, 'png', source)},"
            f" with our HTJ2K ({ours}) {full(ours, 'htj2k', source)} Mpx/s"
        )

    def small(program: str, variant: str = "", source: str = "s3") -> str:
        row = rates[program, variant, source, "224"]
        return f"{row['samples_s']['median']:.0f} images/s ({row['mpx_s']['median']:,.0f} Mpx/s of the originals)"

    return [
        (
            "load at full size from S3",
            f"{full('shardkit')} Mpx/s",
            others("s3"),
        ),
        (
            "load at full size from a local disk",
            f"{full('shardkit', source='disk')} Mpx/s",
            others("disk"),
        ),
        (
            "load at 224 pixels from S3",
            small("shardkit"),
            f"best peer with PNG: {small(best('png', 's3', '224'), 'png')}",
        ),
        (
            "load at 224 pixels",
            "as above",
            f"DICOM files on a NAS: {small('dicom', 'dicom', 'nas')}",
        ),
    ]


def _tokens(result: Record) -> tuple[str, str, str]:
    share = {row["name"]: row["tokens_pct"]["median"] for row in result["rows"]}
    return (
        "tokens computed, each image at its own size being 100 %",
        f"packed: {share[_FEWER]:.1f} %",
        f"36 bins: {share[_BINS]:.1f} %; padded to 3072 x 3072: {share[_FIXED]:.1f} %",
    )


def _zarr(result: Record) -> tuple[str, str, str]:
    of = result["summary"]["figures"]
    return (
        "bytes stored, lossless",
        f"HTJ2K in tars: {of['tar']['stored_mb']['median']:.0f} MB",
        f"Zarr: {of['zarr']['stored_mb']['median']:.0f} MB; uncompressed: {result['conditions']['raw_mb']:,.0f} MB",
    )

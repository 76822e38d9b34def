"""What the build benchmark's repeats come to: medians, tables and a plot."""

from __future__ import annotations

import functools

from rich.table import Table

from benchmarks import build_archives
from benchmarks.drawing import bars
from benchmarks.results import Record, spread
from shardkit.report import Plot
from shardkit.terminal.output import Terminal

PROGRAMS = ("build", "bound", "naive")
FIGURES = ("wall_s", "cpu_s", "mpx_s", "files_s", "source_mb_s", "peak_pss_mib", "peak_rss_mib", "bytes_out")


def summarise(repeats: list[Record]) -> Record:
    """Return median, least and most of every figure and ratio over the repeats; ratios are within a repeat."""

    def over(*keys: str) -> Record:
        found = [functools.reduce(lambda record, key: record[key], keys, repeat) for repeat in repeats]
        return {name: spread([record[name] for record in found]) for name in found[0]}

    plain = {name: [{k: r[name][k] for k in FIGURES if k in r[name]} for r in repeats] for name in PROGRAMS}
    figures = {
        name: {k: spread([record[k] for record in records]) for k in records[0]} for name, records in plain.items()
    }
    parts = {"stages_s": over("build", "stages_s"), "bound_ms_per_mpx": over("bound", "ms_per_mpx")}
    return {**figures, **parts, "ratios": over("ratios")}


def show(result: Record, console: Terminal) -> None:
    """Print the figures in one screen."""
    facts, summary = result["conditions"], result["summary"]
    console.print(
        f"{facts['files']:,} files, {facts['written']:,} written: {facts['mpx_written']:,.0f} Mpx from"
        f" {facts['bytes_written_from'] / 1e9:.2f} GB; {facts['workers']} workers on {result['machine']['cpu']},"
        f" {len(result['repeats'])} repeats, median (min-max)",
        highlight=False,
    )
    table = Table("", "Mpx/s", "files/s", "MB/s in", "CPU s", "peak MiB", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for program in PROGRAMS:
        medians = [summary[program].get(name) for name in ("files_s", "source_mb_s", "cpu_s", "peak_pss_mib")]
        cells = [f"{spread['median']:,.1f}" if spread else "-" for spread in medians]
        table.add_row(program, _words(summary[program]["mpx_s"], 1), *cells)
    console.print(table)
    for name, ratio in summary["ratios"].items():
        console.print(f"{name}: {_words(ratio, 2)}", highlight=False)
    stages = ", ".join(f"{name} {spread['median']:.1f}" for name, spread in summary["stages_s"].items())
    console.print(f"build, seconds: {stages}", highlight=False)
    if "profile" in result:
        profile = result["profile"]
        costs = {**profile["child_ms_per_mpx"], **profile["parent_ms_per_mpx"]}
        text = ", ".join(f"{name} {ms:.2f}" for name, ms in costs.items() if ms >= 0.05)
        console.print(f"CPU ms per Mpx: {text}; codecs are {profile['codecs_share']:.0%} of a child", highlight=False)
    for name, kind in result.get("kinds", {}).items():
        console.print(_kind_words(name, kind), highlight=False)
    if "archives" in result:
        console.print(build_archives.words(result["archives"]), highlight=False)
    for plan in result.get("plan", []):
        console.print(
            f"plan of {plan['rows']:,} rows: {plan['seconds']:.1f} s, {plan['peak_mib']:,.0f} MiB"
            f" ({plan['peak_above_imports_mib']:,.0f} above imports)",
            highlight=False,
        )


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    facts, summary = result["conditions"], result["summary"]
    names = {
        "build": "`shardkit build`, all of it",
        "bound": "codecs alone: source decode, encode, check decode",
        "naive": "script: pydicom, PNG with OpenCV's settings, `webdataset.ShardWriter`",
    }
    lines = ["| | Mpx/s | files/s | peak MiB | bytes out |", "|---|---:|---:|---:|---:|"]
    for program, name in names.items():
        row = summary[program]
        memory = f"{row['peak_pss_mib']['median']:,.0f}" if "peak_pss_mib" in row else "–"
        size = f"{row['bytes_out']['median'] / 1e9:.2f} GB" if "bytes_out" in row else "–"
        rates = f"{row['mpx_s']['median']:.1f} | {row['files_s']['median']:.1f}"
        lines.append(f"| {name} | {rates} | {memory} | {size} |")
    ratios = {name: spread["median"] for name, spread in summary["ratios"].items()}
    return (
        f"{facts['files']} synthetic files, {facts['mpx_written']:,.0f} Mpx in"
        f" {len(facts['syntaxes'])} transfer syntaxes, page cache warm,"
        f" {facts['workers']} processes on {result['machine']['cores']} cores of an {result['machine']['cpu']},"
        f" medians of {len(result['repeats'])} repeats in one run:\n\n"
        + "\n".join(lines)
        + f"\n\nBuild / codecs alone: **{ratios['build / bound']:.2f}**"
        f" (its convert stage: {ratios['convert stage / bound']:.2f});"
        f" build / script: **{ratios['build / naive']:.2f}**."
        + "".join(f" {_kind_words(name, kind)}" for name, kind in result.get("kinds", {}).items())
        + (f" {build_archives.words(result['archives'])}" if "archives" in result else "")
    )


def _kind_words(name: str, found: Record) -> str:
    """Return what another kind of files came to, as a sentence."""
    facts, summary = found["conditions"], found["summary"]
    ratios = {key: spread["median"] for key, spread in summary["ratios"].items()}
    return (
        f"From {name.upper()} files of the same images ({facts['written']} written, {facts['mpx_written']:,.0f} Mpx):"
        f" {summary['build']['mpx_s']['median']:.1f} Mpx/s, build / codecs alone {ratios['build / bound']:.2f}"
        f" (its convert stage: {ratios['convert stage / bound']:.2f}), build / script {ratios['build / naive']:.2f}."
    )


def plots(result: Record) -> list[Plot]:
    """Return rates of the three programs, and where the build's seconds and a child's CPU time go."""
    summary = result["summary"]
    costs = {name: ms for name, ms in result.get("profile", {}).get("child_ms_per_mpx", {}).items() if ms >= 0.05}
    stages, names = summary["stages_s"], ["shardkit build", "codecs alone", "script"]
    found = [
        bars(
            "rates",
            names,
            {"": [summary[name]["mpx_s"] for name in PROGRAMS]},
            unit="Mpx/s",
        ),
        bars("build, by stage", list(stages), {"": list(stages.values())}, unit="seconds"),
    ]
    if costs:
        spreads = [spread([ms]) for ms in costs.values()]
        found.append(bars("CPU time of a child", list(costs), {"": spreads}, unit="ms per Mpx"))
    return found


def _words(spread: dict[str, float], digits: int) -> str:
    return f"{spread['median']:,.{digits}f} ({spread['min']:,.{digits}f}-{spread['max']:,.{digits}f})"

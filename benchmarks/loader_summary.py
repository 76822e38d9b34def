"""What the loader benchmark's rows come to: medians, ratios within a repeat, goals met or short, tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.table import Table

from benchmarks import loader_epochs, loader_views
from benchmarks.drawing import bars
from benchmarks.peers import PEERS
from benchmarks.results import Record, spread
from shardkit.report import Plot
from shardkit.terminal.output import Terminal

FIGURES = [
    *("samples_s", "mpx_s", "decoded_mpx_s", "read_mb_s", "peak_pss_mib", "peak_rss_mib", "first_batch_s"),
    *("seconds", "startup_s", "cpu_s", "machine_cpu_s"),
]
LIMIT, CPU_LIMIT = "shardkit / binding limit", "shardkit / CPU limit"
PNG, HTJ2K, PEER = "shardkit / best PNG peer", "shardkit / best HTJ2K peer", "shardkit / best peer"
DICOM, DALI = "shardkit / DICOM over the NAS", "shardkit with DALI / shardkit"
SHARE = "bytes read at level 2 / all"
GOALS = [  # ratio, source, task, wanted
    (LIMIT, "disk", "full", 0.85),
    (LIMIT, "disk", "224", 0.7),
    (PNG, "s3", "full", 2.2),
    (HTJ2K, "s3", "full", 1.2),
    (HTJ2K, "s3", "224", 2.5),
    (DICOM, "s3", "224", 30.0),
]
MOST = 0.08  # of the bytes at level 2


@dataclass(frozen=True, order=True)
class Name:
    """Which program a row is of.

    Attributes
    ----------
    program
        Its name.
    variant
        png or htj2k of another loader, dali or cache of ours.
    source, task
        Where it reads from, and what.
    """

    program: str
    variant: str
    source: str
    task: str

    def fields(self) -> dict[str, str]:
        """Return it as it stands in a row."""
        return asdict(self)

    @property
    def short(self) -> str:
        """Its name without source and task."""
        return self.program if self.variant in ("", self.program) else f"{self.program} {self.variant}"

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.short} from {self.source} at {self.task}"

    @staticmethod
    def of(row: Record) -> Name:
        """Return the name of a row."""
        return Name(row["program"], row["variant"], row["source"], row["task"])


# --- ratios: within one repeat


def ratios(rows: list[Record], cores: int) -> list[Record]:
    """Return a record by source and task: ratios by name, and the program that each is against."""
    by_name = {Name.of(row): row for row in rows}
    rates = {name: row["samples_s"] for name, row in by_name.items()}
    out = []
    for source, task in dict.fromkeys((name.source, name.task) for name in by_name):
        ours, read = Name("shardkit", "", source, task), Name("read", "", source, task)
        decode = next(name for name in rates if (name.program, name.task) == ("decode", task))
        against: dict[str, Name | None] = {
            LIMIT: min(decode, read, key=lambda name: rates[name]),
            PNG: _best(rates, source, task, "png"),
            HTJ2K: _best(rates, source, task, "htj2k"),
            PEER: _best(rates, source, task, "png", "htj2k", "dicom"),
            DICOM: next((n for n in rates if n == Name("dicom", "dicom", "nas", task)), None),
        }
        found = {label: rates[ours] / rates[name] for label, name in against.items() if name}
        found[CPU_LIMIT] = rates[ours] / cpu_limit(by_name[decode], by_name[read], cores)
        dali = Name("shardkit", "dali", source, task)
        if dali in rates:
            found[DALI] = rates[dali] / rates[ours]
        names = {label: name.short for label, name in against.items() if name}
        out.append({"source": source, "task": task, "ratios": found, "against": names})
    return out


def cpu_limit(decode: Record, read: Record, cores: int) -> float:
    """Return samples a second of cores that only read (the other end's work included) and decode."""
    each = decode["cpu_s"] / decode["samples"] + read["machine_cpu_s"] / read["samples"]
    return float(cores / max(each, 1e-6))


def _best(rates: dict[Name, float], source: str, task: str, *variants: str) -> Name | None:
    fitting = [
        n for n in rates if n.program in PEERS and n.variant in variants and (n.source, n.task) == (source, task)
    ]
    return max(fitting, key=lambda name: rates[name], default=None)


# --- over the repeats


def summarise(result: Record) -> Record:
    """Return spreads of every program's figures and of every ratio over the repeats, and the goals."""
    first, every = result["repeats"][0], result["repeats"]
    names = sorted({Name.of(row) for row in first["rows"]})
    rows = []
    for name in names:
        same = [row for repeat in every for row in repeat["rows"] if Name.of(row) == name]
        rows.append(name.fields() | {figure: spread([row[figure] for row in same]) for figure in FIGURES})
    parts = []
    for part in first["ratios"]:
        same = [r for repeat in every for r in repeat["ratios"] if (r["source"], r["task"]) == _key(part)]
        spreads = {label: spread([r["ratios"][label] for r in same]) for label in part["ratios"]}
        against = {label: sorted({r["against"][label] for r in same}) for label in part["against"]}
        parts.append({"source": part["source"], "task": part["task"], "ratios": spreads, "against": against})
    found = {"rows": rows, "ratios": parts}
    return found | {"goals": _goals(found, result["level_2"]["share"])}


def _key(record: Record) -> tuple[str, str]:
    return record["source"], record["task"]


def _goals(found: Record, share: float) -> list[Record]:
    goals = []
    for label, source, task, wanted in GOALS:
        for part in found["ratios"]:
            if label in part["ratios"] and (source, task) == _key(part):
                got = part["ratios"][label]["median"]
                met = got >= wanted
                goals.append(_goal(part["source"], part["task"], label, wanted, got, met))
                goals[-1]["why"] = "" if met else _why(label, part, found["rows"])
    level = _goal("disk", "level 2", SHARE, MOST, share, share <= MOST)
    level["why"] = "" if level["met"] else "of a small image, headers and low resolutions are a larger share"
    return [*goals, level]


def _goal(source: str, task: str, label: str, wanted: float, got: float, met: bool) -> Record:
    return {"source": source, "task": task, "goal": label, "wanted": wanted, "got": got, "met": met}


def _why(label: str, part: Record, rows: list[Record]) -> str:
    """Return what the rows say of a goal that was not reached."""
    there = {Name.of(row).short: row for row in rows if _key(row) == _key(part)}
    rate = {name: row["samples_s"]["median"] for name, row in there.items()}
    cost = {name: 1e3 * row["cpu_s"]["median"] / _samples(row) for name, row in there.items()}
    ours = f"the loader gives {rate['shardkit']:,.1f} samples/s for {cost['shardkit']:.1f} ms of CPU each"
    if label == LIMIT:
        cpu = part["ratios"][CPU_LIMIT]["median"]
        return f"{' or '.join(part['against'][label])} binds, measured alone; {ours}, {cpu:.2f} of the CPU limit"
    if label == DICOM:
        return ours
    best = part["against"][label][0]
    return f"{best} gives {rate[best]:,.1f} samples/s for {cost[best]:.1f} ms of CPU each, {ours}"


def _samples(row: Record) -> float:
    return float(row["samples_s"]["median"] * row["seconds"]["median"])


# --- tables


def show(result: Record, console: Terminal) -> None:
    """Print a table by source and task, the ratios, and which goals were met."""
    facts, summary = result["conditions"], result["summary"]
    console.print(
        f"{facts['images']:,} images, {facts['mpx']:,.0f} Mpx ({facts['mpx_at_224']:,.0f} at the levels for 224);"
        f" {facts['workers']} workers on {result['machine']['cpu']}, {len(result['repeats'])} repeats, medians",
        highlight=False,
    )
    for part in summary["ratios"]:
        there = [row for row in summary["rows"] if _key(row) == _key(part)]
        decode = [row for row in summary["rows"] if (row["program"], row["task"]) == ("decode", part["task"])]
        console.print(f"\n[bold]{part['source']}, {part['task']}[/bold]: {facts['sources'][part['source']]}")
        console.print(_table(sorted([*there, *(r for r in decode if r not in there)], key=_order)))
        words = [f"{label} {_words(spread)}{_named(part, label)}" for label, spread in part["ratios"].items()]
        console.print("; ".join(words), highlight=False)
    console.print("\n[bold]Goals[/bold]")
    for goal in summary["goals"]:
        why = "" if goal["met"] else f" because {goal['why']}"
        console.print(f"{_where(goal)}: {goal['goal']} {goal['got']:.3g}, {_state(goal)}{why}", highlight=False)


def _order(row: Record) -> tuple[bool, float]:
    """Sort the fastest first, limits above all."""
    return row["program"] not in ("decode", "read"), -row["samples_s"]["median"]


COLUMNS = {  # heading: (figure, digits)
    "samples/s": ("samples_s", 1),
    "Mpx/s": ("mpx_s", 1),
    "decoded Mpx/s": ("decoded_mpx_s", 1),
    "MB/s read": ("read_mb_s", 1),
    "peak MiB": ("peak_pss_mib", 0),
    "first batch s": ("first_batch_s", 2),
    "start s": ("startup_s", 1),
    "CPU s": ("cpu_s", 1),
    "machine CPU s": ("machine_cpu_s", 1),
}


def _table(rows: list[Record]) -> Table:
    table = Table("", *COLUMNS, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        name = Name.of(row).short
        limit = row["program"] in ("decode", "read")
        cells = [f"{row[figure]['median']:,.{digits}f}" for figure, digits in COLUMNS.values()]
        table.add_row(f"limit: {name}" if limit else name, *cells)
    return table


def _words(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f}-{spread['max']:.2f})"


def _named(part: Record, label: str) -> str:
    return f" [{' or '.join(part['against'][label])}]" if label in part["against"] else ""


LINES = {  # program and variant: name in the README
    ("shardkit", ""): "**`shardkit.Loader`**",
    ("mosaic", "png"): "mosaicml-streaming, PNG",
    ("litdata", "png"): "litdata, PNG",
    ("webdataset", "png"): "webdataset + DataLoader, PNG",
    ("lance", "png"): "LanceDB, PNG",
    ("spdl", "png"): "SPDL, PNG",
    ("dicom", "dicom"): "DataLoader over DICOM files",
    ("mosaic", "htj2k"): "mosaicml-streaming, our HTJ2K",
    ("litdata", "htj2k"): "litdata, our HTJ2K",
    ("webdataset", "htj2k"): "webdataset + DataLoader, our HTJ2K",
    ("lance", "htj2k"): "LanceDB, our HTJ2K",
    ("spdl", "htj2k"): "SPDL, our HTJ2K",
    ("read", ""): "limit: reading alone",
    ("decode", ""): "limit: decoding alone",
}
TASKS = {"full": "full size, Mpx/s", "224": "224 pixels, images/s"}
HEADINGS = {"disk": "disk", "s3": "S3", "nas": "NAS"}


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    facts, summary = result["conditions"], result["summary"]
    sources = [source for source in HEADINGS if source in facts["sources"]]
    places = [(task, source) for task in TASKS for source in sources]
    titles = [f"{TASKS[task]}: {HEADINGS[source]}" for task, source in places]
    lines = [f"| | {' | '.join(titles)} | peak MiB |", "|---|" + "---:|" * (len(places) + 1)]
    for program, title in LINES.items():
        rows = {_key(row): row for row in summary["rows"] if (row["program"], row["variant"]) == program}
        if rows:
            cells = [_cell(rows, task, source) for task, source in places]
            lines.append(f"| {title} | {' | '.join(cells)} | {_peak(program[0], rows)} |")
    goals = [f"- {_where(goal)}: {goal['goal']} **{goal['got']:.2g}**, {_state(goal)}" for goal in summary["goals"]]
    return (
        f"{facts['images']} synthetic radiographs of {facts['mpx'] / facts['images']:.2f} Mpx on average;"
        f" {facts['workers']} cores of an {result['machine']['cpu']}, which the gateway and the mount share; medians of"
        f" {len(result['repeats'])} repeats in one run. "
        + " ".join(f"{HEADINGS[source]}: {facts['sources'][source]}." for source in sources)
        + "\n\n"
        + "\n".join([*lines, "", *goals])
        + (f"\n\n{loader_epochs.readme(result['epochs'])}" if "epochs" in result else "")
        + (f"\n\n{loader_views.readme(result['views'])}" if "views" in result else "")
    )


def _peak(program: str, rows: dict[tuple[str, str], Record]) -> str:
    if program not in ("shardkit", *PEERS):
        return "–"
    return f"{max(row['peak_pss_mib']['median'] for row in rows.values()):,.0f}"


def _cell(rows: dict[tuple[str, str], Record], task: str, source: str) -> str:
    row = rows.get((source, task))
    if row is None and next(iter(rows.values()))["program"] == "decode":  # measured once, for all sources
        row = next(found for (_, other), found in rows.items() if other == task)
    if row is None:
        return "–"
    return f"{row['mpx_s']['median']:,.1f}" if task == "full" else f"{row['samples_s']['median']:,.0f}"


def _where(goal: Record) -> str:
    return f"{HEADINGS[goal['source']]}, {goal['task']}"


def _state(goal: Record) -> str:
    wanted = f"{'at most' if goal['goal'] == SHARE else 'at least'} {goal['wanted']:g}"
    return f"wanted {wanted}: {'met' if goal['met'] else 'short'}"


def plots(result: Record) -> list[Plot]:
    """Draw a plot a task that was measured: rates of every program by where the data lie, and the limits."""
    rows = result["summary"]["rows"]
    sources = [source for source in HEADINGS if source in result["conditions"]["sources"]]
    found = []
    for task, title in TASKS.items():
        name = "mpx_s" if task == "full" else "samples_s"
        rates = {(r["program"], r["variant"], r["source"]): r[name] for r in rows if r["task"] == task}
        there = [program for program in LINES if any((*program, source) in rates for source in sources)]
        series = {HEADINGS[source]: [rates.get((*program, source)) for program in there] for source in sources}
        what, unit = title.rsplit(", ", 1)
        names = [LINES[program].strip("*`") for program in there]
        if there:
            found.append(bars(what, names, series, unit=f"{unit}, logarithmic", log=True))
    return found

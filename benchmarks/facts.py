"""What a million rows of facts take to join to files: seconds by stage, and memory, beside pandas.

shardkit  reads the table (CSV: path, patient, study, view, sex, age), says what its cells mean, joins it to the listed
          files, and gives each file its row: by whole path, by file name, and by path below folders of another place.
pandas    `read_csv`, and `merge` on equal text: it knows neither meanings nor other paths, nor what is ambiguous.
"""

import csv
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from benchmarks import joins
from benchmarks.loader import Bench
from benchmarks.results import FOLDER, Record, begin, save, table
from shardkit.report import Plot
from shardkit.terminal.output import say

WAYS = ("path", "name", "moved")
"""What a row has: a file's path, its name, or its path below the folders of another machine."""
PROGRAMS = ("shardkit", "pandas")
STAGES = ("read_s", "join_s", "give_s")


def run(
    *,
    rows: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10**4, 10**5, 10**6),
    repeats: int = 3,
    out: Path = FOLDER / "facts.json",
) -> None:
    """Measure joins of tables of facts.

    Parameters
    ----------
    rows
        Rows of the tables, and files.
    repeats
        How often each program runs, in turn with the other.
    out
        JSON file for the figures; the plot lies beside it.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        bench = Bench(Path(folder), sys.executable)
        result = begin((__doc__ or "").partition("\n")[0], ("numpy", "pyarrow", "pandas"))
        result["conditions"] = {"columns": 6, "repeats": repeats}
        result["rows"] = [_measured(bench, count, by, repeats) for count in rows for by in WAYS]
    save(result, out, plots)
    say(readme(result))


def _measured(bench: Bench, count: int, by: str, repeats: int) -> Record:
    found = joins.measured(bench, "facts", PROGRAMS, (count, by), (count,), repeats)
    return {"rows": count, "by": by, **found}


# --- what is joined


def make(place: str, count: int, by: str) -> None:
    """Write a table of facts in another order than the files are listed in."""
    import numpy as np

    folder, above = Path(place), {"path": "", "name": "", "moved": "/mnt/other/export/"}[by]
    folder.mkdir()
    with (folder / "facts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "patient", "study", "view", "sex", "age"])
        for i in np.random.default_rng(0).permutation(count).tolist():
            path = _path(i).rpartition("/")[2] if by == "name" else above + _path(i)
            who = (
                f"P{i // 4:07d}",
                f"S{i // 2:07d}",
                ("AP", "PA", "LL")[i % 3],
                ("Male", "F")[i % 2],
                f"{i % 90:03d}Y",
            )
            writer.writerow([path, *who])


def _path(i: int) -> str:
    return f"images_{i % 12 + 1:03d}/images/{i // 8:08d}_{i % 8:03d}.png"


# --- programs; each returns seconds by stage


def shardkit(place: str, count: int) -> dict[str, float]:
    """Do what a build does of facts between listing and reading."""
    from shardkit.build.known_facts import KnownFacts
    from shardkit.sources.entries import Entry
    from shardkit.sources.facts_table import read_facts

    made: dict[str, Any] = {}
    entries = [Entry(_path(i).encode(), 1, "file") for i in range(count)]

    def reading() -> None:
        made["table"] = read_facts(Path(place) / "facts.csv")

    def joining() -> None:
        made["known"] = KnownFacts(entries, made["table"])
        assert made["known"].rows["matched"] == made["known"].files["matched"] == count

    def giving() -> None:
        of = made["known"].of
        assert all(of(entry).facts is not None for entry in entries)

    return joins.timed(dict(zip(STAGES, (reading, joining, giving), strict=True)))


def pandas(place: str, count: int) -> dict[str, float]:
    """Do the same as everybody's script does, which knows what the rows have."""
    import pandas as pd

    made: dict[str, Any] = {}
    files = pd.DataFrame({"path": [_path(i) for i in range(count)]})

    def reading() -> None:
        made["table"] = pd.read_csv(Path(place) / "facts.csv")

    def joining() -> None:
        first = made["table"]["path"][0]
        key = files["path"]
        if "/" not in first:
            key = key.str.rpartition("/")[2]
        elif first.startswith("/"):
            key = "/mnt/other/export/" + key
        made["joined"] = files.assign(key=key).merge(made["table"], left_on="key", right_on="path")
        assert len(made["joined"]) == count

    def giving() -> None:
        assert sum(1 for _ in made["joined"].itertuples(index=False)) == count

    return joins.timed(dict(zip(STAGES, (reading, joining, giving), strict=True)))


# --- what it comes to


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    titles = ["rows, by", "read", "join", "give", "in all", "peak MiB", "pandas, in all", "peak MiB"]
    found = []
    for row in result["rows"]:
        ours, theirs = row["shardkit"], row["pandas"]
        stages = [f"{ours[stage]['median']:.2f} s" for stage in (*STAGES, "seconds")]
        theirs_all = f"{theirs['seconds']['median']:.2f} s"
        peaks = [f"{one['peak_mib']['median']:,.0f}" for one in (ours, theirs)]
        found.append([f"{row['rows']:,}, {row['by']}", *stages, peaks[0], theirs_all, peaks[1]])
    last = result["rows"][-1]
    ratio = last["shardkit"]["seconds"]["median"] / last["pandas"]["seconds"]["median"]
    return (
        f"Path, patient, study, view, sex and age of as many files, on {result['machine']['cores']} cores, medians of"
        f" {result['conditions']['repeats']} repeats in one run; *moved* rows have a file's path below folders of"
        f" another place:\n\n{table(titles, found)}\n\n"
        f"shardkit / pandas, {last['rows']:,} rows, {last['by']}: **{ratio:.2f}**."
    )


def plots(result: Record) -> list[Plot]:
    """Return seconds by number of rows, and memory for the largest tables."""
    return joins.plots(result, "facts", "{name}, {by}", WAYS, PROGRAMS)

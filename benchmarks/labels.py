"""What a million rows of labels take to join: seconds by stage, and memory, beside `pandas.merge` and hashing alone.

shardkit  reads the table (CSV, fourteen labels with blanks, an official split) and the ledger, joins, and stores the
          labels: by path, by SOP Instance UID, and by study with two images each; kinds are checked, references hashed.
pandas    `read_csv`, `merge` with a table of clear references and keys, `to_parquet`: no kinds, checks or pseudonyms.
hashing   HMAC-SHA256 of the references and nothing else, which no join by UID or study can be faster than.
"""

import csv
import hmac
import shutil
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

LABELS = 14
WAYS = {"path": 1, "sop": 1, "study": 2}
"""By what rows are joined -> images of each."""
PROGRAMS = ("shardkit", "pandas", "hashing")
_KEY = bytes(32)
_COLUMNS = {"path": "Path", "sop": "SOPInstanceUID", "study": "StudyInstanceUID"}


def run(
    *,
    rows: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10**4, 10**5, 10**6),
    repeats: int = 3,
    out: Path = FOLDER / "labels.json",
) -> None:
    """Measure joins of tables of labels.

    Parameters
    ----------
    rows
        Rows of the tables.
    repeats
        How often each program runs, in turn with the others.
    out
        JSON file for the figures; the plot lies beside it.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        bench = Bench(Path(folder), sys.executable)
        result = begin((__doc__ or "").partition("\n")[0], ("numpy", "pyarrow", "pandas"))
        result["conditions"] = {"labels": LABELS, "repeats": repeats, "images_a_row": WAYS}
        result["rows"] = [_measured(bench, count, by, repeats) for count in rows for by in WAYS]
    save(result, out, plots)
    say(readme(result))


def _measured(bench: Bench, count: int, by: str, repeats: int) -> Record:
    found = joins.measured(bench, "labels", PROGRAMS, (count, by), (count, by), repeats)
    return {"rows": count, "by": by, **found}


# --- what is joined


def make(place: str, count: int, by: str) -> None:
    """Write a table of labels, a ledger with as many images as its rows have, and the manifest's columns."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shardkit.build import ledger
    from shardkit.privacy import Pseudonyms

    folder, rng, name = Path(place), np.random.default_rng(0), Pseudonyms(_KEY)
    folder.mkdir()
    references = [_reference(by, i) for i in range(count)]
    values = rng.choice(["1", "0", "-1", ""], (count, LABELS), p=[0.1, 0.2, 0.05, 0.65])
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([_COLUMNS[by], *(f"finding {i}" for i in range(LABELS)), "Split"])
        for reference, row in zip(references, values.tolist(), strict=True):
            writer.writerow([reference, *row, "train"])
    images = np.repeat(np.arange(count), WAYS[by])
    rng.shuffle(images)
    total = len(images)
    hashed = [name(by, reference) for reference in references] if by != "path" else []
    keys = pa.array(
        [f"{(hashed[i] if by == 'sop' else name('sop', str(at)))[:20]}-{at:012d}" for at, i in enumerate(images)]
    )
    paths = pa.array([references[i] if by == "path" else f"IM{at:08d}" for at, i in enumerate(images)])
    columns = {"path": paths, "verdict": ["written"] * total, "reason": ["ok"] * total, "key": keys}
    if by != "path":
        columns[by] = pa.array([hashed[i] for i in images])
    told = pa.table(columns)
    for field in ledger.SCHEMA:
        if field.name not in told.column_names:
            told = told.append_column(field.name, pa.nulls(total, field.type))
    pq.write_table(told.select(ledger.SCHEMA.names), folder / ledger.NAME)
    manifest = {"key": keys, "patient": keys, "study": columns.get("study", keys)}
    sizes = {side: pa.array(np.full(total, 1024, np.int32)) for side in ("height", "width")}
    pq.write_table(
        pa.table(manifest | sizes | {"halvings": pa.array(np.zeros(total, np.int8))}), folder / "samples.parquet"
    )
    clear = pa.array([references[i] for i in images])
    pq.write_table(pa.table({_COLUMNS[by]: clear, "key": keys}), folder / "clear.parquet")


def _reference(by: str, i: int) -> str:
    if by == "path":
        return f"train/patient{i // 4:07d}/study{i // 2:07d}/view{i:07d}_frontal.jpg"
    return f"1.2.826.0.1.3680043.8.498.{10**37 + i * 7919}"


# --- programs; each returns seconds by stage


def shardkit(place: str, count: int, by: Any) -> dict[str, float]:
    """Read, join and store, as `shardkit label` does between opening the dataset and drawing its page."""
    import pyarrow.parquet as pq

    from shardkit.labels import store as labels_store
    from shardkit.labels.joining.join import joined
    from shardkit.labels.reading.tables import TableOptions, read
    from shardkit.labels.targets import read_targets
    from shardkit.privacy import Pseudonyms
    from shardkit.storage import Store

    folder, made = Path(place), dict[str, Any]()
    samples = pq.read_table(folder / "samples.parquet", use_threads=False)

    def reading() -> None:
        made["rows"] = read(folder / "table.csv", TableOptions(by=by, split_column="Split"))[0]

    def joining() -> None:
        targets = read_targets(folder, samples)
        made["labels"], outcome, _, _ = joined("x", made["rows"], samples, targets, Pseudonyms(_KEY))
        assert outcome.rows["matched"] == count
        assert made["labels"].table.num_rows == count * WAYS[by]

    def storing() -> None:
        labels_store.write(Store(str(folder / "dataset")), made["labels"])

    seconds = joins.timed({"read_s": reading, "join_s": joining, "store_s": storing})
    shutil.rmtree(folder / "dataset")
    return seconds


def pandas(place: str, count: int, by: str) -> dict[str, float]:
    """Do the same as everybody's script does."""
    import pandas as pd
    import pyarrow.parquet as pq

    folder, made = Path(place), dict[str, Any]()
    clear = pq.read_table(folder / "clear.parquet").to_pandas()

    def reading() -> None:
        made["rows"] = pd.read_csv(folder / "table.csv")

    def joining() -> None:
        made["labels"] = clear.merge(made["rows"], on=_COLUMNS[by])
        assert len(made["labels"]) == count * WAYS[by]

    def storing() -> None:
        made["labels"].drop(columns=_COLUMNS[by]).to_parquet(folder / "pandas.parquet", compression="zstd")

    return joins.timed({"read_s": reading, "join_s": joining, "store_s": storing})


def hashing(place: str, count: int, by: str) -> dict[str, float]:
    """Hash the references."""
    texts = [f"{by}\0{_reference(by, i)}".encode() for i in range(count)]

    def work() -> None:
        for text in texts:
            hmac.digest(_KEY, text, "sha256")

    return joins.timed({"join_s": work})


# --- what it comes to


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    titles = ["rows, by", "read", "join", "store", "in all", "peak MiB", "pandas, in all", "peak MiB", "hashing alone"]
    found = []
    for row in result["rows"]:
        ours, theirs = row["shardkit"], row["pandas"]
        stages = [f"{ours[stage]['median']:.2f} s" for stage in ("read_s", "join_s", "store_s", "seconds")]
        found.append(
            [
                f"{row['rows']:,}, {row['by']}",
                *stages,
                f"{ours['peak_mib']['median']:,.0f}",
                f"{theirs['seconds']['median']:.2f} s",
                f"{theirs['peak_mib']['median']:,.0f}",
                f"{row['hashing']['seconds']['median']:.2f} s",
            ]
        )
    last = result["rows"][-1]
    ratio = last["shardkit"]["seconds"]["median"] / last["pandas"]["seconds"]["median"]
    return (
        f"{LABELS} labels with blanks and a split, on {result['machine']['cores']} cores, medians of"
        f" {result['conditions']['repeats']} repeats in one run; by study each row labels two images:\n\n"
        f"{table(titles, found)}\n\n"
        f"shardkit / pandas, {last['rows']:,} rows by {last['by']}: **{ratio:.2f}**."
    )


def plots(result: Record) -> list[Plot]:
    """Return seconds by number of rows, and the stages of the largest tables."""
    return joins.plots(result, "labels", "{name}, by {by}", tuple(WAYS), ("shardkit", "pandas"))

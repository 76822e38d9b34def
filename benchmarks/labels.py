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
from contextlib import ExitStack
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
SAMPLES = "samples"
"""The manifest's columns, on disk as `shardkit label` has them."""
_BLOCK = 1 << 15  # rows that are made at once, and a group of rows of the ledger, as a build writes them
_COLUMNS = {"path": "Path", "sop": "SOPInstanceUID", "study": "StudyInstanceUID"}


def run(
    *,
    rows: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10**4, 10**5, 10**6),
    peers: int = 10**6,
    repeats: int = 3,
    out: Path = FOLDER / "labels.json",
) -> None:
    """Measure joins of tables of labels.

    Parameters
    ----------
    rows
        Rows of the tables: up to 10,000,000, which take some minutes each.
    peers
        Rows up to which pandas and hashing are measured, too.
    repeats
        How often each program runs, in turn with the others.
    out
        JSON file for the figures; the plot lies beside it.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        bench = Bench(Path(folder), sys.executable)
        result = begin((__doc__ or "").partition("\n")[0], ("numpy", "pyarrow", "pandas"))
        result["conditions"] = {"labels": LABELS, "repeats": repeats, "images_a_row": WAYS}
        result["rows"] = [_measured(bench, count, by, peers, repeats) for count in rows for by in WAYS]
    save(result, out, plots)
    say(readme(result))


def _measured(bench: Bench, count: int, by: str, peers: int, repeats: int) -> Record:
    programs = PROGRAMS if count <= peers else PROGRAMS[:1]
    found = joins.measured(bench, "labels", programs, (count, by), (count, by), repeats)
    return {"rows": count, "by": by, **found}


# --- what is joined


def make(place: str, count: int, by: str) -> None:
    """Write a table of labels, a ledger with as many images as its rows have, and the manifest's columns.

    They are written in blocks: ten million rows take as much memory as ten thousand.
    """
    import numpy as np

    folder, rng = Path(place), np.random.default_rng(0)
    folder.mkdir()
    _make_table(folder / "table.csv", count, by, rng)
    images = np.repeat(np.arange(count, dtype=np.int32), WAYS[by])
    rng.shuffle(images)
    _make_images(folder, images, by)


def _make_table(path: Path, count: int, by: str, rng: Any) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([_COLUMNS[by], *(f"finding {i}" for i in range(LABELS)), "Split"])
        for start in range(0, count, _BLOCK):
            rows = range(start, min(start + _BLOCK, count))
            values = rng.choice(["1", "0", "-1", ""], (len(rows), LABELS), p=[0.1, 0.2, 0.05, 0.65])
            writer.writerows([_reference(by, i), *row, "train"] for i, row in zip(rows, values.tolist(), strict=True))


def _make_images(folder: Path, images: Any, by: str) -> None:
    """Write ledger, manifest and clear references of images, of each of which the table has a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shardkit.build import ledger
    from shardkit.storage import spill

    sizes = [("height", pa.int32()), ("width", pa.int32()), ("halvings", pa.int8())]
    schemas = {
        ledger.NAME: ledger.SCHEMA,
        SAMPLES: pa.schema([*((name, pa.string()) for name in ("key", "patient", "study")), *sizes]),
        "clear.parquet": pa.schema([(_COLUMNS[by], pa.string()), ("key", pa.string())]),
    }
    with ExitStack() as files:
        writers: dict[str, Any] = {
            name: pq.ParquetWriter(folder / name, schema, compression="zstd")
            for name, schema in schemas.items()
            if name != SAMPLES
        }
        writers = {name: files.enter_context(writer).write_table for name, writer in writers.items()}
        writers[SAMPLES] = files.enter_context(spill.writing(folder / SAMPLES, schemas[SAMPLES])).write
        for start in range(0, len(images), _BLOCK):
            tables = _images(range(start, min(start + _BLOCK, len(images))), images, by)
            for name, found in tables.items():
                writers[name](pa.table(found, schema=schemas[name]))


def _images(rows: range, images: Any, by: str) -> dict[str, dict[str, Any]]:
    """Return the columns of a block of images by file."""
    from shardkit.build import ledger
    from shardkit.privacy import Pseudonyms

    name, nothing = Pseudonyms(_KEY), [None] * len(rows)
    clear = [_reference(by, i) for i in images[rows.start : rows.stop].tolist()]
    hashed = [name(by, text) for text in clear] if by != "path" else nothing
    sops = hashed if by == "sop" else [name("sop", str(row)) for row in rows]
    keys = [f"{str(sop)[:20]}-{row:012d}" for sop, row in zip(sops, rows, strict=True)]
    told: dict[str, Any] = dict.fromkeys(ledger.SCHEMA.names, nothing)
    told |= {"path": clear if by == "path" else [f"IM{row:08d}" for row in rows], "key": keys}
    told |= {"verdict": ["written"] * len(rows), "reason": ["ok"] * len(rows)} | ({by: hashed} if by != "path" else {})
    sizes = {"height": [1024] * len(rows), "width": [1024] * len(rows), "halvings": [0] * len(rows)}
    manifest = {"key": keys, "patient": keys, "study": hashed if by == "study" else keys} | sizes
    return {ledger.NAME: told, SAMPLES: manifest, "clear.parquet": {_COLUMNS[by]: clear, "key": keys}}


def _reference(by: str, i: int) -> str:
    if by == "path":
        return f"train/patient{i // 4:07d}/study{i // 2:07d}/view{i:07d}_frontal.jpg"
    return f"1.2.826.0.1.3680043.8.498.{10**37 + i * 7919}"


# --- programs; each returns seconds by stage


def shardkit(place: str, count: int, by: Any) -> dict[str, float]:
    """Read, join and store, as `shardkit label` does between opening the dataset and drawing its page."""
    from shardkit.labels import store as labels_store
    from shardkit.labels.joining.join import assembled, named
    from shardkit.labels.reading.tables import TableOptions, read
    from shardkit.labels.targets import read_targets
    from shardkit.privacy import Pseudonyms
    from shardkit.storage import Store
    from shardkit.storage.spill import Spill

    folder, made = Path(place), dict[str, Any]()
    samples = Spill(folder / SAMPLES)

    def reading() -> None:
        made["rows"] = read(folder / "table.csv", TableOptions(by=by, split_column="Split"))[0]

    def joining() -> None:
        rows, name = made["rows"], Pseudonyms(_KEY)
        found = named(rows, samples, read_targets(folder, samples, by), name)
        assert found.outcome.rows["matched"] == count
        made["labels"] = assembled("x", rows, samples, found)[0]
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
        ours, theirs = row["shardkit"], row.get("pandas")
        stages = [f"{ours[stage]['median']:.2f} s" for stage in ("read_s", "join_s", "store_s", "seconds")]
        found.append(
            [
                f"{row['rows']:,}, {row['by']}",
                *stages,
                f"{ours['peak_mib']['median']:,.0f}",
                f"{theirs['seconds']['median']:.2f} s" if theirs else "",
                f"{theirs['peak_mib']['median']:,.0f}" if theirs else "",
                f"{row['hashing']['seconds']['median']:.2f} s" if theirs else "",
            ]
        )
    both = [row for row in result["rows"] if "pandas" in row]
    compared = ""
    if both:
        last = both[-1]
        ratio = last["shardkit"]["seconds"]["median"] / last["pandas"]["seconds"]["median"]
        compared = f"\n\nshardkit / pandas, {last['rows']:,} rows by {last['by']}: **{ratio:.2f}**."
    return (
        f"{LABELS} labels with blanks and a split, on {result['machine']['cores']} cores, medians of"
        f" {result['conditions']['repeats']} repeats in one run; by study each row labels two images:\n\n"
        f"{table(titles, found)}{compared}"
    )


def plots(result: Record) -> list[Plot]:
    """Return seconds by number of rows, and the stages of the largest tables."""
    return joins.plots(result, "labels", "{name}, by {by}", tuple(WAYS), ("shardkit", "pandas"))

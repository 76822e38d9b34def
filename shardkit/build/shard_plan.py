"""From scanned headers to shards: which files go together, decided before any pixel is decoded.

Within a bin, files are ordered by a keyed hash of their SOP Instance UID: a shard is a random sample of its bin, so
neighbours rarely share a patient or a scanner, and copies of one object lie side by side.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.build.scan_rows import SCHEMA, ScanRow
from shardkit.dataset.bins import Bin, Bins
from shardkit.dataset.rounding import ceil_div
from shardkit.formats import shard_format
from shardkit.storage import parquet, private

PLAN, INDEX, TWINS = "plan.parquet", "plan.json", "for_processing.parquet"


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A planned shard: row group `group` of the plan file."""

    name: str
    bin: Bin
    files: int
    group: int
    format: str
    levels: int
    capacity: int

    @property
    def objects(self) -> list[str]:
        """Names of its objects; the first is the one that makes it whole."""
        return shard_format(self.format).objects(self.name, self.levels)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """The files of one shard, in order."""

    name: str  # object name without extension, e.g. "shards/2304x1920/00007"
    bin: Bin
    files: list[ScanRow] = field(repr=False)  # no log may show paths
    capacity: int = 0  # images that its objects have room for; 0 for any number


class GenerationPlan:
    """A generation's plan on disk; reads one shard's files at a time."""

    def __init__(self, folder: Path) -> None:
        rows = json.loads((folder / INDEX).read_text())
        form = (rows.get("format", "webdataset"), rows.get("levels", 0))  # not in plans of before there were others
        self.shards = [
            PlannedShard(r["name"], Bin(*r["bin"]), r["files"], i, *form, r.get("places", 0))
            for i, r in enumerate(rows["shards"])
        ]
        self.bins = Bins(tuple(Bin(*b) for b in rows["bins"]), rows["patch"])
        self._folder = folder

    def task(self, shard: PlannedShard) -> ShardTask:
        """Return the shard's files in order."""
        with pq.ParquetFile(self._folder / PLAN) as file:
            table = file.read_row_group(shard.group)
        rows = parquet.completed(table, SCHEMA, SCHEMA.names).to_pylist()
        return ShardTask(shard.name, shard.bin, rows, shard.capacity)

    @property
    def files(self) -> int:
        """Files to convert."""
        return sum(shard.files for shard in self.shards)


def sizes(parts: list[Path]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (heights, widths) of the files worth converting."""
    pairs: list[npt.NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
    for part in parts:
        table = _accepted(part, ["verdict", "height", "width"])
        pairs.append(np.stack([table["height"].to_numpy(), table["width"].to_numpy()], 1).astype(np.int64))
    joined = np.concatenate(pairs)
    return joined[:, 0], joined[:, 1]


def extend(bins: Bins, heights: npt.NDArray[np.int64], widths: npt.NDArray[np.int64], max_side: int) -> Bins:
    """Return the bins of an earlier generation, with the catch-all added if a new size fits none of them."""
    fits = np.zeros(len(heights), bool)
    for one in bins.bins:
        fits |= (heights <= one.height) & (widths <= one.width)
    if fits.all():
        return bins
    side = ceil_div(max_side, bins.patch) * bins.patch
    return Bins(tuple(sorted({*bins.bins, Bin(side, side)})), bins.patch)


def make(
    folder: Path,
    parts: list[Path],
    earlier: list[Path],
    bins: Bins,
    numbers: dict[str, int],
    shard_bytes: int,
    format: str = "webdataset",
    levels: int = 0,
) -> GenerationPlan:
    """Write a generation's plan into `folder`.

    `earlier` are the scan parts of former generations, `numbers` the first free shard number by bin name. Memory holds
    the rows of one bin at a time.
    """
    twins = _processing_twins(parts, earlier)
    parquet.write(pa.table({"serial": pa.array(twins, pa.int64())}), folder / TWINS)
    shards: list[dict[str, Any]] = []
    spill = _spill(folder, parts, bins, set(twins))
    with parquet.writing(folder / PLAN, SCHEMA) as writer:
        for index, path in sorted(spill.items()):
            table = parquet.read(path)
            table = table.take(_order(table))
            one = bins.bins[index]
            capacity = shard_format(format).capacity(one, shard_bytes)
            cuts = ends(table["estimate"].to_numpy(), shard_bytes, capacity)
            for number, (start, end) in enumerate(zip([0, *cuts[:-1]], cuts, strict=True), numbers.get(one.name, 0)):
                writer.write_table(table.slice(start, end - start), row_group_size=end - start)
                name = f"shards/{one.name}/{number:05d}"
                row = {"name": name, "bin": [one.height, one.width], "files": end - start, "places": capacity}
                shards.append(row)
            path.unlink()
    content = {"patch": bins.patch, "bins": [[b.height, b.width] for b in bins.bins], "shards": shards}
    content |= {"format": format, "levels": levels}
    private.write(folder / INDEX, json.dumps(content).encode())
    return GenerationPlan(folder)


def _accepted(part: Path, columns: list[str] | None = None) -> pa.Table:
    table = parquet.read(part, columns)
    return table.filter(pc.is_null(table["verdict"]))


def _processing_twins(parts: list[Path], earlier: list[Path]) -> list[int]:
    """Return serials of unprocessed images whose processed twin (same study, body part, view, size) is there, too."""
    columns = ["verdict", "serial", "presentation", "twin"]
    presented: set[str | None] = set()
    for part in [*earlier, *parts]:
        table = _accepted(part, columns)
        presented.update(table.filter(pc.equal(table["presentation"], "FOR PRESENTATION"))["twin"].to_pylist())
    presented.discard(None)
    serials: list[int] = []
    for part in parts:
        table = _accepted(part, columns)
        raw = table.filter(pc.equal(table["presentation"], "FOR PROCESSING"))
        pairs = zip(raw["serial"].to_pylist(), raw["twin"].to_pylist(), strict=True)
        serials.extend(serial for serial, twin in pairs if twin in presented)
    return serials


def _spill(folder: Path, parts: list[Path], bins: Bins, leave_out: set[int]) -> dict[int, Path]:
    """One temporary file of rows per bin in use."""
    writers: dict[int, pq.ParquetWriter] = {}
    paths: dict[int, Path] = {}
    out = pa.array(sorted(leave_out), pa.int64())
    with ExitStack() as stack:
        for part in parts:
            # Parts of a build that an earlier version began lack columns.
            table = pa.concat_tables([SCHEMA.empty_table(), _accepted(part)], promote_options="default")
            table = table.filter(pc.invert(pc.is_in(table["serial"], out)))
            index = bins.assign(table["height"].to_numpy(), table["width"].to_numpy())
            for number in np.unique(index).tolist():
                if number not in writers:
                    paths[number] = folder / f"bin-{number:04d}.tmp"
                    writers[number] = stack.enter_context(parquet.writing(paths[number], table.schema))
                writers[number].write_table(table.take(np.flatnonzero(index == number)))
    return paths


def _order(table: pa.Table) -> npt.NDArray[np.int64]:
    serial, plain, order = (table[c].to_numpy() for c in ("serial", "plain", "order"))
    return np.lexsort((serial, ~plain.astype(bool), order))


def ends(estimates: npt.NDArray[np.int64], shard_bytes: int, capacity: int) -> list[int]:
    """Return where to cut the files of a bin into shards.

    Parameters
    ----------
    estimates : ndarray of int64
        Bytes that each file will take.
    shard_bytes : int
        Size aimed at: a cut comes after the file that brings a shard nearest to it, in equal shares rather than with a
        small last shard.
    capacity : int
        Files of a shard, where that is fixed; else 0.
    """
    if capacity:
        return [*range(capacity, len(estimates), capacity), len(estimates)]
    total = int(estimates.sum())
    count = max(1, round(total / shard_bytes))
    cumulative = np.cumsum(estimates)
    found = np.searchsorted(cumulative, total * np.arange(1, count + 1) / count, side="left") + 1
    found[-1] = len(estimates)
    return [int(end) for end in np.unique(np.minimum(found, len(estimates)))]

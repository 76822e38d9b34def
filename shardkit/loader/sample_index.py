"""What a loader knows of single samples: columns of the manifest, a shard at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.codecs.base import LEVELS
from shardkit.codecs.placement import Placement
from shardkit.dataset.bins import Bin, Bins
from shardkit.formats.base import ShardFormat
from shardkit.plan.samples import Ints


def common_levels(lists: pa.ChunkedArray, levels: int = LEVELS) -> pa.Array:
    """Flatten a manifest's level_bytes or level_hash, with the same number of levels for each image.

    Only large images have more; loaders stop where the smallest image does, so that a level stands for one scale.
    """
    return pc.list_slice(lists, 0, levels + 1).combine_chunks().flatten()


def numbered(table: pa.Table, bins: Bins) -> npt.NDArray[np.int16]:
    """Return the index in `bins` of each row of a table with the columns bin_height and bin_width."""
    number = {(each.height, each.width): i for i, each in enumerate(bins.bins)}
    sides = np.stack([table[name].to_numpy() for name in ("bin_height", "bin_width")], 1)
    pairs, of = np.unique(sides, axis=0, return_inverse=True)
    numbers = np.array([number[int(height), int(width)] for height, width in pairs], np.int16)
    return numbers[of.reshape(-1)]


@dataclass(frozen=True, slots=True)
class Details:
    """What the manifest says of the n samples of one shard.

    Attributes
    ----------
    form : ShardFormat
        How the shard is laid out.
    shard : str
        Its name.
    first_row : int
        Manifest row of its first sample.
    numbers : dict of ndarray, (n,)
        Numeric columns, by name.
    starts, level_bytes : ndarray of int64, (n, levels + 1)
        First byte of each level in its object, and length of the prefix that holds it.
    level_hash : ndarray of uint8, (n, levels + 1, digest bytes)
        Fingerprints of these prefixes.
    keys : Array of str, (n,)
        Keys of the samples.
    prefix : str
        What the names of a mixture's objects begin with, to tell its members apart.
    member : int
        Which member of a mixture it is.
    """

    form: ShardFormat
    shard: str
    first_row: int
    numbers: dict[str, npt.NDArray[Any]]
    starts: Ints
    level_bytes: Ints
    level_hash: npt.NDArray[np.uint8]
    keys: pa.Array
    prefix: str = ""
    member: int = 0

    @property
    def name(self) -> str:
        """The shard, as messages and readers name it."""
        return self.prefix + self.shard

    def at(self, row: int) -> "Detail":
        """Pick one sample by its manifest row."""
        return Detail(self, row - self.first_row)


@dataclass(frozen=True, slots=True)
class Detail:
    """One sample in its shard's `Details`."""

    shard: Details
    at: int

    @property
    def key(self) -> str:
        """Key of the sample."""
        return str(self.shard.keys[self.at].as_py())

    @property
    def bin(self) -> str:
        """Name of the bin it is stored in."""
        return Bin(int(self.number("bin_height")), int(self.number("bin_width"))).name

    @property
    def placement(self) -> Placement:
        """How it lies in its bin."""
        height, width, rows, cols = (
            int(self.number(f"{of}{side}")) for of in ("", "bin_") for side in ("height", "width")
        )
        return Placement(height, width, rows, cols)

    def object(self, level: int) -> str:
        """Name the object that holds a level."""
        return self.shard.prefix + self.shard.form.part(self.shard.shard, level)

    def start(self, level: int) -> int:
        """Return the first byte of a level in its object."""
        return int(self.shard.starts[self.at, level])

    def number(self, column: str) -> float:
        """Return a numeric column's value."""
        return float(self.shard.numbers[column][self.at])

    def prefix(self, level: int) -> int:
        """Return the length of the prefix that holds a level."""
        return int(self.shard.level_bytes[self.at, level])

    def hash(self, level: int) -> bytes:
        """Return the fingerprint of that prefix."""
        found: bytes = self.shard.level_hash[self.at, level].tobytes()
        return found

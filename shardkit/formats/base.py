"""What a format of shards is. A module with these names is one; `shardkit.formats.FORMATS` lists them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardkit.codecs.base import Codec
from shardkit.dataset.bins import Bin
from shardkit.dataset.sample_row import SampleRow
from shardkit.storage import Store

Ints = npt.NDArray[np.int64]
Row = SampleRow
Named = tuple[str, bytes]
"""An object: its name and content."""


class Writer(Protocol):
    """Takes a shard's images one after another."""

    def add(self, key: str, extension: str, image: bytes, facts: bytes, smaller: Sequence[bytes] = ()) -> int:
        """Append an image, its JSON and its smaller ones; returns the offset of the image's first byte.

        Raises ArgumentError for smaller ones in a format that has no place for them.
        """


class ShardFormat(Protocol):
    """How images lie in shards. `shardkit.testing.formats.assert_shard_format` checks what is said here.

    A shard has one object, or an object a level. The first one is named by the manifest, appears last, and makes the
    shard whole.

    Attributes
    ----------
    NAME : str
        As `--format` and dataset.json have it.
    FACTS : bool
        Whether every image has a JSON member beside it.
    NESTED : bool
        Whether smaller images are prefixes of an image's bytes, or lie in objects of their own.
    FOLDER : str
        Below which the objects lie.
    OBJECT, SHARD : re.Pattern
        Full names of objects, and of those that a manifest may hold; its group `bin` is the bin's name.
    """

    NAME: str
    FACTS: bool
    NESTED: bool
    FOLDER: str
    OBJECT: re.Pattern[str]
    SHARD: re.Pattern[str]

    def takes(self, codec: Codec) -> bool:
        """Whether shards of this format may hold a codec's images."""

    def capacity(self, bin: Bin, shard_bytes: int) -> int:
        """Images that a shard of this size has room for, 0 for any number."""

    def objects(self, name: str, levels: int) -> list[str]:
        """Names of the objects of a planned shard `shards/<bin>/<number>` with so many smaller images each."""

    def part(self, shard: str, level: int) -> str:
        """The object that holds a level, from the one that the manifest names."""

    def whole(self, name: str) -> tuple[str, int]:
        """(object that the manifest names, level) of an object: `part` backwards."""

    def starts(self, offsets: Ints, level_bytes: Ints) -> Ints:
        """(n,) offsets and (n, levels + 1) lengths of a shard's images -> first bytes of levels in their objects."""

    def locate(self, store: Store, row: Row, level: int) -> tuple[str, int]:
        """(object, first byte) of a level of a sample, by its manifest row. Raises IntegrityError."""

    def writer(self, paths: list[Path], capacity: int) -> AbstractContextManager[Writer]:
        """Writes local files, one an object; they are whole when the context ends without an error."""

    def rewrite(self, sources: list[Path], targets: list[Path], rows: list[Row], capacity: int) -> list[int]:
        """Copy a shard with only the images of `rows`, some of its own in their order; returns their offsets.

        Raises IntegrityError when one is not there.
        """

    def metadata(self, samples: pa.Table, description: dict[str, Any]) -> list[list[Named]]:
        """Further objects of a dataset, which follow from its manifest, in groups that must appear in this order."""

    def same(self, name: str, wanted: bytes, found: bytes) -> bool:
        """Whether two contents of an object of `metadata` say the same."""

    def verify(
        self, name: str, level: int, data: bytes, rows: list[Row], description: dict[str, Any], decode: bool
    ) -> Iterator[str]:
        """Problems of an object with a level of these samples, one sentence each. decode: whether pixels count too."""

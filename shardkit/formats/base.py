"""What a format of shards is. A module with these names is one; `shardkit.formats.FORMATS` lists them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardkit.codecs.base import Codec
from shardkit.dataset.bins import Bin
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.sample_row import SampleRow
from shardkit.storage import Store
from shardkit.storage.spill import Spill

Ints = npt.NDArray[np.int64]
Row = SampleRow
Named = tuple[str, bytes]
"""An object: its name and content."""


class Writer(Protocol):
    """Takes a shard's images one after another."""

    def add(self, key: str, extension: str, image: bytes, facts: bytes, smaller: Sequence[bytes] = ()) -> int:
        """Append an image.

        Parameters
        ----------
        key : str
            The sample's key.
        extension : str
            Extension of the image's name, which its codec has.
        image : bytes
            The encoded image.
        facts : bytes
            The sample's JSON member.
        smaller : sequence of bytes
            The image at 1/2, 1/4, ..., where these are not prefixes of it.

        Returns
        -------
        int
            Offset of the image's first byte in the shard's first object.

        Raises
        ------
        ArgumentError
            The format has no place for smaller images.
        """


class ShardFormat(Protocol):
    """How images lie in shards. `shardkit.testing.formats.assert_shard_format` checks what is said here.

    A shard has one object, or one for each level. The manifest names the first, which appears last and makes the shard
    whole.

    Attributes
    ----------
    NAME : str
        Name in `--format` and dataset.json.
    FACTS : bool
        Whether every image has a JSON member beside it.
    NESTED : bool
        Whether smaller images are prefixes of an image's bytes, or lie in objects of their own.
    FOLDER : str
        Folder of the objects in the dataset.
    OBJECT, SHARD : re.Pattern
        Patterns of all objects' names, and of those that a manifest may hold. Group `bin` of SHARD is the bin's name.
    """

    NAME: str
    FACTS: bool
    NESTED: bool
    FOLDER: str
    OBJECT: re.Pattern[str]
    SHARD: re.Pattern[str]

    def takes(self, codec: Codec) -> bool:
        """Return whether shards of this format may hold a codec's images.

        Parameters
        ----------
        codec : Codec
            The codec.

        Returns
        -------
        bool
            Whether they may.
        """

    def capacity(self, bin: Bin, shard_bytes: int) -> int:
        """Return how many images a shard has room for.

        Parameters
        ----------
        bin : Bin
            The images' bin.
        shard_bytes : int
            Bytes aimed at for a shard.

        Returns
        -------
        int
            A number that never changes for these arguments, or 0 for any number of images.
        """

    def objects(self, name: str, levels: int) -> list[str]:
        """Return the names of a shard's objects.

        Parameters
        ----------
        name : str
            The planned shard, `shards/<bin>/<number>`.
        levels : int
            Smaller images of each image.

        Returns
        -------
        list of str
            The object that the manifest names, then those of the levels below.
        """

    def part(self, shard: str, level: int) -> str:
        """Return the object that holds a level.

        Parameters
        ----------
        shard : str
            The object that the manifest names.
        level : int
            How many times images are halved.

        Returns
        -------
        str
            Name of the object.
        """

    def whole(self, name: str) -> tuple[str, int]:
        """Return which shard and level an object holds, the reverse of `part`.

        Parameters
        ----------
        name : str
            Name of the object.

        Returns
        -------
        tuple of (str, int)
            The object that the manifest names, and the level.
        """

    def starts(self, offsets: Ints, level_bytes: Ints) -> Ints:
        """Return where the levels of a shard's images begin.

        Parameters
        ----------
        offsets : numpy.ndarray
            First bytes of the images in the manifest, of shape (n,), int64.
        level_bytes : numpy.ndarray
            Bytes of their levels, of shape (n, levels + 1), int64.

        Returns
        -------
        numpy.ndarray
            First bytes of the levels in their objects, of shape (n, levels + 1), int64.
        """

    def locate(self, store: Store, row: Row, level: int) -> tuple[str, int]:
        """Return where a level of a sample lies.

        Parameters
        ----------
        store : Store
            The dataset, of which an index may be read.
        row : dict
            The sample's manifest row.
        level : int
            How many times the image is halved.

        Returns
        -------
        tuple of (str, int)
            The object, and the first byte in it.

        Raises
        ------
        IntegrityError
            The shard does not hold the image.
        """

    def writer(self, paths: list[Path], capacity: int) -> AbstractContextManager[Writer]:
        """Return a writer of local files.

        Parameters
        ----------
        paths : list of Path
            A file for each object, whole when the context ends without an error.
        capacity : int
            Images that the shard has room for.

        Returns
        -------
        context manager of Writer
            What takes the images.
        """

    def rewrite(self, sources: list[Path], targets: list[Path], rows: list[Row], capacity: int) -> list[int]:
        """Copy a shard with only some of its images.

        Parameters
        ----------
        sources, targets : list of Path
            Files of the shard and of its copy, one an object.
        rows : list of dict
            Manifest rows of the images to keep, in the shard's order.
        capacity : int
            Images that the shard has room for.

        Returns
        -------
        list of int
            Offsets of the images in the copy.

        Raises
        ------
        IntegrityError
            The shard has lost one of them.
        """

    def metadata(self, samples: pa.Table | Spill, description: DatasetDescription) -> list[list[Named]]:
        """Return the further objects of a dataset, which follow from its manifest.

        Parameters
        ----------
        samples : pyarrow.Table or Spill
            The manifest.
        description : DatasetDescription
            What dataset.json says.

        Returns
        -------
        list of list of (str, bytes)
            Names and contents, in groups that must appear in this order.
        """

    def same(self, name: str, wanted: bytes, found: bytes) -> bool:
        """Return whether two contents of an object of `metadata` say the same.

        Parameters
        ----------
        name : str
            Name of the object.
        wanted, found : bytes
            What follows from the manifest, and what is stored.

        Returns
        -------
        bool
            Whether they say the same, maybe in other bytes.
        """

    def verify(
        self, name: str, level: int, data: bytes, rows: list[Row], description: DatasetDescription, decode: bool
    ) -> Iterator[str]:
        """Find what is wrong with an object.

        Parameters
        ----------
        name : str
            Name of the object.
        level : int
            Level that it holds.
        data : bytes
            Its content.
        rows : list of dict
            Manifest rows of all its samples.
        description : DatasetDescription
            What dataset.json says.
        decode : bool
            Whether images are decoded and their pixels compared, too.

        Yields
        ------
        str
            A problem, as one sentence.
        """

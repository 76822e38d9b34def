"""dataset.json as a record. Nothing in it names a source path or depends on the clock."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shardkit.dataset.bins import Bins

FORMAT = 2
READABLE = (1, FORMAT)
"""Formats of dataset.json that are read. In 1, every HTJ2K image has five levels, whatever its size."""
MISSING = {"shard_format": "webdataset", "transfer_syntax": None, "converted_from": None}
"""What the absence of a field means: earlier versions did not write it, or it does not apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDescription:
    """What dataset.json says of a dataset.

    `shardkit.dataset.contents.description` reads and checks one, and `shardkit.dataset.describing.describe` makes one.

    Attributes
    ----------
    format : int
        Version of the format on storage.
    shard_format, codec : str
        Names of the format of the shards and of the codec of the images.
    extension : str
        Extension of the images' names in a shard.
    transfer_syntax : str or None
        UID of the DICOM transfer syntax that every image's stream has, if it has one.
    bins : Bins
        Bins of the shards, which know the patch size.
    samples, shards : int
        How many there are.
    bytes, pixels : int
        Bytes of the stored images at all levels, and pixels at level 0.
    tokens, padded_tokens : int
        Patches of all images, as they are and padded to their bins.
    splits : Mapping
        Samples by split.
    verdicts : Mapping
        Input files by verdict and reason.
    digest : str
        Digest of the manifest. It is empty while a build has not written dataset.json yet: then the manifest is held
        against the digest that it names itself, and against no counts.
    key_fingerprint : str
        Tells pseudonym keys apart, and nothing else of them.
    arguments : Mapping
        Options that the dataset was built with, as `shardkit.config.DatasetOptions.record` gives them.
    converted_from : str or None
        Digest of the dataset that this one was transcoded from.
    """

    format: int = FORMAT
    shard_format: str
    codec: str
    extension: str
    transfer_syntax: str | None
    bins: Bins
    samples: int
    shards: int
    bytes: int
    pixels: int
    tokens: int
    padded_tokens: int
    splits: Mapping[str, int]
    verdicts: Mapping[str, Mapping[str, int]]
    digest: str
    key_fingerprint: str
    arguments: Mapping[str, Any]
    converted_from: str | None = None

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.bins.patch

    @property
    def levels(self) -> int:
        """Smaller images stored beside each, in formats that do so."""
        return int(self.arguments.get("levels", 0))

    @property
    def shard_bytes(self) -> int:
        """Bytes aimed at for a shard."""
        return int(self.arguments["shard_bytes"])

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "DatasetDescription":
        """Return the record of a dataset.json whose fields have been checked; unknown ones are left out."""
        values = {f.name: content.get(f.name, MISSING.get(f.name)) for f in fields(cls)}
        return cls(**values | {"bins": Bins.from_json(content["bins"], content["patch"])})

    def to_json(self) -> str:
        """Return the text of dataset.json, always the same for the same dataset."""
        content: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "bins":
                content |= {"patch": self.patch, "bins": self.bins.to_json()}
            elif f.name != "converted_from" or value is not None:
                content[f.name] = value
        return json.dumps(content, indent=1)

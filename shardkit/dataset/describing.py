"""Makes the description of a dataset from its samples."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.codecs import codec
from shardkit.codecs.base import CodestreamCodec
from shardkit.dataset.bins import Bins
from shardkit.dataset.description import DatasetDescription
from shardkit.formats import shard_format
from shardkit.storage.spill import Spill


def describe(
    samples: pa.Table | Spill,
    bins: Bins,
    digest: str,
    *,
    format_name: str,
    codec_name: str,
    fingerprint: str,
    arguments: dict[str, Any],
    verdicts: dict[str, dict[str, int]],
    converted_from: str | None = None,
) -> DatasetDescription:
    """Return the description of a dataset with these samples.

    Parameters
    ----------
    samples : pyarrow.Table or Spill
        The manifest.
    bins : Bins
        Bins of the shards.
    digest : str
        Digest of the manifest, or empty while a build has not written dataset.json yet.
    format_name, codec_name : str
        Names of the format of the shards and of the codec of the images.
    fingerprint : str
        Tells pseudonym keys apart.
    arguments : dict
        Options of the build, as they are recorded.
    verdicts : dict
        Input files by verdict and reason.
    converted_from : str, optional
        Digest of the dataset that this one was transcoded from.

    Returns
    -------
    DatasetDescription
        What dataset.json will say.
    """
    lengths = samples["length"] if shard_format(format_name).NESTED else pc.list_flatten(samples["level_bytes"])
    account = bins.account(samples["height"].to_numpy(), samples["width"].to_numpy())
    return DatasetDescription(
        shard_format=format_name,
        codec=codec_name,
        extension=codec(codec_name).EXTENSION,
        transfer_syntax=_transfer_syntax(samples, codec_name),
        bins=bins,
        samples=samples.num_rows,
        shards=len(pc.unique(samples["shard"])),
        bytes=int(pc.sum(lengths).as_py() or 0),
        pixels=int((samples["height"].to_numpy().astype(np.int64) * samples["width"].to_numpy()).sum()),
        tokens=int(account.used),
        padded_tokens=int(account.padded),
        splits=dict(sorted((one["values"], one["counts"]) for one in pc.value_counts(samples["split"]).to_pylist())),
        verdicts=verdicts,
        digest=digest,
        key_fingerprint=fingerprint,
        arguments=arguments,
        converted_from=converted_from,
    )


def _transfer_syntax(samples: pa.Table | Spill, codec_name: str) -> str | None:
    """Return the DICOM transfer syntax of every image's stream: none if an early shardkit's has too few levels."""
    if not isinstance(how := codec(codec_name), CodestreamCodec):
        return None
    counts = pc.list_value_length(samples["level_bytes"]).to_numpy() - 1
    enough = how.enough(samples["height"].to_numpy(), samples["width"].to_numpy(), counts)
    return how.TRANSFER_SYNTAX if enough else None

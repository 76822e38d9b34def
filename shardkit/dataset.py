"""A finished dataset on storage: dataset.json, the manifest, and the samples in their shards."""

import json
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit import manifest
from shardkit.bins import Bins
from shardkit.codecs import codec
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.storage import MissingObject, Store

NAME = "dataset.json"
FORMAT = 1


def describe(
    samples: pa.Table,
    bins: Bins,
    digest: str,
    *,
    codec_name: str,
    fingerprint: str,
    arguments: dict[str, Any],
    verdicts: dict[str, dict[str, int]],
) -> dict[str, Any]:
    """The content of dataset.json: nothing in it names a source path or depends on the clock."""
    account = bins.account(samples["height"].to_numpy(), samples["width"].to_numpy())
    return {
        "format": FORMAT,
        "codec": codec_name,
        "extension": codec(codec_name)[1],
        "patch": bins.patch,
        "bins": bins.to_json(),
        "samples": samples.num_rows,
        "shards": len(pc.unique(samples["shard"])),
        "bytes": int(pc.sum(samples["length"]).as_py() or 0),
        "pixels": int((samples["height"].to_numpy().astype(np.int64) * samples["width"].to_numpy()).sum()),
        "tokens": int(account.used),
        "padded_tokens": int(account.padded),
        "splits": dict(sorted(Counter(samples["split"].to_pylist()).items())),
        "verdicts": verdicts,
        "digest": digest,
        "key_fingerprint": fingerprint,
        "arguments": arguments,
    }


def description(store: Store) -> dict[str, Any]:
    """dataset.json. Raises ArgumentError where there is none, IntegrityError where it is not one of ours."""
    try:
        content = json.loads(store.get(NAME))
    except MissingObject:
        raise ArgumentError(
            f"{store.url} is no shardkit dataset: it has no {NAME} (an interrupted build has none; run it again)"
        ) from None
    except ValueError:
        raise IntegrityError(f"{store.url}/{NAME} is damaged: run the build again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise IntegrityError(f"{store.url}/{NAME} has another format than {FORMAT}: use the shardkit that wrote it")
    return content


def samples(store: Store, columns: list[str] | None = None) -> pa.Table:
    """The manifest; whole and checked against the digest unless `columns` are named."""
    if columns is not None or not store.exists(NAME):
        return manifest.read(store, columns=columns)
    return manifest.read(store, description(store)["digest"])


def image(store: Store, row: dict[str, Any], codec_name: str, level: int = 0) -> npt.NDArray[np.uint16]:
    """One sample's image at 1/2**level, reading only the bytes that level needs.

    Raises ArgumentError for a level the codec does not hold, IntegrityError or StorageError for bad bytes.
    """
    lengths = row["level_bytes"]
    if not 0 <= level < len(lengths):
        raise ArgumentError(f"level {level} is not in this dataset: {codec_name} holds levels 0 to {len(lengths) - 1}")
    data = store.get_range(row["shard"], row["offset"], lengths[level])
    if manifest.fingerprint(data) != row["level_hash"][level]:
        raise IntegrityError(
            f"{store.url}/{row['shard']}: the image of {row['key']} at byte {row['offset']:,} differs from its hash;"
            " run verify"
        )
    pixels: npt.NDArray[np.uint16] = codec(codec_name)[0].decode(data, level, row["bits"])
    return pixels

"""What every format's `verify` says of one image."""

from shardkit.codecs.base import Codec
from shardkit.codecs.placement import Placement
from shardkit.dataset.hashes import pixel_hash
from shardkit.errors import ShardkitError
from shardkit.formats.base import Row

REMEDY = "build the shard again from the source"


def pixel_problem(data: bytes, row: Row, codec: Codec, level: int) -> str | None:
    """Say what is wrong with an image's pixels, or None. Smaller images have no hash of pixels, but must decode."""
    try:
        pixels = codec.decode(data, level, row["bits"], Placement.of(row))
    except ShardkitError as error:
        return f"cannot be decoded ({error})"
    if not level and pixel_hash(pixels, row["bits"]) != row["pixel_hash"]:
        return "decodes to other pixels than were written"
    return None

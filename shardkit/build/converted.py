"""What a child process says of a file that it converted. The main process loads this, and nothing that decodes."""

from dataclasses import dataclass
from typing import Literal

from shardkit.dataset.sample_row import ImageColumns
from shardkit.formats.encoding import Encoded


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of one file. `encoded`, `facts` and `thumb` are None unless it is written."""

    verdict: Literal["written", "dropped", "quarantined"]
    reason: str
    message: str | None
    sha256: str | None
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    encoded: Encoded | None = None
    facts: ImageColumns | None = None
    thumb: bytes | None = None
    unsure: bool = False  # whether it may be the store's fault

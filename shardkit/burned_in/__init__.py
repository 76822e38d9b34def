"""Text that is burned into the pixels of an image: found, and blanked if asked."""

from shardkit.burned_in.detection import find
from shardkit.burned_in.findings import Finding

__all__ = ["Finding", "find"]

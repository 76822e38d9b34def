"""Text that is burned into the pixels of an image: found, and blanked if asked."""

from shardkit.burned_in.findings import Finding
from shardkit.burned_in.suspect import burned_in_suspect

__all__ = ["Finding", "burned_in_suspect"]

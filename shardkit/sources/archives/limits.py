"""How much an archive may ask for: what it says of its sizes is a stranger's word, and bombs lie."""

MEMBER = 2 << 30
"""Bytes of a member at most."""
FREE, RATIO = 256 << 20, 250
"""A member may have so many bytes whatever it is packed into, or so many times its packed ones."""
ALL_FREE = 8 << 30
"""The same for all of an archive: bytes that may lie above the ratio."""
MEMBERS = 4_000_000
"""Members of an archive, of which each takes some hundred bytes of memory."""
DIRECTORY = 1 << 30
"""Bytes of a zip's directory."""
EXTENDED = 1 << 20
"""Bytes of an extended header of a tar, such as a long name."""
NESTED = 256 << 20
"""Bytes of an archive that is compressed in an archive, and so is held in memory."""
DEPTH = 1
"""Archives in archives that are read: one level of them."""


def expands(size: int, packed: int, free: int) -> bool:
    """Return whether `size` is more than `free` bytes, and more than so many packed bytes may become."""
    return size > max(free, RATIO * packed)

"""Several stores as one reader: an object's name begins with the member of the mixture that it belongs to."""

from collections.abc import Mapping
from dataclasses import replace

from shardkit.loader.stream.reader import Direct, Reader


class Several:
    """Reads from the store that a name's beginning tells, up to its first slash.

    Parameters
    ----------
    readers : mapping of str to Reader
        By that beginning, slash included.
    """

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self._readers = readers

    def _of(self, name: str) -> tuple[Reader, str]:
        member, slash, rest = name.partition("/")
        return self._readers[member + slash], rest

    @property
    def direct(self) -> Direct | None:
        """How threads read from all of them by themselves; None where one is no folder."""
        found: dict[str, Direct | None] = {k: getattr(reader, "direct", None) for k, reader in self._readers.items()}
        ways = {member: direct for member, direct in found.items() if direct is not None}
        if len(ways) < len(found):
            return None

        def read(name: str, start: int, length: int) -> bytes:
            member, slash, rest = name.partition("/")
            return ways[member + slash].read(rest, start, length)

        return replace(next(iter(ways.values())), read=read)

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`."""
        reader, rest = self._of(name)
        return await reader.read(rest, start, length, fresh=fresh)

    async def size(self, name: str) -> int:
        """See `Reader`."""
        reader, rest = self._of(name)
        return await reader.size(rest)

    async def close(self) -> None:
        """See `Reader`."""
        for reader in self._readers.values():
            await reader.close()

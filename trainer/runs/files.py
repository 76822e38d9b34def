"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes the name when the block ends without an error."""
    fresh = path.with_name(f"{path.name}.part")
    yield fresh
    fresh.replace(path)

"""Who is told of a build's stages: scan, plan, convert, assemble."""

from typing import Protocol

from shardkit.build.ingest import ShardDone


class Progress(Protocol):
    """Told what happens; `shardkit.build.progress` shows it."""

    def stage(self, name: str, total: int | None) -> None:
        """Begin a stage, of `total` files if that is known."""

    def scanned(self, files: int) -> None:
        """Count files whose headers were read."""

    def converted(self, done: ShardDone) -> None:
        """Count a finished shard."""


class Quiet:
    """Progress that nobody watches."""

    def stage(self, name: str, total: int | None) -> None:
        """Ignore it."""

    def scanned(self, files: int) -> None:
        """Ignore them."""

    def converted(self, done: ShardDone) -> None:
        """Ignore it."""

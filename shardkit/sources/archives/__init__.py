"""Archives that lie in an export: zip, tar and tar.gz files, read in place, their members as entries."""

from shardkit.sources.archives.tree import ArchiveTree

__all__ = ["ArchiveTree"]

"""Where images come from: `ImageSource` is what a build asks of them, `dicom` is one."""

from collections.abc import Callable
from pathlib import Path

from shardkit.sources.archives import ArchiveTree
from shardkit.sources.base import ImageSource
from shardkit.sources.dicom.source import DicomSource
from shardkit.sources.files import FileTree

__all__ = ["DicomSource", "FileTree", "ImageSource", "image_source"]


def image_source(
    url: str,
    follow_symlinks: bool = False,
    images: Callable[[FileTree], ImageSource] | None = None,
    indexes: Path | None = None,
) -> ImageSource:
    """Return the source of the images below a place.

    Parameters
    ----------
    url : str
        Folder or url of a bucket.
    follow_symlinks : bool
        Read what symbolic links point to.
    images : callable, optional
        Makes a source of the files; default `DicomSource`.
    indexes : Path, optional
        Private folder for indexes of tar files, so that each is listed once.
    """
    return (images or DicomSource)(ArchiveTree(url, follow_symlinks, indexes))

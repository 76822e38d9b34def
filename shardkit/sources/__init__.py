"""Where images come from: `ImageSource` is what a build asks of them, `dicom` is one."""

from collections.abc import Callable

from shardkit.sources.base import ImageSource
from shardkit.sources.dicom.source import DicomSource
from shardkit.sources.files import FileTree

__all__ = ["DicomSource", "FileTree", "ImageSource", "image_source"]


def image_source(
    url: str, follow_symlinks: bool = False, images: Callable[[FileTree], ImageSource] | None = None
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
    """
    return (images or DicomSource)(FileTree(url, follow_symlinks))

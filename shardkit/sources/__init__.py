"""Where images come from: `ImageSource` is what a build asks of them, `Radiographs` is what it takes them from."""

from collections.abc import Callable
from pathlib import Path

from shardkit.sources.archives import ArchiveTree
from shardkit.sources.base import Frames, ImageSource
from shardkit.sources.dicom.source import DicomSource
from shardkit.sources.files import FileTree
from shardkit.sources.mixed import Radiographs

__all__ = ["ArchiveTree", "DicomSource", "FileTree", "ImageSource", "Radiographs", "image_source"]


def image_source(
    url: str,
    follow_symlinks: bool = False,
    images: Callable[[FileTree], ImageSource] | None = None,
    *,
    indexes: Path | None = None,
    image_files: bool = False,
    frames: Frames = "drop",
    slices: str = "axis=2",
) -> ImageSource:
    """Return the source of the images below a place, and in archives there.

    Parameters
    ----------
    url : str
        Folder or url of a bucket.
    follow_symlinks : bool
        Read what symbolic links point to.
    images : callable, optional
        Makes a source of the files; default `Radiographs`, of which all but `indexes` are options.
    indexes : Path, optional
        Private folder for indexes of tar files, so that each is listed once.
    image_files : bool
        Take PNG, JPEG, TIFF and NIfTI files, too.
    frames : str
        What to do with files of several frames: "drop", or take "each".
    slices : str
        Which slices of a NIfTI volume to take.
    """
    files = ArchiveTree(url, follow_symlinks, indexes)
    if images is not None:
        return images(files)
    return Radiographs(files, image_files, frames, slices)

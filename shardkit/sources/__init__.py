"""Where images come from: `ImageSource` is what a build asks of them, `Radiographs` is what it takes them from."""

from collections.abc import Callable

from shardkit.sources.base import Frames, ImageSource
from shardkit.sources.dicom.source import DicomSource
from shardkit.sources.files import FileTree
from shardkit.sources.mixed import Radiographs

__all__ = ["DicomSource", "FileTree", "ImageSource", "Radiographs", "image_source"]


def image_source(
    url: str,
    follow_symlinks: bool = False,
    images: Callable[[FileTree], ImageSource] | None = None,
    *,
    image_files: bool = False,
    frames: Frames = "drop",
    slices: str = "axis=2",
) -> ImageSource:
    """Return the source of the images below a place.

    Parameters
    ----------
    url : str
        Folder or url of a bucket.
    follow_symlinks : bool
        Read what symbolic links point to.
    images : callable, optional
        Makes a source of the files; default `Radiographs`, of which the following are options.
    image_files : bool
        Take PNG, JPEG, TIFF and NIfTI files, too.
    frames : str
        What to do with files of several frames: "drop", or take "each".
    slices : str
        Which slices of a NIfTI volume to take.
    """
    files = FileTree(url, follow_symlinks)
    if images is not None:
        return images(files)
    return Radiographs(files, image_files, frames, slices)

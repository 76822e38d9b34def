"""The source of a build: DICOM files, and image files where they are wanted. A file's first bytes tell which it is.

Image files are read where the options say so, and where a table of facts names the file; anywhere else one is
quarantined as no DICOM, for in an export it is more often a preview than an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, ClassVar

from shardkit.errors import Dropped, Quarantined
from shardkit.sources.base import Frames, ImageFacts, LoadedImage, OneImageAFile
from shardkit.sources.dicom import foreign, reading
from shardkit.sources.dicom.source import DicomSource
from shardkit.sources.entries import Entry
from shardkit.sources.images import signatures
from shardkit.sources.images.source import ImageFiles


@dataclass(frozen=True)
class Radiographs(OneImageAFile):
    """Files of all formats, as `shardkit.sources.base.ImageSource`.

    Parameters
    ----------
    files : FileTree
        The folder or bucket.
    image_files : bool
        Whether to take image files of which no table says anything.
    frames : str
        What to do with files of several frames or pages: "drop", or take "each".
    slices : str
        Which slices of a NIfTI volume to take, as ``--slices`` has it.
    """

    KIND: ClassVar[str] = "dicom"  # as datasets record it that were made when there was no other format
    image_files: bool = False
    frames: Frames = "drop"
    slices: str = "axis=2"

    def split(self, entry: Entry) -> Sequence[Entry]:
        """Return the images of a file: its frames or slices where they are taken, else itself.

        Raises
        ------
        Dropped, Quarantined
            Where it cannot be read that far.
        """
        if self.frames == "drop" and not self._takes_images(entry):
            return (entry,)
        with self.opened(entry, again=True) as file:
            return self._reader(entry, file).split_file(entry, file)

    def inspect(self, entry: Entry) -> ImageFacts:
        """Return what the header of a file tells.

        Raises
        ------
        Dropped, Quarantined
            Where it holds no image that can be decoded.
        """
        with self.opened(entry) as file:
            return self._reader(entry, file).inspect_file(entry, file)

    def load(self, entry: Entry, data: bytes) -> LoadedImage:
        """Return the image in the whole bytes of a file.

        Raises
        ------
        Dropped, Quarantined
            As `inspect`.
        """
        return self._reader(entry, BytesIO(data)).load(entry, data)

    def _takes_images(self, entry: Entry) -> bool:
        return self.image_files or entry.facts is not None

    def _reader(self, entry: Entry, file: BinaryIO) -> DicomSource | ImageFiles:
        """Return what reads a file; it is at its start again."""
        start = file.read(signatures.START)
        file.seek(0)
        if foreign.is_apple_double(entry.file, start):
            raise Dropped("apple_double", "a file that macOS keeps beside another, no image")
        if reading.looks_like_dicom(start):
            return DicomSource(self.files, self.frames)
        if self._takes_images(entry):
            return ImageFiles(self.files, self.frames, self.slices)
        if signatures.known(start) is not None:
            raise Quarantined(
                "not_dicom",
                "an image file, not DICOM: build into a new --out with --image-files, or name it in a table of --facts",
            )
        return DicomSource(self.files, self.frames)

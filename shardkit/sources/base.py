"""What a build takes images from: `ImageSource`, and the records that it gives instead of objects of a file format.

A source lists its entries; says of each what its header tells (`inspect`), which a build triages by its rules; and
decodes it (`load`). Where the files lie, and how one waits for a store that is away, is `shardkit.sources.files`.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar, Literal, Protocol

from shardkit.content import Pixels
from shardkit.privacy import Stated
from shardkit.sources.entries import Entry
from shardkit.sources.files import FileTree
from shardkit.sources.last import Last

Invert = Literal["full", "imagemax"]
Frames = Literal["drop", "each"]
"""What to do with a file of several frames or pages."""


class _Opened(threading.local):
    """A file is read by one thread at a time."""

    def __init__(self) -> None:
        self.last = Last[BinaryIO](lambda _: 0, 0)


_bytes, _opened = Last[bytes](len, 1 << 30), _Opened()
"""The last file that holds several images, for all of them: its bytes, and itself."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Identity:
    """Whom and what an image is of, in clear text: a build hashes it before anything is stored. Empty where unknown.

    Attributes
    ----------
    image : str
        Names the image wherever it lies; DICOM's SOP Instance UID. Without one, its path names it.
    patient : str
        Images of one patient share a split. Where there is none, the study stands for the patient, and without a study
        the image.
    study, series, device : str
        What images that share them have in common.
    accession : str
        Number of the order that the image was taken for: tables of findings often name it.
    processed_pair : str
        The same for an unprocessed image and the processed one that was made from it: of the two, one is written.
    """

    image: str = ""
    patient: str = ""
    study: str = ""
    series: str = ""
    device: str = ""
    accession: str = ""
    processed_pair: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What the header of an image says; nothing is decoded for it.

    Attributes
    ----------
    height, width : int
        Pixels, as stored.
    bits : int
        Bits that count in a stored value, 1 to 16.
    signed : bool
        Whether stored values are signed.
    photometric : str
        MONOCHROME1 (low values are bright) or MONOCHROME2.
    modality : str or None
        What made the image, a DICOM modality code such as DX. A build drops modalities that it was not told to take;
        empty counts as `shardkit.triage.NO_MODALITY`. None for files that have no place to say it: they are taken.
    encoding : str or None
        UID of the DICOM transfer syntax; None for other files.
    coded_bytes : int or None
        Bytes of the file, where it is compressed without loss: from them a build estimates the size of a shard. None
        for files that are not.
    plain : bool
        Whether the file is in its simplest encoding. Of files with equal pixels, a plain one is kept.
    presentation : str or None
        FOR PRESENTATION or FOR PROCESSING, where the source tells.
    burned_in : bool
        The source says that identifiers are burned into the pixels.
    recognizable : bool
        The source says that the image shows what a person can be recognised by.
    secondary_capture : bool
        A capture of another image, such as of a screen or a film.
    identity : Identity
        Whom and what the image is of.
    repairs, flags : tuple of str
        What was mended to read the header; what a person may want to look at.
    """

    height: int
    width: int
    bits: int
    modality: str | None
    signed: bool = False
    photometric: str = "MONOCHROME2"
    encoding: str | None = None
    coded_bytes: int | None = None
    plain: bool = True
    presentation: str | None = None
    burned_in: bool = False
    recognizable: bool = False
    secondary_capture: bool = False
    identity: Identity = field(default_factory=Identity, repr=False)
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Pixels of an image: unsigned, bright values bright, padding 0, native size, nothing windowed.

    Attributes
    ----------
    pixels : ndarray of uint16, shape (height, width)
        In [0, 2**bits - 1].
    bits : int
        Bits that count, 1 to 16.
    decoder : str
        The library that decoded, with its version.
    inverted : bool
        Whether values were inverted to make bright values bright.
    padding : float
        Share of padding pixels, in [0, 1].
    lossy : bool
        Whether the file was compressed with loss.
    modality_lut : bool
        Whether a table of the file was applied to its stored values.
    repairs, flags : tuple of str
        What was mended to decode; what a person may want to look at.
    """

    pixels: Pixels
    bits: int
    decoder: str
    inverted: bool = False
    padding: float = 0.0
    lossy: bool = False
    modality_lut: bool = False
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image whose file is in memory, not decoded yet.

    Attributes
    ----------
    facts : ImageFacts
        What its header tells, as `ImageSource.inspect` would.
    stated : Stated
        What its source states of it, unchecked.
    decode : callable
        Takes how to invert ("full": 2**bits - 1 - x, "imagemax": max(image) - x) and returns `Decoded`. Raises
        Quarantined.
    """

    facts: ImageFacts
    stated: Stated
    decode: Callable[[Invert], Decoded]


class ImageSource(Protocol):
    """Where images come from. It is sent to worker processes, so it must pickle, and hold no secret.

    What is wrong with one file ends in a verdict: `inspect`, `load` and what `load` returns raise `Dropped` for what a
    rule leaves out and `Quarantined` for what is an error, with a code of `shardkit.triage` and words that repeat
    nothing of the file. They run in a child process, with limits of time and memory, that imports the class: define it
    in a module.

    Attributes
    ----------
    KIND : str
        Recorded with a dataset, which can then be added to from the same kind of source only.
    """

    KIND: ClassVar[str]

    @property
    def files(self) -> FileTree:
        """The folder or bucket that entries lie in."""
        ...

    def list(self) -> Iterator[Entry]:
        """Yield every entry, sorted by path, whatever it is: each gets a verdict.

        Raises
        ------
        StorageError
            Where the place cannot be listed.
        """
        ...

    def split(self, entry: Entry) -> Sequence[Entry]:
        """Return the images that a file holds: itself, or its frames or slices (`Entry.at`).

        Parameters
        ----------
        entry : Entry
            A file of `list`.

        Raises
        ------
        Dropped, Quarantined
            Where the file cannot be read that far.
        """
        ...

    def read(self, entry: Entry) -> bytes:
        """Return the whole bytes of the file that holds an image.

        Parameters
        ----------
        entry : Entry
            An image of `split`.

        Raises
        ------
        Quarantined
            io_error.
        """
        ...

    def inspect(self, entry: Entry) -> ImageFacts:
        """Return what the header of an entry says. Only what this needs is read of the file.

        Parameters
        ----------
        entry : Entry
            An image of `split`.

        Raises
        ------
        Dropped, Quarantined
            Where this is not an image that can be decoded. `Verdict.modality` says what made it, where that was read.
        """
        ...

    def load(self, entry: Entry, data: bytes) -> LoadedImage:
        """Return an image by the whole bytes of its file.

        Parameters
        ----------
        entry : Entry
            An image of `split`.
        data : bytes
            The file's bytes, as `read` gives them.

        Raises
        ------
        Dropped, Quarantined
            As `inspect` does.
        """
        ...


@dataclass(frozen=True)
class OneImageAFile:
    """The part of an `ImageSource` that is the same for all whose files hold one image each.

    Parameters
    ----------
    files : FileTree
        The folder or bucket.
    """

    files: FileTree

    def list(self) -> Iterator[Entry]:
        """Yield every name below the folder or bucket."""
        return self.files.list()

    def split(self, entry: Entry) -> Sequence[Entry]:
        """Return the file itself."""
        return (entry,)

    def read(self, entry: Entry) -> bytes:
        """Return the whole bytes of a file. Those of the last one with several images are kept, the same object."""
        if entry.part is None:
            return self.files.read(entry.file)
        return _bytes.of(None, self._file(entry), lambda: self.files.read(entry.file))

    @contextmanager
    def opened(self, entry: Entry, again: bool = False) -> Iterator[BinaryIO]:
        """Open a file at its start, for its header.

        The last one with several images stays open for the others, and one that is opened `again` at once for that.
        """
        last = _opened.last
        if again or entry.part is not None:
            try:
                file = last.of(None, self._file(entry), lambda: self._open(entry))
                file.seek(0)
                yield file
            except BaseException:  # who tries again opens it anew
                last.forget()
                raise
        else:
            with last.taken(None, lambda: self._file(entry)) or self._open(entry) as file:
                file.seek(0)
                yield file

    def _open(self, entry: Entry) -> BinaryIO:
        return self.files.open(entry.file, entry.size)

    def _file(self, entry: Entry) -> Hashable:
        return self.files.url, entry.file, entry.size, self.files.changed_at(entry.file)

"""An entry of an export: a file, a member of an archive, a frame or a slice; or a name of which nothing can be read."""

from dataclasses import dataclass, field, replace
from typing import Literal

from shardkit.errors import Dropped, Quarantined
from shardkit.sources.facts import FactsRow

Kind = Literal[
    "file",
    "symlink",
    "broken_link",
    "endless_link",
    "loop",
    "special",
    "too_long",
    "unreadable",
    "outside",
    "table",
    "ambiguous",
    "encrypted",
    "damaged",
    "limit",
    "unsafe_name",
    "same_name",
    "packing",
    "split",
    "no_members",
]
"""What a name stands for: a file that can be read, or why none can."""

_VERDICTS: dict[Kind, tuple[str, str]] = {
    "symlink": ("not_dicom", "a symbolic link, not followed: build into a new --out with --follow-symlinks"),
    "broken_link": ("not_dicom", "a symbolic link to what is not there: bring its target back, or remove it"),
    "endless_link": ("not_dicom", "a symbolic link that leads back to itself: remove it"),
    "loop": ("not_dicom", "a symbolic link to a folder above it, which would never end: remove it"),
    "special": ("not_dicom", "a pipe, socket or device, not a file"),
    "too_long": ("io_error", "its path is longer than the system opens: move its folder up, or shorten its name"),
    "unreadable": ("io_error", "the name cannot be opened: check its permissions"),
    "outside": ("not_in_collection", "it lies in the tree, and is no image of the collection"),
    "table": ("not_an_image", "the table that --facts names"),
    "ambiguous": (
        "facts_ambiguous",
        "rows of the facts that name it differ, or name other files, too: name whole paths",
    ),
    "encrypted": ("encrypted", "a member that needs a password: unpack its archive, and remove it from the export"),
    "damaged": ("archive_damaged", "an archive, or a member of one, that cannot be read: copy it again"),
    "same_name": ("archive_damaged", "several members have its name, or files lie below the archive's: rename them"),
    "packing": ("archive_damaged", "packed in a way that is not read: pack it again as zip (deflate), tar or tar.gz"),
    "split": ("archive_damaged", "one part of a split archive: join its parts to one file"),
    "no_members": ("empty_file", "an archive that holds no files"),
    "limit": (
        "archive_limit",
        "it unpacks to far more than it takes, or lies too deep in archives: unpack it yourself",
    ),
    "unsafe_name": ("unsafe_name", "its name in the archive leads out of it: pack it again under a plain name"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in the export, or an image in a file that holds several.

    Attributes
    ----------
    path : bytes
        Names it in the ledger; relative, and in bytes, for names need not be valid UTF-8. A member of an archive lies
        below the archive as if that were a folder: ``a.zip/x.dcm``. A frame or slice has a number: ``x.nii.gz#077``.
    size : int
        Bytes of the file.
    kind : Kind
        Whether it can be read.
    part : int, optional
        Which frame or slice of the file it is, from 0; None for a file that holds one image.
    unpacked : bytes, optional
        Path of the file, were its archive unpacked where it lies: it names an image that has no UID, so that an archive
        gives the dataset that its files give. None for what lies in no archive.
    facts : FactsRow, optional
        What a table says of it.
    """

    path: bytes = field(repr=False)  # no log may show it
    size: int
    kind: Kind
    part: int | None = None
    unpacked: bytes | None = field(default=None, repr=False)
    facts: FactsRow | None = field(default=None, repr=False)

    @property
    def file(self) -> bytes:
        """Path of the file that holds it."""
        return self.path if self.part is None else self.path.removesuffix(_suffix(self.part))

    @property
    def name(self) -> bytes:
        """What names the image where its source gives it no UID."""
        suffix = b"" if self.part is None else _suffix(self.part)
        return (self.file if self.unpacked is None else self.unpacked) + suffix

    def at(self, part: int) -> "Entry":
        """Return a frame or slice of this file."""
        return replace(self, path=self.file + _suffix(part), part=part)

    def require_file(self) -> None:
        """Raise the verdict on a name that no file can be read of: Dropped or Quarantined."""
        if self.kind != "file":
            raise (Dropped if self.kind in ("outside", "table") else Quarantined)(*_VERDICTS[self.kind])


def _suffix(part: int) -> bytes:
    return b"#%03d" % part

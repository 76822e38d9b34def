"""The contract of sources: DICOM keeps it over sound and defective files, and every way to break it is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pydicom.uid as uids
import pytest

from shardkit.errors import Quarantined
from shardkit.privacy import Stated
from shardkit.sources import FileTree, ImageSource, image_source
from shardkit.sources.base import Decoded, ImageFacts, LoadedImage, OneImageAFile
from shardkit.sources.entries import Entry
from shardkit.synthetic import records
from shardkit.synthetic.defects import DEFECTS, file_bytes
from shardkit.synthetic.records import ImageSpec
from shardkit.testing.sources import assert_image_source

EXPLICIT = str(uids.ExplicitVRLittleEndian)
SOUND: dict[str, dict[str, Any]] = {
    "a_plain": {},
    "sub/inverted": {"photometric": "MONOCHROME1"},
    "implicit": {"syntax": str(uids.ImplicitVRLittleEndian)},
    "j2k": {"syntax": str(uids.JPEG2000Lossless)},
    "lossless": {"syntax": str(uids.JPEGLosslessSV1)},
    "rle": {"syntax": str(uids.RLELossless)},
    "z_eight": {"bits": 8, "syntax": str(uids.JPEGBaseline8Bit)},
}
LARGE = ("too_large", "huge")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, image_spec: Callable[..., ImageSpec]) -> Path:
    """Small files: sound ones of several encodings and polarities, one of each defect, and what is no DICOM."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "sub").mkdir()
    for name, fields in SOUND.items():
        (folder / name).write_bytes(records.sound_bytes(image_spec(**fields)))
    for name, kind in DEFECTS.items():
        if not kind.twin and name not in LARGE:
            spec = image_spec(defect=name, bits=kind.bits or 12, syntax=kind.syntax or EXPLICIT, height=70, width=64)
            (folder / f"defect_{name}").write_bytes(file_bytes(spec))
    (folder / "letter").write_bytes(b"no image at all")
    return folder


def test_dicom_keeps_the_contract(export: Path) -> None:
    assert_image_source(image_source(str(export)), least=len(SOUND))


@dataclass(frozen=True)
class Arrays(OneImageAFile):
    """A source of NumPy files, whole and simple; tests replace parts of it."""

    broken: str = ""
    KIND: ClassVar[str] = "arrays"

    def list(self) -> Iterator[Entry]:
        entries = [*self.files.list()]
        return iter(entries[::-1] if self.broken == "unsorted" else entries)

    def inspect(self, entry: Entry) -> ImageFacts:
        return self.load(entry, self.read(entry)).facts

    def load(self, entry: Entry, data: bytes) -> LoadedImage:
        if self.broken == "raises":
            np.lib.format.read_magic(BytesIO(data))
        try:
            array = np.load(BytesIO(data), allow_pickle=False)
        except Exception:
            said = entry.path.decode() if self.broken == "names" else "no array"
            raise Quarantined("mystery" if self.broken == "code" else "not_dicom", said) from None
        if array.dtype != np.uint16 or array.ndim != 2:
            raise Quarantined("bad_value", "an array of another kind")
        facts = ImageFacts(
            height=array.shape[0], width=array.shape[1] + (self.broken == "size"), bits=12, modality="DX"
        )
        return LoadedImage(facts, Stated(), lambda invert: self._decoded(array))

    def _decoded(self, array: Any) -> Decoded:
        if self.broken == "chance":
            array = array ^ np.random.default_rng().integers(0, 16, array.shape).astype(np.uint16)
        kind = np.int32 if self.broken == "type" else np.uint16
        return Decoded(pixels=array.astype(kind), bits=8 if self.broken == "bits" else 12, decoder="numpy")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> FileTree:
    folder = tmp_path_factory.mktemp("arrays")
    for seed in (1, 2):
        np.save(folder / f"array{seed}.npy", np.random.default_rng(seed).integers(0, 4096, (9, 7)).astype(np.uint16))
    (folder / "letter.txt").write_text("no array at all")
    return FileTree(str(folder))


def test_a_simple_source_keeps_the_contract(arrays: FileTree) -> None:
    assert_image_source(Arrays(arrays), least=2)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("unsorted", "not sorted by path"),
        ("raises", "ValueError, not a verdict"),
        ("names", "repeats the file's name"),
        ("code", "unknown code mystery"),
        ("size", "its header tells (9, 8)"),
        ("chance", "decoded twice"),
        ("type", "int32, not uint16"),
        ("bits", "above its 8 bits"),
    ],
)
def test_what_breaks_the_contract_is_named(arrays: FileTree, broken: str, said: str) -> None:
    source: ImageSource = Arrays(arrays, broken)
    with pytest.raises(AssertionError, match=re.escape(said)):
        assert_image_source(source)


def test_a_source_without_images_breaks_it(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("no array at all")
    with pytest.raises(AssertionError, match="0 of 1 entries are images"):
        assert_image_source(Arrays(FileTree(str(tmp_path))))

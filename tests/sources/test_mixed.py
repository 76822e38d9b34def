"""A tree of files of every kind: what each is, its first bytes tell; image files are taken where they are wanted."""

from __future__ import annotations

import errno
import gzip
import os
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.build import ledger
from shardkit.build.scan import scan_file
from shardkit.config import BuildConfig, Rules
from shardkit.dataset import contents
from shardkit.dataset.verify import verify
from shardkit.errors import ArgumentError, Quarantined, Verdict
from shardkit.sources import image_source
from shardkit.sources.entries import Entry
from shardkit.sources.facts import FactsRow
from shardkit.sources.files import FileTree
from shardkit.storage import Store, parquet
from shardkit.synthetic import records
from shardkit.synthetic.image_files import encoded, png, tiff
from shardkit.synthetic.radiographs import radiograph
from shardkit.synthetic.records import ImageSpec
from shardkit.testing.sources import assert_image_source
from shardkit.triage import QUARANTINES
from tests.one_process import build


def chest(bits: int = 8, rows: int = 80, cols: int = 70, seed: int = 0) -> Any:
    values = radiograph(rows, cols, bits, np.random.default_rng(seed), "chest")
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def images() -> dict[str, bytes]:
    """Return a sound file of each kind, small ones."""
    volume = np.stack([chest(12, 70, 66, seed) for seed in range(3)], -1).astype(np.int16)
    nifti = nibabel.Nifti1Image(volume, np.eye(4)).to_bytes()
    return {
        "a.png": png(chest(), 8),
        "b16.png": png(chest(16), 16),
        "c.jpg": encoded(chest(seed=4), "JPEG"),
        "d.tif": tiff(chest(16, seed=1), ">"),
        "e_lossless.jpeg": bytes(imagecodecs.ljpeg_encode(chest(12, seed=3), bitspersample=12)),
        "f.tiff": encoded(chest(seed=2), "TIFF", compression="tiff_lzw"),
        "g.nii": nifti,
        "h.nii.gz": gzip.compress(nifti),
        "wrongly_named.dcm": png(chest(seed=5), 8),
        "without_a_name": png(chest(seed=6), 8),
    }


NOT_IMAGES = {
    "Data_Entry.csv": b"Image Index,Finding Labels\n00000001_000.png,Cardiomegaly\n",
    "latin1.csv": "Größe;Alter\nmüde;70\n".encode("latin-1"),
    "utf16.csv": "a;b\n1;2\n".encode("utf-16"),
    "metadata.csv.gz": gzip.compress(b"subject_id,study_id\n" * 50),
    "notes.md": b"# Notes\n\nof no matter\n",
    "index.html": b"<!doctype html><html></html>\n",
    "about.json": b'{"key": "value"}',
    "annotation.xml": b'<?xml version="1.0"?><annotation/>',
    "paper.pdf": b"%PDF-1.7\n\x80\x81\x82\n",
    "table.xlsx": b"PK\x03\x04\x14\0\6\0[Content_Types].xml",
    "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(64),
    ".DS_Store": b"\0\0\0\1Bud1\0\0\x10\0",
}
UNKNOWN = {
    "animation.gif": b"GIF89a\1\0\1\0\0\0\0",
    "photo.webp": b"RIFF\0\0\0\0WEBPVP8 ",
    "bitmap.bmp": b"BM" + bytes(40),
    "page.jp2": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "noise.bin": bytes(range(256)),
    "missing.png": b"<html>404: the file that you asked for is not there</html>",
    "missing.nii.gz": gzip.compress(b"<html>404: the file that you asked for is not there</html>"),
}


@pytest.fixture
def folder(tmp_path: Path, image_spec: Callable[..., ImageSpec]) -> Path:
    """A folder with images of every kind, DICOM among them, and with all that lies about in such folders."""
    place = tmp_path / "tree"
    place.mkdir()
    for name, data in {**images(), **NOT_IMAGES, **UNKNOWN}.items():
        (place / name).write_bytes(data)
    (place / "x.png").write_bytes(records.sound_bytes(image_spec()))  # DICOM under another name
    (place / "empty.png").touch()
    (place / "._a.png").write_bytes(b"\0\5\x16\7" + bytes(40))
    return place


def test_every_kind_of_file_keeps_the_contract_of_sources(folder: Path) -> None:
    assert_image_source(image_source(str(folder), image_files=True), least=len(images()) - 2 + 2 * 3 + 1)


def test_what_lies_about_is_dropped_and_what_may_be_an_image_is_quarantined(folder: Path) -> None:
    source = image_source(str(folder), image_files=True)
    ends: dict[str, tuple[str, str]] = {}
    for entry in source.list():
        try:
            for part in source.split(entry):
                source.inspect(part)
        except Verdict as verdict:
            ends[entry.path.decode()] = (verdict.verdict, verdict.reason)
    assert ends == {
        **dict.fromkeys(NOT_IMAGES, ("dropped", "not_an_image")),
        **dict.fromkeys(UNKNOWN, ("quarantined", "unknown_format")),
        "empty.png": ("quarantined", "empty_file"),
        "._a.png": ("dropped", "apple_double"),
    }


def test_a_scan_opens_each_file_once_whatever_lies_in_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a file is what a scan waits for on a slow mount, and what a bucket is paid for."""
    opened, how = Counter[bytes](), FileTree.open

    def counted(tree: FileTree, path: bytes, size: int) -> Any:
        opened[path] += 1
        return how(tree, path, size)

    monkeypatch.setattr(FileTree, "open", counted)
    source, images = image_source(str(folder), image_files=True, frames="each"), 0
    for entry in source.list():
        images += len(scan_file(source, entry, Rules()).images)
    assert opened == Counter(each.name.encode() for each in folder.iterdir())
    assert images > len(opened)


def test_a_handle_that_has_gone_bad_is_opened_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS says of a file that was replaced on the server."""

    class Stale(BytesIO):
        def read(self, *size: Any) -> bytes:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    how, handles = FileTree.open, list[Any]()

    def first_stale(tree: FileTree, path: bytes, size: int) -> Any:
        handles.append(how(tree, path, size) if handles else Stale(b"x"))
        return handles[-1]

    monkeypatch.setattr(FileTree, "open", first_stale)
    source = image_source(str(folder), image_files=True)
    entry = Entry(b"a.png", (folder / "a.png").stat().st_size, "file")
    assert scan_file(source, entry, Rules()).unsure
    ((_, scanned),) = scan_file(source, entry, Rules()).images
    assert (scanned.verdict, len(handles)) == (None, 2)


@pytest.mark.parametrize("name", ["a.png", "noise.bin", "notes.md", "missing.nii.gz", "x.png"])
def test_no_file_stays_open_once_it_is_judged(folder: Path, name: str) -> None:
    source = image_source(str(folder), image_files=True)
    scan_file(source, Entry(name.encode(), (folder / name).stat().st_size, "file"), Rules())
    links = list(Path("/proc/self/fd").iterdir())
    assert folder / name not in {link.readlink() for link in links if os.path.lexists(link)}


def test_what_is_opened_once_is_not_taken_for_a_file_that_has_changed(folder: Path) -> None:
    source, place = image_source(str(folder), image_files=True), folder / "a.png"
    entry = Entry(b"a.png", place.stat().st_size, "file")
    source.split(entry)
    place.write_bytes(png(chest(rows=96), 8).ljust(entry.size, b"\0")[: entry.size])
    os.utime(place, ns=(1, 1))
    assert source.inspect(entry).height == 96


def test_without_being_asked_a_build_takes_dicom_only_and_says_how_to_take_the_rest(folder: Path) -> None:
    source = image_source(str(folder))
    for name in images():
        entry = Entry(name.encode(), (folder / name).stat().st_size, "file")
        assert [*source.split(entry)] == [entry]
        with pytest.raises(Quarantined, match=r"not_dicom.*--image-files|not_dicom.*gzip"):
            source.inspect(entry)
    source.inspect(Entry(b"x.png", (folder / "x.png").stat().st_size, "file"))


def test_a_file_that_a_table_names_is_taken_whatever_its_format(folder: Path) -> None:
    source = image_source(str(folder))
    for name in images():
        entry = Entry(name.encode(), (folder / name).stat().st_size, "file", facts=FactsRow(patient="P1"))
        parts = source.split(entry)
        assert len(parts) == (3 if ".nii" in name else 1)
        assert source.inspect(parts[0]).modality is None
    for name, data in {"Data_Entry.csv": NOT_IMAGES["Data_Entry.csv"]}.items():  # named as an image, it must be one
        with pytest.raises(Quarantined, match="unknown_format"):
            source.inspect(Entry(name.encode(), len(data), "file", facts=FactsRow()))


@pytest.mark.deep
def test_a_tree_of_every_kind_is_built_verified_and_counted(folder: Path, tmp_path: Path) -> None:
    private, out = tmp_path / "private", str(tmp_path / "out")
    options = {"bins": "auto:2", "workers": 1, "image_files": True, "min_side": 60, "max_quarantine": 1.0}
    outcome = build(BuildConfig.of(str(folder), out, private, **options))
    rows = parquet.read(private / ledger.NAME).to_pylist()
    written = {row["path"] for row in rows if row["verdict"] == "written"}
    same = {"g.nii#000", "g.nii#001", "g.nii#002", "h.nii.gz#000", "h.nii.gz#001", "h.nii.gz#002"}  # equal pixels
    assert len(written & same) == 3
    assert written - same == {*images(), "x.png"} - {"g.nii", "h.nii.gz"}
    assert outcome.samples == len(written)
    assert [*verify(out, True, 1)][:-1] == []
    store = Store(out)
    description, samples = contents.description(store), contents.samples(store).to_pylist()
    source = image_source(str(folder), image_files=True)
    expected = set()
    for entry in source.list():
        if entry.path.decode() in images() or entry.path == b"x.png":
            for part in source.split(entry):
                expected.add(source.load(part, source.read(part)).decode("full").pixels.tobytes())
    assert {contents.image(store, sample, description).tobytes() for sample in samples} == expected
    assert build(BuildConfig.of(str(folder), out, private, **options)).new_files == 0


@pytest.mark.parametrize("slices", ["axis=7", "from=a"])
def test_an_impossible_choice_of_slices_is_refused_before_anything_is_read(tmp_path: Path, slices: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ArgumentError, match="--slices must be like"):
        build(BuildConfig.of(str(tmp_path / "in"), str(tmp_path / "out"), tmp_path / "private", slices=slices))


KINDS = images()


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(KINDS)),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4),
    kept=st.floats(0, 1),
    text=st.binary(max_size=12),
)
def test_whatever_happens_to_a_file_it_has_an_image_of_its_size_or_a_verdict(
    tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[float, int]], kept: float, text: bytes
) -> None:
    data = bytearray(KINDS[name])
    for where, change in changes:
        data[int(where * len(data))] ^= change
    data = data[: max(1, int(kept * len(data)))] + text
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    source = image_source(str(folder), image_files=True)
    reasons = {*QUARANTINES, "not_grayscale", "multiframe", "not_integer_pixels", "not_in_collection", "empty_slice"}
    try:
        parts = source.split(Entry(name.encode(), len(data), "file"))
    except Verdict:
        parts = ()
    for part in parts or [Entry(name.encode(), len(data), "file")]:
        try:
            facts = source.inspect(part)
            found = source.load(part, bytes(data)).decode("full")
        except Verdict as verdict:  # what a header claims of colour, frames or kinds of numbers is believed
            ended = verdict.reason in reasons
        else:
            ended = found.pixels.shape == (facts.height, facts.width) and int(found.pixels.max()) < 1 << found.bits
        assert ended

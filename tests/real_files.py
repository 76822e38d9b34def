"""Fixtures of real files: where they lie beside the repository, their values, and one file's way to its verdict."""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.uid import ExplicitVRBigEndian

from shardkit.build.conversion import convert_file
from shardkit.build.converted import Converted
from shardkit.build.scan import Scanned, scan_entry
from shardkit.codecs.placement import Placement
from shardkit.config import Codec, Conversion, DatasetOptions, Rules, RunOptions
from shardkit.sources import image_source
from shardkit.sources.dicom import decoding
from shardkit.sources.dicom.frames import check_structure, frame
from shardkit.sources.dicom.reading import Header, PixelModule, pixel_module, read_header
from shardkit.sources.entries import Entry

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom"
LABELLED = REAL.with_name("labelled")
PNGS = {"nih/images": 120, "hannover/png": 243, "nih256/images": 857}  # folders of it, and how many images lie there
EVERY_MODALITY = ("CR", "DX", "MG", "PX", "IO", "RG", "OT", "CT", "XA", "RF", "MR", "NM")


@pytest.fixture(scope="session")
def real_dicom() -> Path:
    """The folder of real and hostile files. Skips only where it is absent; fails when it is incomplete."""
    if not REAL.is_dir() and not (os.environ.get("CI") and REAL.parents[1].is_dir()):
        pytest.skip("no ../shared/data/dicom beside the repository: the real DICOM files are not here")
    listing = REAL / "manifest.csv"
    if not listing.is_file():
        pytest.fail(f"{listing} is missing: the real DICOM files are incomplete")
    with listing.open(newline="") as file:
        missing = [row["file"] for row in csv.DictReader(file) if not (REAL / row["file"]).is_file()]
    if missing:
        pytest.fail(f"real DICOM files are missing: {missing}")
    return REAL


@pytest.fixture(scope="session")
def labelled() -> Path:
    """The folder of real labelled radiographs. Skips only where it is absent; fails when it is incomplete."""
    if not LABELLED.is_dir() and not (os.environ.get("CI") and LABELLED.parents[1].is_dir()):
        pytest.skip("no ../shared/data/labelled beside the repository: the real labelled images are not here")
    for folder, count in PNGS.items():
        assert len(list((LABELLED / folder).glob("*.png"))) == count, f"{LABELLED / folder} is incomplete"
    return LABELLED


@dataclass(frozen=True)
class Outcome:
    """What the scan, and the conversion where the scan lets a file pass, make of one file."""

    scanned: Scanned
    converted: Converted | None

    @property
    def verdict(self) -> str:
        return self.converted.verdict if self.converted else str(self.scanned.verdict)

    @property
    def reason(self) -> str:
        return self.converted.reason if self.converted else str(self.scanned.reason)

    @property
    def message(self) -> str:
        return str(self.converted.message if self.converted else self.scanned.message)


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """bytes -> Outcome, through scan_entry and convert_file (raw codec, every modality, unless told otherwise)."""
    folder = tmp_path_factory.mktemp("judged")

    usual = Rules(modalities=EVERY_MODALITY, max_side=6000)

    def run(data: bytes, rules: Rules = usual, codec: Codec = "raw", name: str = "file", **options: Any) -> Outcome:
        (folder / name).write_bytes(data)
        source = image_source(str(folder))
        entry = Entry(name.encode(), len(data), "file")
        scanned = scan_entry(source, entry, rules)
        if scanned.verdict is not None:
            return Outcome(scanned, None)
        dataset = DatasetOptions(codec=codec, rules=rules, **options)
        spec = Conversion(source=source, out="", dataset=dataset, run=RunOptions())
        placement = Placement(scanned.height, scanned.width, scanned.height, scanned.width)
        return Outcome(scanned, convert_file(spec, entry, placement))

    return run


@dataclass(frozen=True)
class Decoded:
    """A real file as far as its stored values."""

    header: Header
    facts: PixelModule
    samples: decoding.Samples
    repairs: tuple[str, ...]

    @property
    def raw(self) -> npt.NDArray[np.integer[Any]]:
        return self.samples.values


@pytest.fixture(scope="session")
def decoded(real_dicom: Path) -> Callable[[str], Decoded]:
    """Name of a real file -> its decoded values, each decoded once a session."""

    @functools.cache
    def load(name: str) -> Decoded:
        data = (real_dicom / name).read_bytes()
        header = read_header(BytesIO(data), len(data))
        facts = pixel_module(header.dataset)
        repairs = header.repairs + check_structure(header, facts)
        stream = frame(header, facts)
        if header.pixels is not None and header.pixels.length is not None:
            big = header.syntax == ExplicitVRBigEndian
            samples = decoding.native(stream, facts.rows, facts.cols, facts.bits_allocated, big)
        else:
            samples = decoding.decode(bytes(stream), header.syntax, header.dataset)
        return Decoded(header, facts, samples, repairs + samples.repairs)

    return load

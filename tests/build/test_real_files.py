"""Real DICOM files, sound, odd and hostile, against what their manifest expects of a build."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from shardkit.codecs import htj2k
from shardkit.dataset import contents
from shardkit.storage import Store

WRITTEN = ("written", None)

# What the manifest's sentences mean: (verdict, reason), reason None for any.
EXPECTED: dict[str, tuple[str, str | None]] = {
    "written": WRITTEN,
    "written (polarity flag) — near-duplicate of the inverse": WRITTEN,
    "written after repair, or quarantined:missing_transfer_syntax; PatientID missing": ("written", "ok_repaired"),
    "written or quarantined:uid_collision": WRITTEN,
    "dropped:modality_excluded (default) / written with XA allowed": ("dropped", "modality_excluded"),
    "dropped:modality_excluded (default)": ("dropped", "modality_excluded"),
    "dropped:modality_excluded; value check": ("dropped", "modality_excluded"),
    "dropped:modality_excluded / multiframe": ("dropped", "multiframe"),
    "dropped:not_an_image (SEG)": ("dropped", "not_an_image"),
    "dropped:dicomdir": ("dropped", "not_an_image"),
    "dropped:too_small (or written)": ("dropped", "too_small"),
    "quarantined:truncated (MR also modality_excluded)": ("quarantined", "truncated"),
    "duplicate": ("dropped", "duplicate_exact"),
}
# Judged otherwise than the manifest says, for a reason.
OURS: dict[str, tuple[str, str | None]] = {
    # Its modality is excluded before its frame is looked at.
    "nasty/j2k_embedded_delimiter.dcm": ("dropped", "modality_excluded"),
    # Once mended, it has the very pixels of its sound copy, which needed no repair.
    "radiographs/fuji_hip_RG2_JPLY_badSOS.dcm": ("dropped", "duplicate_exact"),
}
MODALITIES = ("CR", "DX", "MG", "PX", "IO", "RG", "XA", "OT", "CT", "RF", "NM")


def _expected(name: str, words: str) -> tuple[str | None, str | None]:
    """(verdict, reason) that a row of the manifest asks for; None for any."""
    if name in OURS:
        return OURS[name]
    if words in EXPECTED:
        return EXPECTED[words]
    if words.startswith("duplicate of"):
        return "dropped", "duplicate_exact"
    if words.startswith("near-duplicate"):
        return WRITTEN
    if words.startswith("value check"):  # none has a modality of the default
        return "dropped", "modality_excluded"
    if found := re.fullmatch(r"(dropped|quarantined):(\w+)(?: .*)?", words):
        return found[1], found[2]
    assert words == "repair or quarantine", words
    return None, None


@pytest.fixture(scope="module")
def real(bench: Any, real_dicom: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("real")
    return bench.build(real_dicom, place / "out", place / "private", workers=2, shard_bytes=4 << 20)


@pytest.fixture(scope="module")
def many_modalities(bench: Any, real_dicom: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("modalities")
    return bench.build(
        real_dicom, place / "out", place / "private", workers=2, shard_bytes=4 << 20, modalities=MODALITIES
    )


@pytest.fixture(scope="module")
def wanted(real_dicom: Path) -> dict[str, str]:
    with (real_dicom / "manifest.csv").open(newline="") as file:
        return {row["file"]: row["expected"] for row in csv.DictReader(file)}


def test_every_real_file_ends_as_its_manifest_expects(real: Any, wanted: dict[str, str]) -> None:
    rows = real.ledger()
    assert set(rows) == {*wanted, "README.md", "manifest.csv"}
    wrong = {}
    for name, words in wanted.items():
        verdict, reason = _expected(name, words)
        row = rows[name]
        if verdict not in (None, row["verdict"]) or reason not in (None, row["reason"]):
            wrong[name] = (words, row["verdict"], row["reason"], row["message"])
    assert wrong == {}
    assert rows["README.md"]["reason"] == rows["manifest.csv"]["reason"] == "not_dicom"


def test_every_level_of_every_written_file_is_exact_in_openjpeg_and_dali(real: Any, dali_pixels: Any) -> None:
    """From the bytes that a loader would fetch: the prefix of each level, cut out of the shard."""
    store, streams, wanted = Store(str(real.out)), [], []
    for row in real.samples():
        whole = htj2k.decode(store.get_range(row["shard"], row["offset"], row["length"]))
        for level, length in enumerate(row["level_bytes"]):
            prefix = store.get_range(row["shard"], row["offset"], length)
            streams.append(htj2k.standalone(prefix, level))
            wanted.append((row, level, htj2k.decode(prefix, level, row["bits"]) if level else whole))
    for stream, seen, (row, level, pixels) in zip(streams, dali_pixels(streams), wanted, strict=True):
        top = (1 << row["bits"]) - 1
        np.testing.assert_array_equal(np.minimum(seen, top), pixels, err_msg=f"DALI, {row['key']}, level {level}")
        openjpeg = np.minimum(imagecodecs.jpeg2k_decode(stream), top)
        np.testing.assert_array_equal(openjpeg, pixels, err_msg=f"OpenJPEG, {row['key']}, level {level}")


def test_duplicates_name_a_copy_of_the_same_image(real: Any, wanted: dict[str, str]) -> None:
    rows = real.ledger()
    by_key: dict[str, list[str]] = {}
    for name, row in rows.items():
        if row["key"]:
            by_key.setdefault(row["key"], []).append(name)
    groups = sorted(sorted(names) for names in by_key.values() if len(names) > 1)
    assert groups == [
        ["radiographs/fuji_hip_RG2_J2KR.dcm", "radiographs/fuji_hip_RG2_JPLL.dcm"],
        ["radiographs/fuji_hip_RG2_JPLY_badSOS.dcm", "radiographs/fuji_hip_RG2_JPLY_fixedSOS.dcm"],
        [f"radiographs/fuji_tibia_RG3_{name}.dcm" for name in ("J2KR", "JLSL", "RLE")],
        [f"syntaxes/XA1asCR_{name}.dcm" for name in ("deflated", "explicit_be", "explicit_le", "implicit_le")],
    ]
    assert rows["syntaxes/XA1asCR_explicit_le.dcm"]["verdict"] == "written"
    assert rows["radiographs/fuji_hip_RG2_JPLY_badSOS.dcm"]["repairs"] == ["jpeg_sos"]
    assert rows["radiographs/fuji_hip_RG2_JPLY_fixedSOS.dcm"]["repairs"] in (None, [])


def test_lossy_copies_form_one_group_in_one_split(real: Any, wanted: dict[str, str]) -> None:
    rows, samples = real.ledger(), {row["key"]: row for row in real.samples()}
    for start, at_least in (("radiographs/fuji_hip_RG2", 4), ("radiographs/fuji_tibia_RG3", 4)):
        found = [r for name, r in rows.items() if name.startswith(start) and r["verdict"] == "written"]
        assert len(found) >= at_least
        assert all("near_duplicate" in row["flags"] for row in found)
        assert len({samples[row["key"]]["group"] for row in found}) == 1
        assert len({samples[row["key"]]["split"] for row in found}) == 1


def test_a_lying_photometric_tag_is_flagged(real: Any) -> None:
    rows = real.ledger()
    assert "polarity_suspect" in rows["radiographs/nih_chest_8bit_jpeg_fakeM1.dcm"]["flags"]
    for name in ("native", "jpeg_M2"):
        assert "polarity_suspect" not in rows[f"radiographs/nih_chest_8bit_{name}.dcm"]["flags"]


def test_what_can_be_repaired_is_and_says_so(real: Any) -> None:
    row = real.ledger()["radiographs/fuji_chest_10bit_M1_nopreamble"]
    assert "assumed_ts" in row["repairs"]
    assert "missing_patient_id" in row["flags"]


def test_more_modalities_take_in_their_files_and_nothing_else(
    real: Any, many_modalities: Any, wanted: dict[str, str]
) -> None:
    before, after = real.ledger(), many_modalities.ledger()
    changed = {
        name: (after[name]["verdict"], after[name]["reason"])
        for name in after
        if after[name]["verdict"] != before[name]["verdict"] or after[name]["reason"] != before[name]["reason"]
    }
    assert set(changed) == {n for n, row in before.items() if row["reason"] == "modality_excluded"} - {
        n for n, row in after.items() if row["reason"] == "modality_excluded"
    }
    assert changed["nasty/j2k_embedded_delimiter.dcm"] == ("quarantined", "decode_error")
    for name in ("radiographs/angio_XA1_J2KR.dcm", "radiographs/fluoro_RF_modalityLUT.dcm"):
        assert changed[name] == ("written", "ok")
    assert changed["radiographs/colon_contrast_OT_nometa.dcm"] == ("written", "ok_repaired")


def test_written_values_are_those_that_pydicom_gives(many_modalities: Any, real_dicom: Path) -> None:
    """Native and lossless files: raw values, through a Modality LUT where there is one, in MONOCHROME2 sense."""
    rows, samples = many_modalities.ledger(), {row["key"]: row for row in many_modalities.samples()}
    checked = []
    for name, row in rows.items():
        if row["verdict"] != "written":
            continue
        sample = samples[row["key"]]
        if sample["lossy"] or row["repairs"]:
            continue
        source = pydicom.dcmread(real_dicom / name)
        values = pixel_array(source, raw=True).astype(np.int64)
        if "ModalityLUTSequence" in source:
            values = apply_modality_lut(values, source).astype(np.int64)
        elif source.PixelRepresentation:
            continue  # shifted to be unsigned: tested with the reader
        pixels = contents.image(many_modalities.store, sample, many_modalities.description).astype(np.int64)
        if source.PhotometricInterpretation == "MONOCHROME1":
            values = (1 << sample["bits"]) - 1 - values
        np.testing.assert_array_equal(pixels, values, err_msg=name)
        checked.append(name)
    assert len(checked) >= 8

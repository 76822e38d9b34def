"""NIfTI volumes: slices as nibabel has them, turned as viewers show them; what is no whole number has a verdict."""

from __future__ import annotations

import gzip
import itertools
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from shardkit.errors import ArgumentError, Dropped, Quarantined, Verdict
from shardkit.privacy import Stated
from shardkit.sources import FileTree, image_source
from shardkit.sources.entries import Entry
from shardkit.sources.images import nifti, slices

SHAPE = (7, 9, 5)
AS_STORED = np.diag([-1.0, -1.0, 1.0, 1.0])  # as BraTS: columns from right to left, rows from front to back


def written(
    values: npt.NDArray[Any], affine: npt.NDArray[np.float64] = AS_STORED, packed: bool = False, **header: Any
) -> bytes:
    """Return a NIfTI file as nibabel writes it; `header` are fields that it would not write."""
    image = nibabel.Nifti1Image(values, affine)
    data = bytearray(image.to_bytes())
    for name, value in header.items():
        field = nibabel.Nifti1Header.template_dtype.fields[name]  # type: ignore[index]
        data[field[1] : field[1] + field[0].itemsize] = np.array(value, field[0].base).tobytes()
    return gzip.compress(bytes(data), mtime=0) if packed else bytes(data)


def volume(kind: Any = np.int16, top: int = 3000, seed: int = 0) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(0, top + 1, SHAPE).astype(kind)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_every_slice_has_the_stored_values(look: Any, kind: Any, packed: bool) -> None:
    values = volume(kind, 250 if kind is np.uint8 else 3000)
    data = written(values, packed=packed)
    assert look.parts(data) == list(range(SHAPE[2]))
    for part in range(SHAPE[2]):
        told, found = look(data, part=part)
        assert np.array_equal(found.pixels, values[:, :, part].T)
        assert (told.height, told.width) == (SHAPE[1], SHAPE[0])
        assert found.bits == int(values.max()).bit_length()  # of the whole volume
        assert found.flags == ("bits_by_evidence",)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_turned_as_viewers_show_them_however_they_are_stored(look: Any, axis: int) -> None:
    values = volume()
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, list(order)] * signs
            image = nibabel.Nifti1Image(values, affine)
            canonical = np.asarray(nibabel.as_closest_canonical(image).dataobj)
            world = order[axis]
            part = 1
            there = part if signs[axis] > 0 else SHAPE[axis] - 1 - part
            _, found = look(written(values, affine), part=part, slices=f"axis={axis}")
            # Numbers grow to the right, front and top; rows and columns the other way.
            assert np.array_equal(found.pixels, canonical.take(there, world).T[::-1, ::-1]), (order, signs)


def test_a_volume_without_orientation_is_turned_as_nibabel_reads_it(look: Any) -> None:
    values = volume()
    data = written(values, qform_code=0, sform_code=0)
    affine = nibabel.Nifti1Image.from_bytes(data).affine
    assert nibabel.aff2axcodes(affine) == ("L", "A", "S")
    _, found = look(data, part=2)
    assert np.array_equal(found.pixels, values[:, :, 2].T[::-1])
    _, found = look(written(values, qform_code=0, sform_code=1, srow_x=[0, 0, 0, 0]), part=2)  # no orientation at all
    assert np.array_equal(found.pixels, values[:, :, 2].T[::-1])


def test_spacing_is_that_of_rows_and_columns_in_millimetres(look: Any, tmp_path: Path) -> None:
    for unit, factor in ((2, 1.0), (1, 1000.0), (3, 0.001), (0, 1.0)):
        data = written(volume(), np.diag([0.5, 0.8, 2.0, 1.0]), xyzt_units=unit)
        stated = stated_of(tmp_path, data, 0)
        assert stated.pixel_spacing == pytest.approx((0.8 * factor, 0.5 * factor))
        assert stated_of(tmp_path, data, 0, axis=0).pixel_spacing == pytest.approx((2.0 * factor, 0.8 * factor))
    assert stated_of(tmp_path, written(volume(), pixdim=[1, 0, np.nan, 1, 0, 0, 0, 0]), 0).pixel_spacing is None


def stated_of(folder: Path, data: bytes, part: int, axis: int = 2) -> Stated:
    (folder / "v.nii").write_bytes(data)
    source = image_source(str(folder), image_files=True, slices=f"axis={axis}")
    return source.load(Entry(b"v.nii", len(data), "file").at(part), data).stated


@pytest.mark.parametrize(
    ("slope", "intercept", "inverted", "kept"),
    [
        (2.5, -1024.0, False, ((2.5,), (-1024.0,))),
        (-1.0, 0.0, True, ((-1.0,), (0.0,))),
        (0.0, 7.0, False, (None, None)),
    ],
)
def test_slope_and_intercept_are_facts_beside_the_stored_values(
    look: Any, tmp_path: Path, slope: float, intercept: float, inverted: bool, kept: Any
) -> None:
    values = volume()
    data = written(values, scl_slope=slope, scl_inter=intercept)
    told, found = look(data, part=1)
    plane = values[:, :, 1].T
    assert np.array_equal(found.pixels, 4095 - plane if inverted else plane)
    assert (found.inverted, told.photometric) == (inverted, "MONOCHROME1" if inverted else "MONOCHROME2")
    stated = stated_of(tmp_path, data, 1)
    assert (stated.slope, stated.intercept) == kept


def test_values_below_zero_are_shifted_by_half_of_the_range_as_those_of_dicom(look: Any) -> None:
    values = volume() - 1024
    told, found = look(written(values), part=3)
    assert (told.signed, found.bits) == (True, 12)
    assert np.array_equal(found.pixels, values[:, :, 3].T + 2048)
    _, found = look(written(volume(np.float32) - 1024), part=3)
    assert np.array_equal(found.pixels, values[:, :, 3].T + 2048)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (volume(np.float32) + np.float32(0.5), "not_integer_pixels"),
        (np.where(volume() > 2000, np.nan, 1.0), "not_integer_pixels"),
        (np.where(volume() > 2000, np.inf, 1.0), "not_integer_pixels"),
        (volume(np.complex64), "not_integer_pixels"),
        (volume(np.int32, 70_000), "bad_value"),
        (volume(np.int32, 60_000) - 10_000, "bad_value"),
        (np.stack([volume()] * 3, -1), "multiframe"),
        (volume(np.uint8).view([("R", "u1")]), ""),
    ],
)
def test_values_that_are_no_image_of_16_bits_get_a_verdict(look: Any, values: Any, reason: str) -> None:
    if not reason:  # colours, three bytes each
        colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
        values, reason = colours, "not_grayscale"
    with pytest.raises(Verdict) as caught:
        look(written(values), part=1)
    assert caught.value.reason == reason


def test_a_slice_without_anything_in_it_is_dropped_and_its_neighbours_are_not(look: Any) -> None:
    values = volume()
    values[:, :, 2] = 7
    data = written(values, packed=True)
    with pytest.raises(Dropped, match="empty_slice"):
        look(data, part=2)
    assert np.array_equal(look(data, part=1)[1].pixels, values[:, :, 1].T)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_cut_or_damaged_is_quarantined(look: Any, packed: bool) -> None:
    data = written(volume(), packed=packed)
    for kept in (0, 1, 20, 340, len(data) // 2, len(data) - 1):
        with pytest.raises(Quarantined):
            look(data[:kept], name="x.nii.gz" if packed else "x.nii", part=0)
    if packed:
        with pytest.raises(Quarantined, match="decode_error"):
            look(data[:-6] + bytes([data[-6] ^ 1]) + data[-5:], part=0)  # its checksum


def test_the_checksum_counts_whatever_lies_behind_the_pixels(look: Any) -> None:
    values = volume()
    plain = written(values)
    longer = gzip.compress(plain + bytes(3_000_000), mtime=0)
    several = gzip.compress(plain[:500]) + gzip.compress(plain[500:900]) + gzip.compress(plain[900:])
    for data in (longer, several):
        assert np.array_equal(look(data, part=1)[1].pixels, values[:, :, 1].T)
        with pytest.raises(Quarantined, match="decode_error"):
            look(data[:-6] + bytes([data[-6] ^ 1]) + data[-5:], part=1)
        with pytest.raises(Quarantined):
            look(data[:-9], part=1)


def test_a_claim_that_no_bytes_hold_is_told_before_memory_is_taken(look: Any) -> None:
    dims = [3, 30_000, 30_000, 1_000, 1, 1, 1, 1]
    for packed, reason in ((False, "truncated"), (True, "size_mismatch")):
        with pytest.raises(Quarantined, match=reason):
            look(written(volume(), dim=dims, packed=packed), part=0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_of_bytes_and_the_second_version_are_read(look: Any, order: Any) -> None:
    values = volume().astype(f"{order}i2")
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        header = kind.header_class(endianness=order)
        header.set_data_dtype(values.dtype)
        image = kind(values, AS_STORED, header)
        assert image.to_bytes()[:1] == (b"\0" if order == ">" else image.to_bytes()[:1])
        assert np.array_equal(look(image.to_bytes(), part=1)[1].pixels, values[:, :, 1].T)


def test_a_volume_of_one_slice_is_one_image(look: Any) -> None:
    values = volume()[:, :, :1]
    assert look.parts(written(values)) == [None]
    assert np.array_equal(look(written(values))[1].pixels, values[:, :, 0].T)
    flat = nibabel.Nifti1Image(volume()[:, :, 0], AS_STORED).to_bytes()
    assert np.array_equal(look(flat)[1].pixels, values[:, :, 0].T)


def test_the_header_of_a_pair_says_what_to_do(look: Any) -> None:
    with pytest.raises(Quarantined, match=r"unknown_format.*make one \.nii"):
        look(written(volume(), magic=b"ni1\0"), part=0)


@pytest.mark.parametrize(
    ("option", "taken"),
    [
        ("axis=2", [0, 1, 2, 3, 4]),
        ("axis=2,from=1,to=4", [1, 2, 3]),
        ("from=1,step=2", [1, 3]),
        ("axis=1,to=3", [0, 1, 2]),
        ("axis=0,from=6,to=1000", [6]),
        ("axis=2,from=5", [None]),  # none: the file has a verdict of its own
    ],
)
def test_slices_are_those_that_the_option_names(look: Any, option: str, taken: list[int | None]) -> None:
    data = written(volume())
    assert look.parts(data, slices=option) == taken
    if taken == [None]:
        with pytest.raises(Dropped, match="not_in_collection"):
            look(data, slices=option)


@pytest.mark.parametrize("option", ["", "axis=3", "axis=-1", "step=0", "from=4,to=4", "axis", "axis=1,axis=2", "up=1"])
def test_an_option_that_cannot_be_meant_is_refused_with_its_form(option: str) -> None:
    with pytest.raises(ArgumentError, match="--slices must be like axis=2"):
        slices.parse(option)


def test_slices_of_a_volume_are_of_one_study_unless_a_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "v.nii").write_bytes(written(volume()))
    source = image_source(str(tmp_path), image_files=True)
    (entry,) = source.list()
    assert len({source.inspect(part).identity.study for part in source.split(entry)}) == 1
    assert source.inspect(source.split(entry)[0]).identity.study


def test_a_volume_is_inflated_once_for_all_its_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inflate = Mock(wraps=nifti._inflated)
    monkeypatch.setattr(nifti, "_inflated", inflate)
    source = image_source(str(tmp_path), image_files=True)
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_bytes(written(volume(seed=len(name)), packed=True))
    for entry in source.list():
        for part in source.split(entry):
            source.load(part, source.read(part)).decode("full")
    assert inflate.call_count == 2


def test_a_file_is_opened_once_to_list_its_slices_and_to_look_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.nii").write_bytes(written(volume(seed=77)))
    source = image_source(str(tmp_path), image_files=True)
    (entry,) = source.list()
    opened = Mock(side_effect=FileTree(str(tmp_path)).open)
    monkeypatch.setattr(FileTree, "open", opened)
    for part in source.split(entry):
        source.inspect(part)
    assert opened.call_count == 1


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    source, path = image_source(str(tmp_path), image_files=True), tmp_path / "a.nii"
    seen = []
    for seed in (1, 2):
        path.write_bytes(written(volume(seed=seed)))
        (entry,) = source.list()
        part = source.split(entry)[0]
        seen.append(source.load(part, source.read(part)).decode("full").pixels)
        time.sleep(0.02)  # the clock of a file system ticks
    assert not np.array_equal(seen[0], seen[1])

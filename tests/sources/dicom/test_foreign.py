"""Archives are named and their remedy; what macOS leaves is dropped, and nothing that only has such a name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from shardkit.config import Rules
from shardkit.synthetic import corruptions, records


def _tar(data: bytes, form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        info = tarfile.TarInfo("IM0001.dcm")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _zip(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("IM0001.dcm", data)
    return out.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "tar": lambda data: _tar(data, tarfile.GNU_FORMAT),
    "pax tar": lambda data: _tar(data, tarfile.PAX_FORMAT),
    "zip": _zip,
    "7z": lambda data: b"7z\xbc\xaf\x27\x1c\x00\x04" + data,
    "RAR": lambda data: b"Rar!\x1a\x07\x01\x00" + data,
    "Zstandard": lambda data: b"\x28\xb5\x2f\xfd" + data,
}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_files_are_named_and_are_to_be_unpacked(judge: Any, image_spec: Any, kind: str) -> None:
    outcome = judge(PACKED[kind](records.sound_bytes(image_spec())), Rules())
    assert (outcome.verdict, outcome.reason) == ("quarantined", "not_dicom")
    assert kind.removeprefix("pax ") in outcome.message
    assert "unpack" in outcome.message


def test_a_file_of_macos_is_dropped_by_name_and_bytes_together(judge: Any, image_spec: Any) -> None:
    apple, image = corruptions.apple_double(image_spec()), records.sound_bytes(image_spec())
    assert judge(apple, Rules(), name="._IM1").reason == "apple_double"
    assert judge(apple, Rules(), name="IM1").reason == "not_dicom"
    assert judge(b"text", Rules(), name="._notes").reason == "not_dicom"
    assert judge(b"", Rules(), name="._empty").reason == "empty_file"
    assert judge(image, Rules(), name="._IM2").verdict == "written"

"""What is wrong with a dataset is found and named, whatever the format of its shards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shardkit.dataset import contents, manifest
from shardkit.dataset.verify import Summary, verify
from shardkit.errors import IntegrityError
from shardkit.formats import form_of, listing
from shardkit.storage import Store


@pytest.mark.formats
def test_a_sound_dataset_has_no_problems_and_every_byte_is_counted(look: Any, place: Path) -> None:
    *problems, summary = verify(str(place), True, 2)
    assert problems == []
    assert isinstance(summary, Summary)
    assert summary.samples == len(look.rows(place))
    store = Store(str(place))
    assert summary.bytes == sum(size for _, size in listing(store, form_of(contents.description(store))))


@pytest.mark.formats
@pytest.mark.parametrize("where", ["start", "middle", "end"])
@pytest.mark.parametrize("decode", [False, True])
def test_a_flipped_byte_is_found_in_its_member(look: Any, copy: Path, where: str, decode: bool) -> None:
    name, rows = look.fullest(copy)
    row = rows[1]
    at = row["offset"] + {"start": 60, "middle": row["length"] // 2, "end": row["length"] - 1}[where]
    data = bytearray((copy / name).read_bytes())
    data[at] ^= 1
    (copy / name).write_bytes(data)
    problems = look.problems(copy, decode)
    assert len(problems) == 1
    assert name in problems[0]
    assert row["key"] in problems[0]


@pytest.mark.formats
def test_missing_and_extra_shards_are_named(look: Any, copy: Path) -> None:
    name, _ = look.fullest(copy)
    other = form_of(contents.description(Store(str(copy)))).objects("shards/0480x0480/99999", 0)[0]
    (copy / other).parent.mkdir(parents=True)
    (copy / name).rename(copy / other)
    problems = look.problems(copy)
    assert sorted(p.partition(":")[0] for p in problems) == sorted([name, other])


@pytest.mark.formats
def test_an_edited_manifest_is_refused(look: Any, copy: Path) -> None:
    store = Store(str(copy))
    table = contents.samples(store)
    index = table.schema.get_field_index("bits")
    manifest.write(table.set_column(index, "bits", pa.array([3] * table.num_rows, pa.int8())), store)
    with pytest.raises(IntegrityError, match=r"manifest\.parquet"):
        look.problems(copy)


@pytest.mark.formats
def test_journals_of_an_unfinished_build_are_named(look: Any, copy: Path) -> None:
    Store(str(copy)).put(".build/g001/x.parquet", b"x")
    assert any("unfinished build" in p for p in look.problems(copy))


def test_verifying_needs_neither_a_reader_of_dicom_nor_a_loader() -> None:
    code = (
        "import sys; import shardkit.dataset.verify; "
        "print([m for m in ('pydicom', 'pylibjpeg', 'torch', 'nvidia') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

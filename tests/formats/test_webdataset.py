"""Shards are plain tars that other tools read; what is wrong with one is found and named."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit.dataset import contents
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import IntegrityError
from shardkit.formats import webdataset as shards
from shardkit.storage import Store

# ---- writing


def test_the_same_samples_give_the_same_bytes_and_the_offsets_point_at_them(tmp_path: Path) -> None:
    images = {"a": b"x" * 511, "b": b"y" * 512, "c": b"", "d": b"z" * 513}
    for name in ("one", "two"):
        with shards.ShardWriter(tmp_path / name) as writer:
            offsets = {
                key: writer.add(key, "j2c", image, json.dumps({"k": key}).encode()) for key, image in images.items()
            }
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    assert {key: data[at : at + len(images[key])] for key, at in offsets.items()} == images


def test_a_rewrite_leaves_out_samples_and_tells_the_new_offsets(tmp_path: Path) -> None:
    with shards.ShardWriter(tmp_path / "old") as writer:
        for key in "abc":
            writer.add(key, "j2c", key.encode() * 700, json.dumps({"k": key}).encode())
    kept: Any = [{"key": key, "json_hash": fingerprint(json.dumps({"k": key}).encode())} for key in "ac"]
    offsets = shards.rewrite([tmp_path / "old"], [tmp_path / "new"], kept, 0)
    data = (tmp_path / "new").read_bytes()
    assert [data[at : at + 700] for at in offsets] == [b"a" * 700, b"c" * 700]
    with pytest.raises(IntegrityError, match="lost"):
        shards.rewrite([tmp_path / "old"], [tmp_path / "other"], kept[::-1], 0)
    with shards.ShardWriter(tmp_path / "direct") as writer:
        for key in "ac":
            writer.add(key, "j2c", key.encode() * 700, json.dumps({"k": key}).encode())
    assert data == (tmp_path / "direct").read_bytes()


@pytest.mark.parametrize("length", [0, 1, 600, 1300])
def test_a_damaged_tar_is_named_and_no_partial_member_comes_out(tmp_path: Path, length: int) -> None:
    with shards.ShardWriter(tmp_path / "x.tar") as writer:
        writer.add("a", "j2c", b"q" * 1000, b"{}")
    data = (tmp_path / "x.tar").read_bytes()[:length]
    with pytest.raises(IntegrityError, match=r"x\.tar"):
        list(shards.members(io.BytesIO(data), "x.tar"))


# ---- readers that are not ours


@pytest.mark.needs(tar="tar")
def test_tar_lists_an_image_and_its_json_for_every_sample(look: Any, place: Path) -> None:
    for name, rows in look.by_shard(place).items():
        listed = subprocess.run(["tar", "tf", place / name], capture_output=True, text=True, check=True).stdout
        assert listed.splitlines() == [f"{row['key']}.{end}" for row in rows for end in ("j2c", "json")]


def test_webdataset_reads_every_sample_whole(look: Any, place: Path) -> None:
    import webdataset

    urls = [str(place / name) for name in look.by_shard(place)]
    found = {s["__key__"]: s for s in webdataset.WebDataset(urls, shardshuffle=False)}
    rows = {row["key"]: row for row in look.rows(place)}
    assert found.keys() == rows.keys()
    for key, sample in found.items():
        assert {name for name in sample if not name.startswith("__")} == {"j2c", "json"}
        assert len(sample["j2c"]) == rows[key]["length"]
        facts = json.loads(sample["json"])
        assert (facts["height"], facts["width"], facts["bits"]) == tuple(
            rows[key][k] for k in ("height", "width", "bits")
        )


def test_dali_reads_and_decodes_the_exact_pixels_on_the_cpu(look: Any, place: Path) -> None:
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def  # type: ignore[untyped-decorator]
    def pipe(path: str) -> Any:
        encoded = fn.readers.webdataset(paths=path, ext=["j2c"], missing_component_behavior="error")
        return fn.decoders.image(encoded, device="cpu", output_type=types.ANY_DATA, dtype=types.UINT16)

    store = Store(str(place))
    for name, rows in list(look.by_shard(place).items())[:2]:
        run = pipe(path=str(place / name), batch_size=len(rows), num_threads=2, device_id=None)
        run.build()
        (images,) = run.run()
        for row, image in zip(rows, images, strict=True):
            np.testing.assert_array_equal(
                np.asarray(image)[..., 0], contents.image(store, row, contents.description(store))
            )


# ---- verify


def _rebuilt(path: Path, change: Callable[[tarfile.TarInfo, bytes], bytes | None]) -> None:
    """Write a tar again with members changed, or left out for None."""
    with tarfile.open(path) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in members:
            new = change(info, data)
            if new is not None:
                info.size = len(new)
                tar.addfile(info, io.BytesIO(new))


def test_a_truncated_shard_is_found_with_the_members_it_lost(look: Any, copy: Path) -> None:
    name, rows = look.fullest(copy)
    last = rows[-1]
    (copy / name).write_bytes((copy / name).read_bytes()[: last["offset"] + last["length"] // 2])
    problems = " ".join(look.problems(copy))
    assert name in problems
    assert f"{last['key']}.j2c" in problems
    assert f"{last['key']}.json" in problems
    assert f"{rows[0]['key']}.j2c" not in problems


def test_missing_and_extra_members_are_named(look: Any, copy: Path) -> None:
    name, rows = look.fullest(copy)
    lost = f"{rows[-1]['key']}.json"
    _rebuilt(copy / name, lambda info, data: None if info.name == lost else data)
    problems = look.problems(copy)
    assert len(problems) == 1
    assert lost in problems[0]
    with tarfile.open(copy / name, "a") as tar:
        info = tarfile.TarInfo("stranger.j2c")
        tar.addfile(info, io.BytesIO(b""))
    assert any("stranger.j2c" in p for p in look.problems(copy))


def test_an_edited_json_member_is_found(look: Any, copy: Path) -> None:
    name, rows = look.fullest(copy)
    edited = f"{rows[0]['key']}.json"

    def edit(info: tarfile.TarInfo, data: bytes) -> bytes:
        return data.replace(b'"bits":', b'"Bits":') if info.name == edited else data

    _rebuilt(copy / name, edit)
    problems = look.problems(copy)
    assert problems, "an edited JSON member passes as sound"
    assert edited in problems[0]

"""Unreadable samples and faulty stores: the same layout goes on, by the plan's rule, or one named error ends it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit import Binned, Exact, Loader, Packed
from shardkit.errors import BadDataError, ShardkitError
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.testing.faults import FAULTS, FaultStore

SMALL: dict[str, Any] = {"split": None, "device": "cpu", "seed": 2, "window": 8, "normalise": "none"}
PACKED = Packed(tokens=512, patch=16, per_step=2)
BINNED = Binned(batch_size=3, patch=16, per_step=2)


@pytest.fixture
def damaged(dataset_folder: Path, tmp_path: Path) -> tuple[Path, int]:
    """A copy of the dataset with one byte of one image changed; and its row."""
    folder = tmp_path / "damaged"
    shutil.copytree(dataset_folder, folder)
    row = ManifestIndex(str(folder)).rows // 2
    detail = ManifestIndex(str(folder)).detail(row)
    path = folder / detail.shard.shard
    data = bytearray(path.read_bytes())
    data[detail.start(0) + detail.prefix(0) // 2] ^= 1
    path.write_bytes(bytes(data))
    return folder, row


@pytest.mark.formats
@pytest.mark.parametrize("batching", [PACKED, BINNED], ids=str)
def test_a_damaged_image_is_replaced_by_another_of_its_batch_and_logged(
    damaged: tuple[Path, int], dataset_folder: Path, batching: Any, decoder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder, bad = damaged
    sound = list(Loader(dataset_folder, batching=batching, **SMALL))
    found = list(Loader(folder, batching=batching, max_bad=0.5, decoder=decoder, **SMALL))
    assert len(found) == len(sound)
    for want, got in zip(sound, found, strict=True):
        wanted, rows = want.rows.tolist(), got.rows.tolist()
        name = "patches" if "patches" in want else "images"
        assert want[name].shape == got[name].shape
        if bad not in wanted:
            assert rows == wanted
            np.testing.assert_array_equal(want[name].numpy(), got[name].numpy())
            continue
        assert bad not in rows
        assert len(rows) == len(wanted)
        assert set(rows) <= set(wanted)
    key = ManifestIndex(str(folder)).detail(bad).key
    assert any(key in record.message and "in its place" in record.message for record in caplog.records)


def test_alone_in_its_batch_a_damaged_image_leaves_a_place_of_weight_0(damaged: tuple[Path, int]) -> None:
    folder, _ = damaged
    empty = [b for b in Loader(folder, batching=Exact(patch=16, per_step=1), max_bad=0.5, **SMALL) if b.rows[0] < 0]
    assert len(empty) == 1
    assert empty[0].weight.tolist() == [0.0]
    assert float(empty[0]["images"].abs().sum()) == 0.0


@pytest.mark.formats
def test_more_bad_samples_than_allowed_end_the_run_by_name(damaged: tuple[Path, int]) -> None:
    folder, bad = damaged
    detail = ManifestIndex(str(folder)).detail(bad)
    with pytest.raises(BadDataError) as caught:
        list(Loader(folder, batching=PACKED, max_bad=0.0, **SMALL))
    for word in (detail.key, detail.shard.shard, f"{detail.start(0):,}", "max_bad", "verify"):
        assert word in str(caught.value)


def test_one_bad_sample_does_not_stop_a_small_dataset(damaged: tuple[Path, int]) -> None:
    folder, _ = damaged
    loader = Loader(folder, batching=PACKED, **SMALL)
    assert len(list(loader)) == len(loader)
    assert loader.stats()["bad"] == 1


@pytest.mark.deep
def test_a_store_that_hangs_for_good_does_not_keep_the_process(dataset_folder: Path) -> None:
    """Opening a shard never returns, as on a dead network mount."""
    script = (
        "import sys, time; from shardkit import Loader, Packed; from shardkit.loader.stream import files\n"
        "files.descriptor = lambda *file: time.sleep(3600)\n"
        "loader = Loader(sys.argv[1], batching=Packed(tokens=512, patch=16, per_step=2), split=None, device='cpu',"
        " deadline=0.5)\n"
        "list(loader)"
    )
    command = [sys.executable, "-c", script, str(dataset_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no answer in time" in done.stderr


def test_a_replacement_is_the_same_on_any_world_size(damaged: tuple[Path, int]) -> None:
    folder, _ = damaged
    rows = []
    for world in (1, 2):
        batches = [
            b
            for rank in range(world)
            for b in Loader(folder, batching=PACKED, max_bad=0.5, rank=rank, world_size=world, **SMALL)
        ]
        rows.append(sorted((b.position.step, b.position.micro, *b.rows.tolist()) for b in batches))
    assert rows[0] == rows[1]


@pytest.mark.formats
def test_a_stream_that_is_sound_and_undecodable_costs_one_image(
    dataset_folder: Path, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hash is right, and the decoder refuses all the same: as when a library changes."""
    from shardkit.codecs import htj2k

    loader = Loader(dataset_folder, batching=PACKED, max_bad=0.5, decoder=decoder, **SMALL)
    micros = [micro for step in loader.plan for micro in step]
    row = next(int(m.crops.row[i]) for m in micros for i in range(len(m.crops)) if m.substitutes(i))
    whole = ManifestIndex(str(dataset_folder)).detail(row).prefix(0)
    original = htj2k.standalone

    def broken(data: bytes, level: int) -> bytes:
        return data[:100] if len(data) == whole else original(data, level)

    codec = loader._config.members[0].codec

    class Refusing:
        @staticmethod
        def decode(data: bytes, level: int, bits: int, frame: Any) -> Any:
            return codec.decode(data[:100] if len(data) == whole else data, level, bits, frame)

    if decoder == "dali":
        monkeypatch.setattr(htj2k, "standalone", broken)
    else:
        object.__setattr__(loader._config.members[0], "codec", Refusing)
    rows = [r for batch in loader for r in batch.rows.tolist() if r >= 0]
    assert loader.stats()["bad"] == 1
    assert row not in rows
    assert len(rows) == ManifestIndex(str(dataset_folder)).rows


@pytest.mark.formats
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.deep) if kind == "stall" else kind for kind in FAULTS]
)
def test_every_passing_fault_of_a_store_is_survived(dataset_folder: Path, kind: str, images_of: Any) -> None:
    faults: list[FaultStore] = []

    def wrap(reader: Any) -> FaultStore:
        # Wrong bytes are read once more and no oftener: a range that is wrong twice is a bad sample.
        faults.append(FaultStore(reader, seed=5, rate=0.2, kinds=[kind], times=1 if kind == "wrong" else None))
        return faults[-1]

    calm = images_of(Loader(dataset_folder, batching=PACKED, **SMALL))
    # Of a read without an answer half the deadline is waited: long enough for a busy machine, short enough for a test.
    deadline = 7.0 if kind == "stall" else 60.0
    loader = Loader(dataset_folder, batching=PACKED, wrap=wrap, deadline=deadline, attempts=6, **SMALL)
    stormy = images_of(loader)
    assert faults[0].counts[kind] > 0
    assert sorted(stormy) == sorted(calm)
    for row, image in calm.items():
        np.testing.assert_array_equal(stormy[row], image)


@pytest.mark.formats
@pytest.mark.parametrize("kind", FAULTS)
def test_a_store_that_never_recovers_ends_in_a_named_error_in_bounded_time(dataset_folder: Path, kind: str) -> None:
    loader = Loader(
        dataset_folder,
        batching=PACKED,
        wrap=lambda reader: FaultStore(reader, rate=1.0, kinds=[kind], persistent=True),
        deadline=1.0,
        attempts=3,
        **SMALL,
    )
    begun = time.monotonic()
    with pytest.raises(ShardkitError, match=r"shards/.*tar|pixels/c/"):
        list(loader)
    assert time.monotonic() - begun < 20


@pytest.mark.formats
def test_a_cached_copy_that_went_bad_is_fetched_again(dataset_folder: Path, tmp_path: Path, images_of: Any) -> None:
    arguments: dict[str, Any] = {"batching": PACKED, "cache": tmp_path / "cache", "cache_bytes": 1 << 30, **SMALL}
    first = images_of(Loader(dataset_folder, **arguments))
    for copy in (tmp_path / "cache").rglob("shard"):
        data = bytearray(copy.read_bytes())
        data[len(data) // 3] ^= 255
        copy.chmod(0o644)
        copy.write_bytes(bytes(data))
    loader = Loader(dataset_folder, **arguments)
    again = images_of(loader)
    assert loader.stats()["refetched"] > 0
    assert loader.stats()["bad"] == 0
    for row, image in first.items():
        np.testing.assert_array_equal(again[row], image)

"""A loader's state: five plain fields that any number of ranks goes on from, exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from shardkit import Binned, Fixed, Loader, Packed, Resized, TorchDataset
from shardkit.errors import ArgumentError, StateError
from shardkit.testing.resume import assert_resumes_exactly

BATCHINGS = [
    Packed(tokens=512, patch=16, per_step=8),
    Binned(batch_size=1, patch=16, per_step=8),
    Resized(64, batch_size=2, per_step=8, crop=(0.5, 1.0), flip=0.5, level="auto"),
]
SMALL: dict[str, Any] = {"split": None, "device": "cpu", "seed": 11, "window": 8}


def _identity(batches: Any) -> list[tuple[Any, ...]]:
    """What must be the same: place, rows, seeds and pixels of every batch."""
    out = []
    for batch in batches:
        values = batch.patches if hasattr(batch, "patches") else batch.images
        position = (batch.position.epoch, batch.position.step, batch.position.micro)
        out.append((*position, tuple(batch.rows.tolist()), tuple(batch.seeds.tolist()), float(values.double().sum())))
    return out


@pytest.mark.deep
@pytest.mark.parametrize("batching", [Binned(batch_size=1, patch=16, per_step=16), BATCHINGS[2]], ids=str)
def test_stopping_at_every_step_and_resuming_twice_changes_nothing(dataset_folder: Path, batching: Any) -> None:
    assert_resumes_exactly(lambda: Loader(dataset_folder, batching=batching, **SMALL))


@pytest.mark.formats
@pytest.mark.deep
def test_nor_does_it_change_packs_of_shards_of_any_format(dataset_folder: Path) -> None:
    assert_resumes_exactly(lambda: Loader(dataset_folder, batching=BATCHINGS[0], **SMALL))


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_one_state_gives_the_same_global_steps_on_any_world_size(dataset_folder: Path, batching: Any) -> None:
    first = Loader(dataset_folder, batching=batching, **SMALL)
    stop = len(first.plan) // 2
    for batch in first:
        if batch.position.last and batch.position.step + 1 == stop:
            break
    state = json.loads(json.dumps(first.state_dict()))
    assert state["step"] == stop
    wanted: list[Any] = []
    for world in (1, 2, 4, 8):
        found = []
        for rank in range(world):
            loader = Loader(dataset_folder, batching=batching, rank=rank, world_size=world, **{**SMALL, "seed": 0})
            loader.load_state_dict(state)
            batches = list(loader)
            assert len(batches) == (len(loader.plan) and (len(first.plan) - stop) * 8 // world)
            assert [b.position.last for b in batches] == ([False] * (8 // world - 1) + [True]) * (
                len(first.plan) - stop
            )
            assert loader.state_dict() == {**state, "epoch": 1, "step": 0}
            found += _identity(batches)
        wanted = wanted or sorted(found)
        assert sorted(found) == wanted, f"{world} ranks"


def test_an_epoch_s_last_batch_moves_the_state_to_the_next_epoch(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    states = [loader.state_dict() for batch in loader if batch.position.last]
    steps = len(states)
    assert [(s["epoch"], s["step"]) for s in states] == [(0, k + 1) for k in range(steps - 1)] + [(1, 0)]
    first = _identity(loader)
    again = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    again.load_state_dict(states[-1])
    assert _identity(again) == first
    assert again.epoch == 2
    assert {rows for *_, rows, _, _ in first} != set()


def test_a_state_within_a_step_repeats_the_step(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    whole = _identity(loader)
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    for batch in loader:
        if (batch.position.step, batch.position.micro) == (1, 3):
            break
    state = loader.state_dict()
    assert state["step"] == 1
    again = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    again.load_state_dict(state)
    assert _identity(again) == whole[8:]


def test_the_state_has_five_plain_fields(dataset_folder: Path) -> None:
    state = Loader(dataset_folder, batching=BATCHINGS[1], **SMALL).state_dict()
    assert list(state) == ["format", "manifest_digest", "seed", "epoch", "step"]
    assert json.loads(json.dumps(state)) == state
    assert state["format"] == "1 split=all window=8 binned:batch_size=1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest_digest": "0" * 64}, "belongs to the dataset"),
        ({"format": "1 split=all window=8 packed:per_step=4,tokens=512"}, "was saved with"),
        ({"format": "1 split=train window=8 packed:tokens=512"}, "was saved with"),
        ({"extra": 1}, "no loader's state"),
    ],
)
def test_a_state_of_something_else_is_refused_by_name(dataset_folder: Path, change: Any, words: str) -> None:
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    with pytest.raises(StateError, match=words):
        loader.load_state_dict({**loader.state_dict(), **change})
    assert loader.step == 0


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_a_state_of_a_large_epoch_names_what_waits_and_goes_on_without_the_steps_before(
    dataset_folder: Path, batching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = {**SMALL, "window": 2}
    whole = _identity(Loader(dataset_folder, batching=batching, **narrow))
    monkeypatch.setattr("shardkit.loader.course.MARKED", 1)  # samples: to a test's dataset each epoch is large
    loader, marked = Loader(dataset_folder, batching=batching, **narrow), 0
    states = [json.loads(json.dumps(loader.state_dict())) for batch in loader if batch.position.last]
    for number, state in list(enumerate(states[:-1], 1))[:: max(1, len(states) // 4)]:
        marked += "mark" in state
        old = {name: value for name, value in state.items() if name != "mark"}
        assert list(old) == ["format", "manifest_digest", "seed", "epoch", "step"]
        for one in (state, old, {**state, "step": number - 1}) if marked == 1 else (state,):
            again = Loader(dataset_folder, batching=batching, **narrow)
            again.load_state_dict(one)
            assert _identity(again) == whole[one["step"] * 8 :]
    assert marked
    assert "mark" not in states[-1], "an epoch begins with nothing left over"


def test_a_damaged_mark_is_named_with_the_way_to_go_on(dataset_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardkit.loader.course.MARKED", 1)
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **{**SMALL, "window": 1})
    state = [loader.state_dict() for batch in loader if batch.position.last][-2]
    for damage in ({**state["mark"], "piece": 10**6}, {**state["mark"], "kept": [[0, 0]]}, 3):
        with pytest.raises(StateError, match="leave that field out"):
            loader.load_state_dict({**state, "mark": damage})
    loader.load_state_dict({name: value for name, value in state.items() if name != "mark"})
    assert loader.step == state["step"]


def test_a_filter_is_part_of_the_state(dataset_folder: Path) -> None:
    wide: dict[str, Any] = {"where": lambda t: t["width"].to_numpy() > 100, "needs": ("width",)}
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **wide, **SMALL)
    assert 0 < loader.account().samples < Loader(dataset_folder, batching=BATCHINGS[0], **SMALL).account().samples
    same = Loader(dataset_folder, batching=BATCHINGS[0], **wide, **SMALL)
    same.load_state_dict(loader.state_dict())
    other = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    with pytest.raises(StateError, match="was saved with"):
        other.load_state_dict(loader.state_dict())


def test_only_the_asked_split_is_streamed(dataset_folder: Path) -> None:
    import pyarrow.parquet as pq

    splits = pq.read_table(dataset_folder / "manifest.parquet", columns=["split"])["split"].to_pylist()
    arguments = {**SMALL, "split": "train"}
    rows = {r for b in Loader(dataset_folder, batching=BATCHINGS[0], **arguments) for r in b.rows.tolist() if r >= 0}
    assert rows == {i for i, split in enumerate(splits) if split == "train"}
    assert len(rows) < len(splits)


def test_a_dataloader_takes_the_adapter_without_workers_and_refuses_them(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    adapter = TorchDataset(loader)
    through = _identity(DataLoader(adapter, batch_size=None))
    assert adapter.state_dict()["epoch"] == 1
    adapter.load_state_dict({**adapter.state_dict(), "epoch": 0})
    assert _identity(DataLoader(adapter, batch_size=None)) == through
    with pytest.raises(ArgumentError, match="num_workers=0"):
        next(iter(DataLoader(adapter, batch_size=None, num_workers=1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"world_size": 3, "rank": 0}, "per_step=8"),
        ({"world_size": 2, "rank": 2}, "rank=2"),
        ({"world_size": 2}, "go together"),
        ({"normalise": "wrong"}, "normalise"),
        ({"dtype": torch.int32}, "dtype"),
        ({"split": "nothing"}, "no sample in split"),
        ({"prefetch": 0}, "prefetch"),
        ({"max_bad": 2.0}, "max_bad"),
        ({"cache": "x"}, "cache_bytes"),
        ({"window": 0}, "window=0"),
        ({"device": "meta"}, "device"),
    ],
)
def test_unusable_arguments_are_refused_at_the_start(dataset_folder: Path, change: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        Loader(dataset_folder, batching=BATCHINGS[0], **{**SMALL, **change})


@pytest.mark.deep
def test_bins_from_a_file_are_spelled_out_in_the_state(dataset_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "bins.json"
    file.write_text("[[320, 320], [160, 320]]")
    loader = Loader(dataset_folder, batching=Binned(str(file), batch_size=1, patch=16), **SMALL)
    file.write_text("[[640, 640]]")
    assert "bins=0160x0320+0320x0320" in loader.state_dict()["format"]
    assert len(list(loader)) == len(loader) > 0


def test_an_epoch_that_is_dropped_whole_is_refused(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=Binned(batch_size=64, patch=16, remainder="drop"), **SMALL)
    with pytest.raises(ArgumentError, match="no full step"):
        next(iter(loader))


@pytest.mark.parametrize("batching", [Fixed(64, patch=16), Packed(tokens=20, patch=16)], ids=str)
def test_images_that_fit_nowhere_are_refused_at_the_start(dataset_folder: Path, batching: Any) -> None:
    with pytest.raises(ArgumentError, match=r"of \d+ images do not fit .* the largest being"):
        Loader(dataset_folder, batching=batching, **SMALL)
    Loader(dataset_folder, batching=replace(batching, level=4), **SMALL)


@pytest.mark.formats
def test_a_level_that_is_not_there_is_refused(dataset_folder: Path) -> None:
    with pytest.raises(ArgumentError, match="levels 0 to 5"):
        Loader(dataset_folder, batching=Packed(tokens=512, patch=16, level=6), **SMALL)


def test_a_cache_smaller_than_a_shard_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="holds no shard"):
        Loader(dataset_folder, batching=BATCHINGS[0], cache=tmp_path / "cache", cache_bytes=1000, **SMALL)
    assert not (tmp_path / "cache").exists()


@pytest.mark.deep
def test_a_second_iteration_ends_the_first_and_the_state_follows_one(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    whole = _identity(Loader(dataset_folder, batching=BATCHINGS[0], **SMALL))
    first = iter(loader)
    next(first)
    assert _identity(loader) == whole
    assert (loader.epoch, loader.step) == (1, 0)
    with pytest.raises(ArgumentError, match="another one"):
        next(first)
    assert (loader.epoch, loader.step) == (1, 0)


def test_a_step_past_the_epoch_s_end_is_refused(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    loader.load_state_dict({**loader.state_dict(), "step": 10**6})
    with pytest.raises(StateError, match="1,000,000"):
        next(iter(loader))


@pytest.mark.parametrize("change", [{"threads": -1}, {"connections": 0}, {"attempts": 0}, {"deadline": 0.0}])
def test_counts_that_cannot_work_are_refused_at_the_start(dataset_folder: Path, change: Any) -> None:
    with pytest.raises(ArgumentError, match=next(iter(change))):
        Loader(dataset_folder, batching=BATCHINGS[0], **{**SMALL, **change})


def test_torchrun_s_environment_names_the_rank(dataset_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    loader = Loader(dataset_folder, batching=BATCHINGS[0], **SMALL)
    assert (loader.rank, loader.world_size) == (3, 4)

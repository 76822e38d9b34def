"""Attention is told how long a sequence may be: a GPU's kernel leaves out what lies beyond, so none may be longer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shardkit import Binned, Loader, Packed, PackedBatch, Resized
from trainer.models import blocks, masking
from trainer.models.attention import attend
from trainer.models.hiera import HieraConfig, HieraMae
from trainer.models.mae import Mae, MaeConfig
from trainer.models.sequences import sequences
from trainer.models.vit import VitConfig, VitEncoder

SMALL: dict[str, Any] = {"width": 32, "depth": 1, "heads": 2}
DECODER: dict[str, Any] = {"decoder_width": 64, "decoder_depth": 1, "decoder_heads": 2}
SIZES = [(64, 48), (33, 50), (160, 320), (16, 16), (320, 480)]  # of 12, 12, 200, 1 and 600 patches


@dataclass
class Told:
    """What attention was given: by the width of its tokens, bounds and the longest sequence."""

    bounds: dict[int, set[int]] = field(default_factory=dict)
    longest: dict[int, int] = field(default_factory=dict)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
        width, most = q[0].numel(), int(cu_seqlens.diff().max())
        assert type(longest) is int
        assert most <= longest
        self.bounds.setdefault(width, set()).add(longest)
        self.longest[width] = max(most, self.longest.get(width, 0))
        return attend(q, k, v, cu_seqlens, longest)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Sees every call of attention, and fails where a sequence is longer than the bound."""
    watching = Told()
    monkeypatch.setattr(blocks, "attend", watching.attend)
    return watching


def _mae(ratio: float, patch: int = 16) -> Mae:
    return MaeConfig(patch=patch, **SMALL, **DECODER, mask_ratio=ratio).build()


# ---------------------------------------------------------------------------------------------------- whole epochs


@pytest.mark.parametrize("ratio", [0.75, 0.0])
@pytest.mark.parametrize(
    ("patch", "view"),
    [
        (8, {}),
        (4, {"level": 1, "content": True}),
        (8, {"crop": (0.5, 1.0), "flip": 0.5, "remainder": "drop"}),
        (16, {}),
    ],
    ids=str,
)
def test_over_epochs_of_packs_bounds_stay_as_they_are_and_far_below_the_pack(
    dataset_folder: Path, told: Told, patch: int, view: dict[str, Any], ratio: float
) -> None:
    tokens = 2048
    loader = Loader(
        dataset_folder, batching=Packed(tokens=tokens, patch=patch, per_step=2, **view), split=None, device="cpu"
    )
    model = _mae(ratio, patch)
    for _ in range(2):
        for batch in loader:
            with torch.no_grad():
                model(batch)
    assert isinstance(batch, PackedBatch)
    longest = batch.longest
    assert 128 <= longest <= tokens / 2
    assert told.bounds == {32: {max(512, int(longest * (1 - ratio)) + 1)}, 64: {max(512, longest + 1)}}


@pytest.mark.parametrize("batching", [Binned(batch_size=3, patch=8, level=1), Resized(64, 5, patch=8)], ids=str)
def test_so_they_do_for_every_bin_with_its_empty_places(dataset_folder: Path, told: Told, batching: Any) -> None:
    model, encoder = _mae(0.75, 8), VitEncoder(VitConfig(patch=8, **SMALL))
    loader, sizes, empty = Loader(dataset_folder, batching=batching, split=None, device="cpu"), set(), 0
    for batch in loader:
        sizes.add(sequences(batch, 8).longest)
        empty += int((batch.weight == 0).sum())
        with torch.no_grad():
            model(batch), encoder(batch)
    assert empty
    assert told.bounds[64] == {size + 1 for size in sizes}
    assert all(told.longest.values())


# --------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.75, 0.9, 1 / 3])
@pytest.mark.parametrize("images", range(len(SIZES) + 1))
@pytest.mark.parametrize("known", [0, 600, 640])
def test_no_sequence_is_longer_than_its_bound_however_full_a_pack_is(
    make_packed: Any, told: Told, ratio: float, images: int, known: int
) -> None:
    """Packs of which no bound is known, of the tight one, and of a rounded one."""
    batch = replace(make_packed(SIZES[:images], tokens=2000, sequences=9)[0], longest=known)
    with torch.no_grad():
        _mae(ratio)(batch)
        VitEncoder(VitConfig(**SMALL))(batch)
    most = known or 2000
    seen, filler = (int(n * (1 - ratio)) + 1 for n in (most, 2000))
    assert told.bounds == {32: {max(seen, min(filler, 512)), most + 1}, 64: {most + 1}}
    if images == len(SIZES):
        assert told.longest == {32: 601, 64: 601}


@pytest.mark.parametrize("places", [2, 3, 40])
def test_nor_in_a_bin(make_binned: Any, told: Told, places: int) -> None:
    batch = make_binned([torch.rand(64, 48), torch.rand(96, 64)], [(64, 48), (96, 64)], 96, 64, places)
    with torch.no_grad():
        for ratio in (0.0, 0.75):
            _mae(ratio)(batch)
        VitEncoder(VitConfig(**SMALL))(batch)
    whole, part, encoder = max(25, places), max(7, places), max(25, min(512, 24 * places + 1))
    assert told.bounds == {32: {whole, part, encoder}, 64: {25}}, "masks of either share, and no bin's padding"
    assert places < 40 or told.longest[32] > 400, "the padding of a bin is one sequence"


def test_nor_in_a_hiera(make_binned: Any, told: Told) -> None:
    batch = make_binned([torch.rand(64, 64)], [(64, 64)], 64, 64, 2)
    with torch.no_grad():
        HieraMae(HieraConfig(side=64, **DECODER))(batch)
    assert told.bounds == {64: {16}}
    assert told.longest == {64: 16}


# ---------------------------------------------------------------------------------------- what a wrong bound would do


def _short(of: Any, ratio: float) -> tuple[int, int]:
    """Bounds of one token too few."""
    return int(of.longest * (1 - ratio)), of.longest


@pytest.mark.parametrize("wrong", ["batch", "masking"])
def test_a_bound_that_is_too_small_fails_where_there_is_no_gpu(
    make_packed: Any, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    batch = make_packed(SIZES, tokens=2000, sequences=9)[0]
    model = _mae(0.0)
    with torch.no_grad():
        assert model(replace(batch, longest=600)).loss.isfinite()
        if wrong == "masking":
            monkeypatch.setattr(masking, "bounds", _short)
        with pytest.raises(ValueError, match="a sequence of 601 tokens is longer than the bound, 600"):
            model(replace(batch, longest=600 - (wrong == "batch")))


def test_attention_takes_no_sequence_above_its_bound() -> None:
    q, k, v = torch.rand(3, 9, 2, 4)
    cu = torch.tensor([0, 4, 4, 9], dtype=torch.int32)
    assert attend(q, k, v, cu, 5).equal(attend(q, k, v, cu, 9))
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    for run in (attend, compiled):
        with pytest.raises(ValueError, match="a sequence of 5 tokens is longer than the bound, 4"):
            run(q, k, v, cu, 4)

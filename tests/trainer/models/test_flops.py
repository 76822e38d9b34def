"""Operations that are billed are those that PyTorch counts while a model runs, whatever the batch is filled with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from shardkit import BinnedBatch, PackedBatch
from trainer.models.flops import image_flops
from trainer.models.hiera import HieraConfig
from trainer.models.hiera import flops as hiera_flops
from trainer.models.mae import MaeConfig
from trainer.objectives.masked import Masked

CONFIG = MaeConfig(
    width=64, depth=2, heads=4, decoder_width=32, decoder_depth=2, decoder_heads=4, mask_ratio=0.75, norm_pix=True
)
IMAGE = (160, 160)  # 100 tokens


def _attention(q: Any, k: Any, v: Any, cu_seqlens: Any, longest: int, out_val: Any = None) -> int:
    """Scores and their sum of values in our operator, whose lengths are in its arguments and not in its shapes."""
    squares = cu_seqlens.diff().long().square().sum().item()
    return int(2 * 2 * squares * q.shape[1] * q.shape[2])


_attention._get_raw = True  # type: ignore[attr-defined]  # the tensors, please, not their shapes


def _counted(task: Masked, batch: BinnedBatch | PackedBatch) -> int:
    """Forward operations of a batch, by PyTorch's counter."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.trainer.segments: _attention})
    with counter, torch.no_grad():
        task.run(task.model, batch)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("images", [0, 1, 6, 13, 26])
def test_packs_are_billed_for_all_that_is_run_however_full_they_are(make_packed: Any, images: int) -> None:
    """From no image at all to a pack that is full: 2,600 tokens."""
    task = Masked(CONFIG.build())
    batch, _ = make_packed([IMAGE] * images, tokens=2600, sequences=30)
    assert task.run_flops(batch).item() == 3 * _counted(task, batch)


@pytest.mark.parametrize("images", [0, 1, 4])
def test_dense_batches_are_billed_for_padding_and_for_places_without_an_image(make_binned: Any, images: int) -> None:
    """Sequences of 560 tokens: those of places without an image are cut, and attention has less to do."""
    task = Masked(CONFIG.build())
    batch = make_binned([torch.rand(IMAGE)] * images, [IMAGE] * images, 320, 448, 4)
    assert task.run_flops(batch).item() == 3 * _counted(task, batch)


def test_a_hierarchical_model_is_billed_for_every_place(make_binned: Any) -> None:
    config = HieraConfig(arch="hiera_micro", side=64, decoder_width=32, decoder_depth=1, decoder_heads=2)
    task = Masked(config.build())
    batch = make_binned([torch.rand(64, 64)], [(64, 64)], 64, 64, 3)
    own, _ = task.tokens(batch)
    assert task.run_flops(batch).item() == 3 * 3 * hiera_flops(config)
    assert task.flops(own).tolist() == [3 * hiera_flops(config), 0, 0]


def test_what_images_need_is_what_a_pack_without_filler_runs_but_for_class_tokens(make_packed: Any) -> None:
    """Less the embedding of the class tokens' places, which nobody asked for."""
    task = Masked(CONFIG.build())
    batch, _ = make_packed([IMAGE] * 4, tokens=400, sequences=4)
    own, run = task.tokens(batch)
    assert (own.tolist(), run.item()) == ([100.0] * 4, 400)
    needed = task.flops(own).sum().item()
    assert needed == 3 * 4 * image_flops(CONFIG, 100)
    assert task.run_flops(batch).item() == needed + 3 * 4 * 2 * 16**2 * CONFIG.width


def test_tokens_of_padding_and_filler_are_run_and_nobody_s_own(make_packed: Any, make_binned: Any) -> None:
    task = Masked(CONFIG.build())
    packed, _ = make_packed([(33, 50), (16, 16)], tokens=90, sequences=5)
    assert [x.tolist() for x in task.tokens(packed)] == [[12.0, 1.0, 0.0, 0.0, 0.0], 90.0]
    dense = make_binned([torch.rand(33, 50)], [(33, 50)], 64, 96, 3)
    assert [x.tolist() for x in task.tokens(dense)] == [[12.0, 0.0, 0.0], 72.0]

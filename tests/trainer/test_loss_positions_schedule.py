"""Schedules, published operations, peaks and the baseline against their definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shardkit.errors import ArgumentError
from trainer.models import flops
from trainer.models.flops import image_flops, peak_tflops
from trainer.models.mae import MaeConfig
from trainer.models.sequences import sequences
from trainer.objectives import baseline
from trainer.schedule import Schedule

B48 = MaeConfig(patch=48)


def test_warm_up_is_linear_and_the_cosine_ends_at_its_floor() -> None:
    schedule = Schedule(peak=1.0, floor=0.1, warmup=4, total=104)
    assert [schedule.at(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule.at(54) == pytest.approx(0.55)
    assert schedule.at(104) == pytest.approx(0.1)
    rates = [schedule.at(step) for step in range(4, 105)]
    assert rates == sorted(rates, reverse=True)


def test_without_warm_up_the_first_step_has_the_peak_and_half_way_half_of_it() -> None:
    schedule = Schedule(peak=1.0, total=10)
    assert [schedule.at(step) for step in (0, 5, 10)] == [1.0, pytest.approx(0.5), 0.0]


def test_one_cycle_is_that_of_torch() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=1e-4)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-4, total_steps=50)
    ours = Schedule(kind="onecycle", peak=1e-4, total=50)
    for step in range(50):
        assert ours.at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step()
        if step < 49:
            theirs.step()


def test_operations_of_the_thesis_model_are_the_published_ones() -> None:
    hidden = 3 * 2 * (1441 - 360) * 48**2 * 768  # these embed hidden patches, too
    assert 3 * image_flops(B48, 1441) + hidden == pytest.approx(545e9, rel=0.002)
    assert 3 * image_flops(replace(B48, decoder_depth=2), 1441) + hidden == pytest.approx(305e9, rel=0.002)


def test_operations_of_a_tensor_are_those_of_its_numbers() -> None:
    counts = [1, 19, 190, 196, 1441, 4096]
    config = replace(B48, mask_ratio=0.9)
    found = image_flops(config, torch.tensor(counts, dtype=torch.float64))
    assert found.tolist() == pytest.approx([image_flops(config, n) for n in counts])


def test_peaks_are_known_by_name_and_can_be_given() -> None:
    assert peak_tflops("NVIDIA H200") == 989
    assert peak_tflops("cpu") is None
    assert peak_tflops("cpu", 2.5) == 2.5
    with pytest.raises(ArgumentError, match="above 0"):
        peak_tflops("cpu", 0.0)
    assert flops.PEAK_TFLOPS["A40"] == 149.7


def test_the_mean_image_s_error_is_the_variance_within_its_cells(make_packed: Any) -> None:
    """Images of one pixel a cell: the mean image is the plain mean of the images."""
    batch, images = make_packed([(32, 32)] * 5, tokens=20, sequences=6)
    weight, value, square = baseline._cells(sequences(batch, 16), 16)
    stack = np.stack([image.numpy() for image in images]).astype(np.float64)
    found = float((square - value**2 / weight).sum() / weight.sum())
    assert found == pytest.approx(float(stack.var(0).mean()), rel=1e-6)
    assert float(weight.sum()) == pytest.approx(5)


def test_flat_patches_have_the_error_of_what_varies_in_them(make_packed: Any) -> None:
    """A patch of one grey level is predicted right, and any other has a variance of one."""
    batch, _ = make_packed([(32, 32)] * 3, tokens=20, sequences=6)
    batch.patches[:6] = 0.25  # the whole first image, and half of the second
    found = baseline.flat_patch_error([batch], 16, 1)  # type: ignore[arg-type]
    varied = (16**2 - 1) / 16**2  # the deviation is the unbiased one
    assert found == pytest.approx((0 + varied / 2 + varied) / 3, rel=1e-3)

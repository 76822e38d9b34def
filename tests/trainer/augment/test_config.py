"""What a run draws for an image: from the plan's seed alone, as often and as much as asked; and who gets it."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shardkit import Loader, Packed, Resized
from shardkit.errors import ArgumentError
from trainer.augment import AugmentConfig, affine, bias_field, blur, gamma, levels, noise
from trainer.augment.draws import draws
from trainer.augment.levels import Levels
from trainer.commands import training
from trainer.commands.cli import run as command
from trainer.config import LoaderConfig
from trainer.recipes.registry import RECIPES


def _only(*names: str) -> AugmentConfig:
    always: dict[str, Any] = dict.fromkeys(names, 1.0)
    return AugmentConfig(**always)


ALL = AugmentConfig(rand="rand-m6-mstd0.5-inc1", rotate=7.0, affine=0.5, gamma=0.5, noise=0.3, bias_field=0.3, blur=0.3)
ALONE = {
    "rand": AugmentConfig(rand="rand-m6-p1"),
    "rotate": AugmentConfig(rotate=30.0),
    **{name: _only(name) for name in ("affine", "gamma", "noise", "bias_field", "blur")},
}
SEEDS = range(2000)


def _changed(config: AugmentConfig, image: Tensor, seed: int) -> Tensor:
    augment = config.build()
    assert augment is not None
    return augment(image, seed)


# ----------------------------------------------------------------------------------------------------- off, and each on


def test_nothing_is_on_by_default_in_any_configuration_that_says_nothing() -> None:
    assert AugmentConfig().build() is None
    assert AugmentConfig(gamma_log=3.0, blur_sigma=9.0, affine_degrees=90.0).build() is None, (
        "a strength is not a chance"
    )
    assert RECIPES["tiny"].config.augment == AugmentConfig()


@pytest.mark.parametrize("name", ALONE)
def test_each_augmentation_changes_images_by_the_seed_and_by_nothing_else(name: str) -> None:
    image = torch.rand(1, 37, 52)
    torch.manual_seed(1)
    found = [_changed(ALONE[name], image.clone(), seed) for seed in range(12)]
    torch.manual_seed(2)
    torch.rand(3)
    again = [_changed(ALONE[name], image.clone(), seed) for seed in reversed(range(12))][::-1]
    assert all(one.equal(other) for one, other in zip(found, again, strict=True))
    distinct = {tuple(one.flatten().tolist()) for one in found}
    assert len(distinct) > (6 if name == "rand" else 11)
    assert sum(one.equal(image) for one in found) <= (6 if name == "rand" else 0)


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("size", [(1, 1), (5, 300), (64, 48)])
def test_all_together_keep_size_and_type_and_finite_values(seed: int, size: tuple[int, int]) -> None:
    for config in (ALL, *ALONE.values()):
        found = _changed(config, torch.rand(1, *size) * 3 - 1, seed)
        assert found.shape == (1, *size)
        assert found.dtype == torch.float32
        assert found.isfinite().all()


def test_what_one_draws_does_not_depend_on_the_others() -> None:
    image = torch.rand(1, 20, 30)
    always = AugmentConfig(gamma=1.0, blur=1.0)
    for seed in range(20):
        after = _changed(AugmentConfig(blur=1.0), _changed(AugmentConfig(gamma=1.0), image, seed), seed)
        assert _changed(always, image, seed).equal(after)


def test_they_run_in_torchio_s_order() -> None:
    order = ["rand", "rotate", "affine", "gamma", "noise", "bias_field", "blur"]
    image, seed = torch.rand(1, 30, 30), 3
    wanted = image
    for name in order:
        wanted = _changed(ALONE[name], wanted, seed)
    together = replace(_only(*order[2:]), rand="rand-m6-p1", rotate=30.0)
    assert _changed(together, image, seed).equal(wanted)


# -------------------------------------------------------------------------------------------------- what they draw


@pytest.mark.parametrize("name", ["affine", "gamma", "noise", "bias_field", "blur"])
def test_an_augmentation_acts_as_often_as_its_probability_says(name: str) -> None:
    image = torch.rand(1, 3, 4)
    options: dict[str, Any] = {name: 0.3}
    augment = AugmentConfig(**options).build()
    assert augment is not None
    share = np.mean([not augment(image, seed).equal(image) for seed in SEEDS])
    assert share == pytest.approx(0.3, abs=0.05)


def test_one_acts_whether_or_not_another_does() -> None:
    image = torch.rand(1, 3, 4)
    acts = {}
    for name in ("affine", "gamma", "noise"):
        options: dict[str, Any] = {name: 0.5}
        augment = AugmentConfig(**options).build()
        assert augment is not None
        acts[name] = [not augment(image, seed).equal(image) for seed in SEEDS]
    together = np.corrcoef(list(acts.values()))
    assert np.abs(together[np.triu_indices(3, 1)]).max() < 0.1


def _even(values: list[float], low: float, high: float) -> None:
    assert low <= min(values)
    assert max(values) <= high
    quantiles = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert quantiles == pytest.approx(np.linspace(low, high, 5), abs=0.04 * (high - low))


def test_numbers_are_drawn_evenly_from_the_ranges_of_the_thesis() -> None:
    usual = AugmentConfig()
    drawn = [affine.draw(draws(seed, "affine"), usual.affine_scale, usual.affine_degrees) for seed in SEEDS]
    rows, cols, degrees = (list(each) for each in zip(*drawn, strict=True))
    _even(rows, 0.9, 1.1)
    _even(cols, 0.9, 1.1)
    _even(degrees, -20.0, 20.0)
    assert abs(np.corrcoef(rows, cols)[0, 1]) < 0.1, "each axis has its own scale, as torchio's"
    _even([math.log(gamma.draw(draws(seed, "gamma"), usual.gamma_log)) for seed in SEEDS], -0.5, 0.5)
    sigmas, seeds = zip(*(noise.draw(draws(seed, "noise"), usual.noise_sigma) for seed in SEEDS), strict=True)
    _even(list(sigmas), 0.0, 0.25)
    assert len(set(seeds)) == len(SEEDS)
    for axis in (0, 1):
        _even([blur.draw(draws(seed, "blur"), usual.blur_sigma)[axis] for seed in SEEDS], 0.0, 2.0)
    order, most = usual.bias_field_order, usual.bias_field_coefficient
    fields_drawn = [bias_field.draw(draws(seed, "bias_field"), order, most) for seed in SEEDS]
    assert [len(powers) for powers in fields_drawn[0]] == [4, 3, 2, 1]
    for i, j in ((0, 0), (3, 0), (1, 2)):
        _even([field[i][j] for field in fields_drawn], -0.5, 0.5)


def test_draws_are_the_same_on_every_machine() -> None:
    gamma_of_7 = draws(7, "gamma")
    assert [gamma_of_7.random(), gamma_of_7.random()] == [0.5071785318201467, 0.05282922630327769]
    assert draws(2**64 - 1, "blur").random() == 0.638779160512358


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gamma": 1.5}, "--augment.gamma 1.5 must be a probability"),
        ({"bias_field": -0.1}, "--augment.bias-field -0.1 must be a probability"),
        ({"rotate": -5.0}, "--augment.rotate -5.0 must be 0 or more"),
        ({"blur_sigma": math.nan}, "--augment.blur-sigma nan must be 0 or more"),
        ({"affine_scale": (1.1, 0.9)}, "--augment.affine-scale 1.1 0.9 must be two numbers above 0"),
        ({"affine_scale": (0.0, 0.9)}, "--augment.affine-scale 0.0 0.9 must be two numbers above 0"),
        ({"rand": "autocontrast"}, "--augment.rand autocontrast is none of RandAugment's texts"),
    ],
    ids=str,
)
def test_values_that_nothing_can_be_drawn_from_are_refused_by_their_option(change: Any, told: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        AugmentConfig(**change).build()
    assert str(caught.value).startswith(told)


def test_black_and_white_are_those_of_the_normalisation() -> None:
    assert levels("percentile") == levels("minmax") == levels("fullscale") == Levels(0.0, 1.0)
    assert levels("zscore") is levels("none") is None
    assert levels((0.5, 0.25)) == Levels(-2.0, 2.0)


# ------------------------------------------------------------------------------------------------ through the loader


def test_an_image_is_augmented_alike_in_any_batch_pack_and_world_and_anew_each_epoch(dataset_folder: Path) -> None:
    options: dict[str, Any] = {"split": None, "device": "cpu", "seed": 3, "augment": ALL.build(Levels(0.0, 1.0))}

    def load(batching: Any, **more: Any) -> dict[int, Tensor]:
        loader = Loader(dataset_folder, batching=batching, **options, **more)
        return {
            row: batch.pixels(slot).clone()
            for batch in loader
            for slot, row in enumerate(batch.rows.tolist())
            if row >= 0
        }

    alone = load(Packed(tokens=512, patch=16, per_step=2))
    shared = load(Packed(tokens=900, patch=16, per_step=2), rank=0, world_size=2, threads=1)
    shared |= load(Packed(tokens=900, patch=16, per_step=2), rank=1, world_size=2, threads=3)
    assert alone.keys() == shared.keys()
    assert all(image.equal(shared[row]) for row, image in alone.items())
    later = load(Packed(tokens=512, patch=16, per_step=2), epoch=1)
    assert sum(image.equal(later[row]) for row, image in alone.items()) < len(alone) / 8
    squares = load(Resized(48, batch_size=5, level="auto"))
    assert {image.shape for image in squares.values()} == {(48, 48)}


def test_a_run_trains_on_augmented_images_and_is_validated_on_plain_ones(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def open_loader(url: str, **options: Any) -> Any:
        opened.append((options["split"], options["augment"]))
        return Loader(url, **options)

    monkeypatch.setattr(training, "Loader", open_loader)
    small = "packed:patch=8,level=2,per_step=2,tokens=1024"
    where = ["--data", str(dataset_folder), "--out", str(tmp_path / "run"), "--loader.batching", small]
    asked = ["--augment.gamma", "0.5", "--augment.affine-scale", "0.8", "1.2", "--augment.rand", "rand-m3"]
    assert command(["pretrain", *where, "--run.steps", "2", "--log.baseline", "0", *asked]) == 0
    assert {split: augment is not None for split, augment in opened} == {"train": True, "val": False}
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["augment.affine_scale"] == [0.8, 1.2]
    assert {f"augment.{f.name}" for f in fields(AugmentConfig)} <= config.keys()


def test_a_value_that_cannot_be_drawn_from_ends_the_command_with_a_sentence(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", "--data", str(dataset_folder), "--out", str(tmp_path / "run"), "--augment.blur", "2"]
    assert command(words) == 1
    assert "--augment.blur 2.0 must be a probability, from 0 to 1" in " ".join(capsys.readouterr().err.split())


def test_a_loader_s_normalisation_tells_randaugment_what_black_and_white_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    opened = SimpleNamespace(normalised={"": (0.5, 0.25)})
    monkeypatch.setattr(training, "Loader", lambda url, **given: seen.update(given) or opened)
    config = replace(
        RECIPES["tiny"].config,
        loader=LoaderConfig(batching="packed:patch=8,tokens=64", normalise="0.5,0.25"),
        augment=AugmentConfig(rand="rand-n1-m10-p1"),
    )
    training.open_loader(config, "shards", torch.device("cpu"), 0, 1)
    assert seen["augment"] is None, "what measures a model sees images as they are"
    training.open_loader(config, "shards", torch.device("cpu"), 0, 1, augmented=True)
    image = torch.rand(1, 8, 8)  # of -2 to 2
    augment = seen["augment"]
    assert callable(augment)
    found = [augment(image, seed) for seed in range(100)]
    assert any(torch.allclose(one, -image, atol=1e-5) for one in found), "Invert"

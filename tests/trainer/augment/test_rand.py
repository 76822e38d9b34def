"""RandAugment on floats, held against timm's own operations, magnitudes and texts on 8-bit images."""

from __future__ import annotations

import math
import random
from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.stats import ks_2samp
from timm.data import auto_augment
from torch import Tensor

from shardkit.errors import ArgumentError
from trainer.augment import rand
from trainer.augment.levels import Levels, check_levels
from trainer.augment.rand_text import RandPolicy, from_text

EIGHT = Levels(0.0, 255.0)
TIMM = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}
GREATER = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
EXACT = ("Invert", "Posterize", "Solarize", "SolarizeAdd", "Color")
MOVING = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def _grey(rows: int = 71, cols: int = 54, low: int = 12, high: int = 231) -> Tensor:
    """Smooth, whole numbers."""
    pixels = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(rows, cols)), 2.5)
    pixels = (pixels - pixels.min()) / np.ptp(pixels)
    return torch.from_numpy(np.rint(low + (high - low) * pixels)).float()[None]


def _timm_name(name: str, increasing: bool) -> str:
    return f"{name}Increasing" if increasing and name in GREATER else TIMM.get(name, name)


def _by_timm(image: Tensor, name: str, magnitude: float, increasing: bool, sign: int, fill: int) -> Tensor:
    """timm's operation on the 8-bit image. `sign` decides what it draws where it goes two ways."""
    hparams: dict[str, Any] = {"img_mean": fill, "interpolation": Image.Resampling.BILINEAR}
    make: Any = auto_augment.AugmentOp
    operation = make(_timm_name(name, increasing), 1.0, magnitude, hparams)
    drawn, auto_augment.random.random = auto_augment.random.random, lambda: 0.9 if sign < 0 else 0.1
    try:
        out = operation(Image.fromarray(image[0].byte().numpy()))
    finally:
        auto_augment.random.random = drawn
    return torch.from_numpy(np.asarray(out).copy()).float()[None]


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("magnitude", [0.0, 2.7, 6.0, 9.9])
@pytest.mark.parametrize("name", rand.NAMES)
def test_an_operation_gives_timm_s_grey_levels_on_whole_numbers(name: str, magnitude: float, increasing: bool) -> None:
    image = _grey()
    for sign in (1, -1):
        argument = rand.argument(name, magnitude, sign, increasing)
        if name == "Posterize" and argument == 0:
            continue  # Pillow refuses it: see below
        found = rand.rand(image + 0.0, ((name, argument),), EIGHT)
        wanted = _by_timm(image, name, magnitude, increasing, sign, fill=0)
        differs = (found - wanted).abs()
        if name in MOVING:  # Pillow counts an edge's pixels in or out by another rounding
            assert differs[differs < 8].max() < 1.001
            assert (differs >= 8).float().mean() < 0.02
        else:
            assert differs.max() < (0.001 if name in EXACT else 1.5), "Pillow rounds what is between, and means, too"


def test_posterize_with_no_bits_left_is_black_as_pillow_once_had_it() -> None:
    assert rand.argument("Posterize", 10, 1, True) == 0
    assert rand.rand(_grey(), (("Posterize", 0.0),), EIGHT).eq(0).all()


def test_color_leaves_a_grey_image_as_it_is() -> None:
    assert rand.rand(_grey(), (("Color", 0.3),), EIGHT).equal(_grey())


@pytest.mark.parametrize("levels", [Levels(0.0, 1.0), Levels(-2.0, 1.9), Levels(0.0, 65535.0)])
@pytest.mark.parametrize("name", rand.NAMES)
def test_an_operation_is_the_same_whatever_range_an_image_is_normalised_to(name: str, levels: Levels) -> None:
    span, argument = levels.white - levels.black, rand.argument(name, 6.0, 1, True)
    eight = rand.rand(_grey(), ((name, argument),), EIGHT)
    normalised = _grey() / 255 * span + levels.black
    found = (rand.rand(normalised, ((name, argument),), levels) - levels.black) / span * 255
    if name not in MOVING:
        assert (found - eight).abs().max() < 0.01
    assert found.min() > -0.01
    assert found.max() < 255.01


@pytest.mark.parametrize("name", ["AutoContrast", "Contrast", "Brightness", "Sharpness", "Invert", "Equalize"])
def test_sixteen_bits_are_kept(name: str) -> None:
    deep = torch.linspace(0.2, 0.8, 40_000).view(1, 200, 200)
    found = rand.rand(deep, ((name, rand.argument(name, 6.0, -1, True)),), Levels(0.0, 1.0))
    assert len(np.unique(found.numpy())) > 30_000


def test_what_comes_from_outside_has_the_grey_level_0_of_the_normalised_image() -> None:
    image = _grey() / 255 * 4 - 2
    moved = rand.rand(image, (("TranslateX", 0.25),), Levels(-2.0, 2.0))
    assert moved[..., -13:].abs().max() < 1e-5
    assert torch.allclose(moved[..., :40], image[..., 14:], atol=0.3)


def test_values_beyond_the_known_levels_are_kept_and_an_image_s_own_range_serves_where_none_is_known() -> None:
    image = _grey() * 16  # of 12 bits
    for known in (None, Levels(0.0, 1.0)):
        found = rand.rand(image, (("Invert", 0.0),), known)
        low = min(float(image.min()), 0.0 if known else math.inf)
        assert torch.allclose(found, float(image.max()) + low - image, atol=0.01)


def test_where_no_operation_acts_the_image_is_the_same_to_the_last_bit() -> None:
    image = torch.rand(1, 30, 20)
    assert rand.rand(image, (), Levels(0.0, 1.0)).equal(image)


@pytest.mark.parametrize("name", rand.NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (31, 250)])
def test_any_size_will_do_and_an_even_image_too(name: str, size: tuple[int, int]) -> None:
    argument = rand.argument(name, 6.0, 1, True)
    for image in (torch.rand(1, *size), torch.full((1, *size), 0.25)):
        before = image.clone()
        found = rand.rand(image, ((name, argument), ("Contrast", 1.2)), Levels(0.0, 1.0))
        assert found.shape == image.shape
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        assert image.equal(before), "pure: its argument is not changed"


# ------------------------------------------------------------------------------------------------------ text and draws


@pytest.mark.parametrize("text", ["rand-m6-mstd0.5-inc1", "rand-m9-n3-mstd0.5", "rand-p0.8-m4-mmax7-inc0", "rand"])
def test_a_text_means_what_it_means_to_timm(text: str) -> None:
    made, policy = auto_augment.rand_augment_transform(text, {}), from_text(text)
    assert policy.operations == made.num_layers
    wanted = {_timm_name(name, policy.increasing) for name in rand.NAMES}
    assert {operation.name for operation in made.ops} == wanted
    assert len(made.ops) == len(rand.NAMES)
    for operation in made.ops:
        assert (operation.prob, operation.magnitude, operation.magnitude_std, operation.magnitude_max or 10) == (
            policy.chance, policy.magnitude, policy.deviation, policy.greatest,
        )  # fmt: skip


def test_magnitudes_of_an_even_draw_are_cut_too() -> None:
    policy = from_text("rand-m9-mstd101-mmax5")
    drawn = [rand._magnitude(Random(seed), policy) for seed in range(200)]
    assert max(drawn) == 5
    assert min(drawn) < 1
    assert from_text("rand-mmax0").greatest == 10, "timm's default"


def test_a_great_deviation_is_an_even_draw() -> None:
    assert from_text("rand-m5-mstd101").deviation == math.inf
    drawn = [rand._magnitude(Random(seed), RandPolicy(magnitude=5.0, deviation=math.inf)) for seed in range(2000)]
    assert 0 <= min(drawn) < 0.1
    assert 4.9 < max(drawn) <= 5
    assert np.mean(drawn) == pytest.approx(2.5, abs=0.15)


@pytest.mark.parametrize(
    "text", ["augmix-m3", "rand-x5", "rand-m", "rand-tweights", "rand-m6-mstd", "rand_m6", "m6", "rand-ninf"]
)
def test_a_text_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=f"--augment.rand {text} is none of RandAugment's texts"):
        from_text(text)


@pytest.mark.parametrize("text", ["rand-p3", "rand-p1.01-m6", "rand-n2.7", "rand-n0"])
def test_chances_above_1_and_parts_of_operations_are_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=f"--augment.rand {text} must be a text with p from 0 to 1 and a whole n"):
        from_text(text)


def test_operations_are_drawn_as_often_and_with_the_arguments_as_timm_draws_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, count = "rand-m6-mstd0.5-inc1", 3000
    seen: dict[str, list[float]] = {}
    for name in auto_augment.NAME_TO_OP:

        def note(image: Any, *numbers: float, name: str = name, **options: Any) -> Any:
            seen.setdefault(name, []).append(numbers[0] if numbers else 0.0)
            return image

        monkeypatch.setitem(auto_augment.NAME_TO_OP, name, note)
    np.random.seed(0)  # what timm draws from
    random.seed(0)
    made = auto_augment.rand_augment_transform(text, {"img_mean": (0,)})
    for _ in range(count):
        made(None)
    policy, ours = from_text(text), dict[str, list[float]]()
    numbers = Counter[int]()
    for seed in range(count):
        drawn = rand.draw(Random(seed), policy)
        numbers[len(drawn)] += 1
        for name, value in drawn:
            ours.setdefault(_timm_name(name, True), []).append(value)
    assert [numbers[k] / count for k in range(3)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert ours.keys() == seen.keys()
    for name, values in ours.items():
        assert len(values) == pytest.approx(count / 15, rel=0.25)
        assert ks_2samp(values, seen[name]).pvalue > 1e-3, name


def test_members_of_a_mixture_must_have_the_levels_that_it_is_told() -> None:
    check_levels("percentile", {"one": "minmax", "two": "percentile"})
    check_levels("none", {"one": "zscore"})  # each image has its own
    with pytest.raises(ArgumentError, match=r"--loader.normalise 0.5,0.25, and the mixture normalises two by minmax"):
        check_levels((0.5, 0.25), {"one": (0.5, 0.25), "two": "minmax"})

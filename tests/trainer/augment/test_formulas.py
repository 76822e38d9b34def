"""What augmentations do with given numbers: torchio's formulas, derived again in float64 by NumPy and SciPy.

They were held against torchio 1.2.1 itself: equal to 1e-6. It is no test dependency, for it needs 260 MB of SimpleITK.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from trainer.augment import affine, bias_field, blur, gamma, noise
from trainer.augment.bias_field import Coefficients

SIZES = [(67, 41), (40, 96), (1, 7), (3, 2)]
Floats = npt.NDArray[np.float64]


def _image(rows: int, cols: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Smooth, with grey levels of 16 bits and more, the least of which is `low`."""
    rng = np.random.default_rng(rows * 1000 + cols)
    pixels = ndimage.gaussian_filter(rng.normal(size=(rows, cols)), 3)
    pixels = (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1e-9)
    return torch.from_numpy(low + (high - low) * pixels).float()[None]


def _double(image: Tensor) -> Floats:
    return image[0].double().numpy()


def _close(found: Tensor, wanted: Floats, tolerance: float = 2e-6) -> None:
    assert found.dtype == torch.float32
    assert found.shape == (1, *wanted.shape)
    np.testing.assert_allclose(_double(found), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("low", [0.0, -1.5])
@pytest.mark.parametrize("exponent", [0.61, 1.0, 1.64])
def test_gamma_raises_the_size_of_a_value_and_keeps_its_sign(
    size: tuple[int, int], low: float, exponent: float
) -> None:
    image = _image(*size, low, 1.25)
    x = _double(image)
    _close(gamma.gamma(image, exponent), np.sign(x) * np.abs(x) ** exponent)


def test_a_greater_exponent_is_darker() -> None:
    image = _image(20, 20)
    assert gamma.gamma(image, 1.5).mean() < image.mean() < gamma.gamma(image, 0.7).mean()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [(0.3, 1.9), (2.0, 0.7), (0.01, 0.0)])
def test_blur_is_scipy_s_gaussian_in_pixels(size: tuple[int, int], sigma: tuple[float, float]) -> None:
    image = _image(*size)
    _close(blur.blur(image, sigma), ndimage.gaussian_filter(_double(image), sigma))


def _field(rows: int, cols: int, coefficients: Coefficients) -> Floats:
    y, x = ((np.arange(side) - (side - 1) / 2) / max((side - 1) / 2, 1e-9) for side in (rows, cols))
    total = np.zeros((rows, cols))
    for i, powers in enumerate(coefficients):
        for j, coefficient in enumerate(powers):
            total += coefficient * y[:, None] ** i * x[None] ** j
    return np.exp(total)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_bias_field_is_e_to_a_polynomial_from_minus_one_to_one(size: tuple[int, int], order: int) -> None:
    image, coefficients = _image(*size, 0.5), bias_field.draw(Random(order), order, 0.5)
    assert [len(powers) for powers in coefficients] == list(range(order + 1, 0, -1))
    _close(bias_field.bias_field(image, coefficients), _double(image) * _field(*size, coefficients))


def _affine(image: Floats, scales: tuple[float, float], degrees: float) -> Floats:
    """By indices of pixels: result = scales * turn * (image about its centre)."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # of (row, column)
    back = np.linalg.inv(np.diag(scales) @ turn)
    centre = (np.array(image.shape) - 1) / 2
    rows, cols = np.indices(image.shape)
    at = np.einsum("ij,jrc->irc", back, np.stack([rows - centre[0], cols - centre[1]])) + centre[:, None, None]
    found = ndimage.map_coordinates(image, at, order=1, mode="nearest")
    inside = np.all((at >= -0.5) & (at <= np.array(image.shape)[:, None, None] - 0.5), 0)
    return np.where(inside, found, image.min())


@pytest.mark.parametrize("size", [(67, 41), (40, 96)])
@pytest.mark.parametrize("numbers", [(1.1, 0.92, 17.0), (0.9, 0.9, -20.0), (1.0, 1.0, 30.0), (1.0, 1.0, 0.0)])
def test_affine_turns_then_scales_about_the_centre_and_fills_with_the_least_value(
    size: tuple[int, int], numbers: tuple[float, float, float]
) -> None:
    image = _image(*size, 0.2, 1.2)
    found, wanted = affine.affine(image, *numbers), _affine(_double(image), numbers[:2], numbers[2])
    differs = np.abs(_double(found) - wanted) > 1e-5
    assert differs.mean() < 2e-3, "rounding may put a place on the edge inside or outside"
    assert found.min() == image.min()
    assert (numbers[2] == 0) == torch.allclose(found, image, atol=1e-4)


def test_a_rotation_keeps_a_disc_and_turns_what_is_in_it() -> None:
    y, x = np.indices((81, 81)) - 40.0
    disc = torch.from_numpy(np.where(np.hypot(y, x) < 30, 1.0, 0.0)).float()[None]
    assert (affine.affine(disc, 1, 1, 25.0) - disc).abs().mean() < 0.01
    wedge = torch.from_numpy(np.where((x > 0) & (np.abs(y) < 3), 1.0, 0.0)).float()[None]  # points to the right
    turned = affine.affine(wedge, 1, 1, 20.0)[0]
    place = (turned.double().numpy() * np.stack([y, x])).sum((1, 2)) / float(turned.sum())
    assert abs(np.degrees(np.arctan2(place[0], place[1]))) == pytest.approx(20, abs=1.5)


def test_noise_is_normal_of_its_deviation_and_by_its_seed() -> None:
    image = _image(300, 200)
    added = _double(noise.noise(image, 0.2, 5) - image)
    assert abs(added.mean()) < 0.003
    assert added.std() == pytest.approx(0.2, rel=0.02)
    assert np.mean(np.abs(added) < 0.2) == pytest.approx(0.6827, abs=0.01)
    assert abs(np.corrcoef(added[1:].ravel(), added[:-1].ravel())[0, 1]) < 0.02
    assert noise.noise(image, 0.2, 5).equal(noise.noise(image, 0.2, 5))
    assert not noise.noise(image, 0.2, 6).equal(noise.noise(image, 0.2, 5))


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "gamma": lambda image: gamma.gamma(image, 1.3),
    "noise": lambda image: noise.noise(image, 0.1, 1),
    "bias field": lambda image: bias_field.bias_field(image, ((0.1, 0.2), (0.3,))),
    "blur": lambda image: blur.blur(image, (1.0, 2.0)),
    "affine": lambda image: affine.affine(image, 0.9, 1.1, 10.0),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("size", [*SIZES, (1, 1), (250, 31)])
def test_size_and_type_are_kept_values_finite_and_the_image_as_it_was(name: str, size: tuple[int, int]) -> None:
    image: Any = _image(*size, -1.0)
    before = image.clone()
    found = CHANGES[name](image)
    assert found.shape == image.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert image.equal(before), "pure: its argument is not changed"

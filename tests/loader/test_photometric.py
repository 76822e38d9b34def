"""Changes of grey levels against torchvision's: on arrays, as a CPU has them, and on tensors, as a GPU has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as tv  # type: ignore[import-untyped]

from shardkit.errors import ArgumentError
from shardkit.loader.photometric import changed, changing
from shardkit.plan.views import Greys, View, greys

VIEW = View(40, jitter=1.0, blur=1.0, sigma=(0.1, 2.0), solarise=1.0)
WIDTH = 13  # pixels of the blur's kernel: three of the greatest standard deviation to each side
PLAIN = np.array([[1.0, 0.0]])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 1, 40, 40, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=["ndarray", "tensor"])
def change(request: pytest.FixtureRequest) -> Any:
    """(images, greys, share, view) -> a changed copy, as a tensor."""

    def run(images: torch.Tensor, drawn: Greys, share: Any = PLAIN, view: View = VIEW) -> Any:
        share = np.repeat(share, len(images), 0) if len(share) == 1 else share
        if request.param == "tensor":
            return changed(images.clone(), drawn, share, view)
        return torch.from_numpy(changed(images.numpy().copy(), drawn, share, view))

    return run


def _greys(**given: Any) -> Greys:
    plain: dict[str, Any] = {"brightness": 1.0, "contrast": 1.0, "contrast_first": False, "sigma": 0.0}
    values = {**plain, "solarise": False, **given}
    return Greys(*(np.broadcast_to(np.array(values[name]), 6) for name in Greys.__slots__))


def _close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.6, 0.97, 1.4, 2.0])
def test_brightness_is_torchvision_s(change: Any, images: torch.Tensor, factor: float) -> None:
    _close(change(images, _greys(brightness=factor)), tv.adjust_brightness(images, factor))


@pytest.mark.parametrize("factor", [0.0, 0.6, 0.97, 1.4, 2.0])
def test_contrast_is_torchvision_s(change: Any, images: torch.Tensor, factor: float) -> None:
    _close(change(images, _greys(contrast=factor)), tv.adjust_contrast(images, factor))


def test_either_of_brightness_and_contrast_comes_first(change: Any, images: torch.Tensor) -> None:
    found = [change(images, _greys(brightness=1.4, contrast=1.3, contrast_first=first)) for first in (False, True)]
    _close(found[0], tv.adjust_contrast(tv.adjust_brightness(images, 1.4), 1.3))
    _close(found[1], tv.adjust_brightness(tv.adjust_contrast(images, 1.3), 1.4))
    assert (found[0] - found[1]).abs().max() > 0.01


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_the_blur_is_torchvision_s_mirrored_at_the_border(change: Any, images: torch.Tensor, sigma: float) -> None:
    _close(change(images, _greys(sigma=sigma)), tv.gaussian_blur(images, [WIDTH, WIDTH], [sigma, sigma]))


def test_of_a_tiny_view_the_blur_reaches_no_further_than_its_border(change: Any) -> None:
    tiny = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    _close(change(tiny, _greys(sigma=2.0)), tv.gaussian_blur(tiny, [7, 7], [2.0, 2.0]))


def test_solarisation_is_torchvision_s(change: Any, images: torch.Tensor) -> None:
    images[0, 0, 0, :3] = torch.tensor([0.5, 0.0, 1.0])
    _close(change(images, _greys(solarise=True)), tv.solarize(images, 0.5))


def test_all_together_come_in_the_order_of_the_published_runs(change: Any, images: torch.Tensor) -> None:
    drawn = _greys(brightness=0.7, contrast=1.2, sigma=1.1, solarise=True)
    wanted = v2.Compose(
        [
            v2.ColorJitter((0.7, 0.7)),
            v2.ColorJitter(contrast=(1.2, 1.2)),
            v2.GaussianBlur(WIDTH, (1.1, 1.1)),
            v2.RandomSolarize(0.5, p=1.0),
        ]
    )(images)
    _close(change(images, drawn), wanted)


def test_every_image_changes_by_its_own_numbers_whatever_is_beside_it(change: Any, images: torch.Tensor) -> None:
    view = View(40, jitter=0.2, blur=0.2, solarise=0.2)
    drawn = greys(view, np.arange(6, dtype=np.uint64) + np.uint64(20))
    together = change(images, drawn, view=view)
    for at in range(6):
        one = Greys(*(getattr(drawn, name)[at : at + 1] for name in Greys.__slots__))
        assert torch.equal(change(images[at : at + 1], one, view=view)[0], together[at])
    plain = (drawn.brightness == 1) & (drawn.sigma == 0) & ~drawn.solarise
    assert 0 < plain.sum() < 6
    assert torch.equal(together[torch.from_numpy(plain)], images[torch.from_numpy(plain)])


def test_images_of_a_mean_and_deviation_change_between_black_and_white(change: Any, images: torch.Tensor) -> None:
    drawn = _greys(brightness=1.3, contrast=0.8, sigma=0.7, solarise=np.arange(6) % 2 == 0)
    share = np.array([[0.25, 0.4]])
    found = change((images - 0.4) / 0.25, drawn, share)
    torch.testing.assert_close(found, (change(images, drawn) - 0.4) / 0.25, rtol=0, atol=1e-5)
    mixed = np.array([[0.25, 0.4], [1.0, 0.0]] * 3)
    given = torch.stack(
        [(image - offset) / scale for image, (scale, offset) in zip(images, mixed, strict=True)]
    ).float()
    wanted = change(images, drawn).double()
    for image, want, (scale, offset) in zip(change(given, drawn, mixed), wanted, mixed, strict=True):
        torch.testing.assert_close(image.double() * scale + offset, want, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize("mode", ["none", "zscore"])
@pytest.mark.parametrize("view", [View(32, jitter=0.1), View(32, solarise=0.1)])
def test_jitter_and_solarisation_are_refused_where_black_and_white_are_not_known(mode: Any, view: View) -> None:
    with pytest.raises(ArgumentError, match=f"normalise={mode} does not know: use percentile, minmax, fullscale or"):
        changing((View(32), view), ["percentile", mode])


@pytest.mark.parametrize("mode", ["none", "zscore", "percentile", (0.5, 0.2)])
def test_a_blur_is_not(mode: Any) -> None:
    views = (View(32), View(32, blur=0.5))
    assert changing(views, [mode]) == views
    assert changing(views[:1], [mode]) == ()

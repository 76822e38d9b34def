"""In-painting against its formulas written out in loops; each test knows the mistakes that it has to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from tests.trainer.objectives.squares import in_double, squares, swin
from trainer.models.backbone import TimmConfig
from trainer.models.unet import UnetDecoder
from trainer.objectives.inpainting import Inpainting, InpaintingConfig, InpaintingModel, pixel_error, pyramid
from trainer.objectives.pixels import real_pixels

LOADER: Any = None  # not looked at
SMALL = TimmConfig(name="test_resnet", side=64)


def _objective(config: TimmConfig = SMALL, seed: int = 0, **options: Any) -> Inpainting:
    torch.manual_seed(seed)
    return InpaintingConfig(**options).build(config, LOADER)


# ------------------------------------------------------------------------------------------------- the loss


def _by_loops(prediction: Tensor, images: Tensor, sizes: list[list[int]]) -> float:
    total, count = 0.0, 0
    for b, (rows, cols) in enumerate(sizes):
        for y in range(rows):
            for x in range(cols):
                for c in range(prediction.shape[1]):
                    total += (float(images[b, 0, y, x]) - float(prediction[b, c, y, x])) ** 2
                    count += 1
    return total / count


def _masked(p: Tensor, x: Tensor, real: Tensor) -> Tensor:
    hidden = torch.zeros_like(real)
    hidden[:, :6] = True
    return pixel_error(p, x, real & hidden)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "": pixel_error,
    "hidden pixels alone": _masked,
    "padding too": lambda p, x, m: pixel_error(p, x, torch.ones_like(m)),
    "not by channels": lambda p, x, m: pixel_error(p, x, m) * p.shape[1],
    "absolute": lambda p, x, m: pixel_error((p - x).abs().sqrt() + x, x, m),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wrong", LOSSES)
def test_the_mean_of_losses_is_that_of_all_real_pixels(wrong: str, channels: int) -> None:
    torch.manual_seed(0)
    batch = in_double(squares(8, 3, empty=(1,)))
    batch.sizes[:, 0] = torch.tensor([7, 0, 7])  # a row of padding
    prediction = torch.randn(3, channels, 8, 8, dtype=torch.float64)
    losses = LOSSES[wrong](prediction, batch.images, real_pixels(batch))
    found = float((losses * batch.weight).sum() / batch.weight.sum())
    wanted = _by_loops(prediction, batch.images, batch.sizes.tolist())
    same = not wrong or (channels == 1 and wrong == "not by channels")
    assert (abs(found - wanted) <= 1e-12) is same


# ------------------------------------------------------------------------------------------------- what is hidden


@pytest.mark.parametrize("wrong", ["", "before normalisation", "32 pixels", "half"])
def test_three_of_four_patches_are_zeros_of_the_normalised_image(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: dict[str, dict[str, Any]] = {"32 pixels": {"unit": 32}, "half": {"mask_ratio": 0.5}}
    objective, batch = _objective(**changed.get(wrong, {})), squares(64, 3)
    seen: list[Tensor] = []
    if wrong == "before normalisation":  # a black pixel is far below the mean
        own = Tensor.masked_fill
        monkeypatch.setattr(Tensor, "masked_fill", lambda x, m, v: own(x, m, -0.5056 / 0.252))
    objective.model.encoder.encoder.conv1.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    out = objective.run(objective.model, batch)
    right = True
    for b in range(3):
        hidden = 0
        for y in range(4):
            for x in range(4):
                at = (b, 0, slice(y * 16, y * 16 + 16), slice(x * 16, x * 16 + 16))
                given, whole = seen[0][at], batch.images[at]
                zeros = not given.any()
                hidden += zeros
                right &= zeros or torch.equal(given, whole)
                right &= bool((out.hidden[at[0], at[2], at[3]] == zeros).all())
        right &= hidden == 12
        cells = out.hidden[b, ::16, ::16]
        right &= not torch.equal(cells, out.hidden[b, ::32, ::32].repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert right is (not wrong)


def test_147_of_196_patches_are_hidden_of_an_image_of_224_pixels() -> None:
    with torch.device("meta"):
        model = InpaintingModel(TimmConfig(name="test_resnet").encoder(), InpaintingConfig())
    assert (model.count, model.rows) == (147, 14)


# ------------------------------------------------------------------------------------------------- the network


class _Other(nn.Module):
    """A decoder with a mistake, on the same weights."""

    def __init__(self, of: UnetDecoder, wrong: str) -> None:
        super().__init__()
        self.of, self.wrong = of, wrong

    def forward(self, x: Tensor, maps: dict[int, Tensor]) -> Tensor:
        for stride, block in zip(self.of.strides, self.of.stages, strict=True):
            if self.wrong == "bilinear":
                x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
            else:
                x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            if stride in maps:
                own = maps[stride] * (0 if self.wrong == "no skips" else 1)
                x = torch.cat([own, x] if self.wrong == "skips first" else [x, own], 1)
            x = block(x)
        return self.of.head(x)  # type: ignore[no-any-return]


def _conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 3 x 3 convolution pixel by pixel."""
    c, h, w = x.shape
    padded = torch.zeros(c, h + 2, w + 2, dtype=x.dtype)
    padded[:, 1:-1, 1:-1] = x
    out = torch.zeros(layer.weight.shape[0], h, w, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            part = (layer.weight * padded[None, :, i : i + 3, j : j + 3]).sum((1, 2, 3))
            out[:, i, j] = part if layer.bias is None else part + layer.bias
    return out


def _decoded(of: UnetDecoder, deepest: Tensor, maps: dict[int, Tensor]) -> Tensor:
    """One image through a decoder in evaluation, written out."""
    x = deepest
    for stride, block in zip(of.strides, of.stages, strict=True):
        x = torch.stack([torch.stack([x[:, i // 2, j // 2] for j in range(2 * x.shape[2])], 1)
                         for i in range(2 * x.shape[1])], 1)  # fmt: skip
        if stride in maps:
            x = torch.cat([x, maps[stride]])
        assert isinstance(block, nn.Sequential)
        for at in (0, 3):
            layer, norm = block[at], block[at + 1]
            assert isinstance(layer, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_var is not None
            assert norm.running_mean is not None
            x = _conv(x, layer)
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            x = ((x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    return _conv(x, of.head)


@pytest.mark.parametrize("wrong", ["", "bilinear", "skips first", "no skips"])
def test_the_decoder_is_a_u_net_s(wrong: str) -> None:
    torch.manual_seed(0)
    decoder = UnetDecoder(6, 8, {2: 3, 4: 6}, 2, (6, 4, 3)).double().eval()
    for module in decoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.weight.data, module.bias.data):
                value.normal_()  # type: ignore[union-attr]
    deepest, maps = torch.randn(1, 6, 2, 2), {2: torch.randn(1, 3, 8, 8), 4: torch.randn(1, 6, 4, 4)}
    deepest, maps = deepest.double(), {stride: x.double() for stride, x in maps.items()}
    with torch.no_grad():
        found = (_Other(decoder, wrong) if wrong else decoder)(deepest, maps)
        wanted = _decoded(decoder, deepest[0], {stride: x[0] for stride, x in maps.items()})
    assert found.shape == (1, 2, 16, 16)
    assert (float((found[0] - wanted).abs().max()) <= 1e-12) is (not wrong)


def test_the_network_on_densenet_has_the_shapes_of_the_published_one() -> None:
    with torch.device("meta"):
        model = InpaintingModel(TimmConfig(name="densenet121").encoder(), InpaintingConfig())
    assert [own for _, own in model.pyramid.values()] == [64, 256, 512, 1024]
    assert [name for name, _ in model.pyramid.values()][1] == "features.transition1.norm", "behind norm and ReLU"
    shapes = [tuple(m.weight.shape) for m in model.decoder.modules() if isinstance(m, nn.Conv2d)]
    firsts = [(256, 2048), (128, 768), (64, 384), (32, 128), (16, 32)]
    both = [shape for out, wide in firsts for shape in ((out, wide, 3, 3), (out, out, 3, 3))]
    assert shapes == [*both, (1, 16, 3, 3)]
    assert sum(p.numel() for p in model.decoder.parameters()) == 6_653_777
    tokens = torch.tensor([49.0, 0.0], dtype=torch.float64)
    assert model.flops(tokens)[1] == 0
    assert float(model.flops(tokens)[0]) > 1.5 * float(model.encoder.flops(tokens)[0])


def test_maps_are_those_of_the_image_with_its_hidden_patches() -> None:
    objective = _objective(TimmConfig(name="test_resnet", side=64))
    objective.model.eval()
    batch, given = squares(64, 2), list[Any]()
    objective.model.decoder.register_forward_pre_hook(lambda module, args: given.append(args))
    with torch.no_grad():
        out = objective.run(objective.model, batch)
        x = batch.images * ~out.hidden[:, None]
        encoder = objective.model.encoder.encoder
        x = encoder.act1(encoder.bn1(encoder.conv1(x)))
        torch.testing.assert_close(given[0][1][2], x)
        torch.testing.assert_close(given[0][0], encoder.forward_features(batch.images * ~out.hidden[:, None]))
    assert not any(m._forward_hooks for m in encoder.modules()), "nothing stays hooked"


# ------------------------------------------------------------------------------------------------- as all methods


@pytest.mark.parametrize("channels", [1, 3])
def test_places_without_an_image_count_in_nothing(channels: Any) -> None:
    """Nor in the statistics of batch normalisation, of encoder and decoder."""
    found: list[tuple[list[Tensor], dict[str, Tensor]]] = []
    full, padded = squares(64, 2), squares(64, 4, empty=(1, 3))
    padded.images[[0, 2]], padded.seeds[[0, 2]] = full.images, full.seeds
    for batch in (full, padded):
        objective = _objective(TimmConfig(name="test_resnet", side=64, channels=channels))
        out = objective.run(objective.model, batch)
        out.loss.backward()  # type: ignore[no-untyped-call]
        assert out.losses.isfinite().all()
        grads = [p.grad.clone() for p in objective.model.parameters() if p.grad is not None]
        found.append((grads, objective.model.state_dict()))
        assert len(grads) == sum(p.requires_grad for p in objective.model.parameters())
    for one, two in zip(*(grads for grads, _ in found), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], msg=name)
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    nothing = objective.run(objective.model, squares(64, 2, empty=(0, 1)))
    assert float(nothing.loss.detach()) == 0.0
    assert objective.model.decoder.training
    for name, value in objective.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_skipped_step_leaves_the_running_statistics_as_they_were() -> None:
    objective = _objective()
    objective.run(objective.model, squares(64, 2))
    objective.model.stepped()
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    for seed in (1, 2):
        objective.run(objective.model, squares(64, 2, seed=seed))
    assert not torch.equal(
        objective.model.state_dict()["decoder.stages.0.1.running_mean"], before["decoder.stages.0.1.running_mean"]
    )
    objective.model.skipped()
    for name, value in objective.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_encoder_loads_strictly_into_timm() -> None:
    objective = _objective(TimmConfig(name="densenet121", side=64, channels=3))
    timm.create_model("densenet121", num_classes=0).load_state_dict(objective.model.encoder.encoder.state_dict())


def test_a_picture_shows_what_was_hidden_and_all_that_was_made() -> None:
    objective = _objective()
    batch = squares(64, 3, empty=(1,))
    with torch.no_grad():
        picture = objective.picture(batch, objective.run(objective.model, batch))
    assert picture.dtype == np.uint8
    assert picture.shape[0] == 24 + 2 * 246 + 6, "two images"
    assert (picture[30:230, 252:480] == 110).mean() > 0.5, "hidden patches are grey"
    assert "{" not in objective.picture_meaning


def test_what_has_no_feature_maps_is_refused() -> None:
    for config in (swin(), TimmConfig(name="test_vit", side=64)):
        with pytest.raises(
            ArgumentError, match=r"in-painting needs the feature maps .* --model, such as timm:densenet121"
        ):
            _objective(config)
    with pytest.raises(ArgumentError, match="a divisor of the images' side, 64"):
        _objective(unit=24)
    with pytest.raises(ArgumentError, match="above 0, and below 1"):
        InpaintingConfig(mask_ratio=1.0)
    assert set(pyramid(TimmConfig(name="test_convnext", side=64).encoder())) == {4, 8, 16}


def test_a_decoder_has_the_channels_that_are_asked_for_and_one_with_too_few_is_refused() -> None:
    small, usual = _objective(decoder=(8, 6, 4, 4, 2)).model, _objective().model
    stages: Any = small.decoder.stages
    assert [stage[0].out_channels for stage in stages] == [8, 6, 4, 4, 2][: len(stages)]
    tokens = torch.ones(1, dtype=torch.float64)
    assert float(small.encoder.flops(tokens)[0]) < float(small.flops(tokens)[0]) < float(usual.flops(tokens)[0])
    with pytest.raises(ArgumentError, match=r"--objective\.decoder.* numbers for"):
        _objective(decoder=(8,))

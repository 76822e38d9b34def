"""SimMIM against its formulas written out in loops; each test knows the mistakes that it has to notice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from tests.trainer.objectives.squares import in_double, shared_bias, squares, swin
from trainer import metrics
from trainer.models.backbone import TimmConfig, TimmEncoder
from trainer.models.vit import VitConfig
from trainer.objectives import simmim
from trainer.objectives.pixels import enlarged, hidden_units, real_pixels
from trainer.objectives.simmim import SimMim, SimMimConfig, SimMimModel, masked_error

LOADER: Any = None  # not looked at


def _objective(config: TimmConfig, seed: int = 0, **options: Any) -> SimMim:
    torch.manual_seed(seed)
    return SimMimConfig(**options).build(config, LOADER)


# ------------------------------------------------------------------------------------------------- the loss


def _by_loops(prediction: Tensor, images: Tensor, hidden: Tensor, there: list[bool]) -> float:
    """sum |x - x^| m / (sum m + 1e-5) / C."""
    total, count = 0.0, 0
    for b in range(len(images)):
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                if there[b] and hidden[b, y, x]:
                    count += 1
                    for c in range(prediction.shape[1]):
                        total += abs(float(images[b, 0, y, x]) - float(prediction[b, c, y, x]))
    return total / (count + 1e-5) / prediction.shape[1]


def _per_image(prediction: Tensor, images: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    error = ((images - prediction).abs() * hidden[:, None]).sum((1, 2, 3))
    return error / (hidden.sum((1, 2)) + 1e-5) / prediction.shape[1]


LOSSES: dict[str, Callable[..., Tensor]] = {
    "": masked_error,
    "all pixels": lambda p, x, m, w: masked_error(p, x, torch.ones_like(m), w),
    "a mean of the images' means": _per_image,
    "not by channels": lambda p, x, m, w: masked_error(p, x, m, w) * p.shape[1],
    "squared": lambda p, x, m, w: masked_error((p - x).square() + x, x, m, w),
    "nothing added to the count": lambda p, x, m, w: masked_error(p, x, m, w) * (1 + 1e-5 / m.sum()),
    "by places": lambda p, x, m, w: masked_error(p, x, m, torch.ones_like(w)),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wrong", LOSSES)
def test_the_mean_of_losses_is_the_batch_s_formula(wrong: str, channels: int) -> None:
    torch.manual_seed(0)
    batch = in_double(squares(8, 4, empty=(1,)))
    prediction = torch.randn(4, channels, 8, 8, dtype=torch.float64)
    hidden = (torch.rand(4, 8, 8) < torch.tensor([0.2, 0.5, 0.9, 0.5])[:, None, None]) & real_pixels(batch)
    losses = LOSSES[wrong](prediction, batch.images, hidden, batch.weight)
    found = float((losses * batch.weight).sum() / batch.weight.sum())
    wanted = _by_loops(prediction, batch.images, hidden, batch.weight.bool().tolist())
    same = not wrong or (channels == 1 and wrong == "not by channels")
    assert (abs(found - wanted) <= 1e-12) is same


# ------------------------------------------------------------------------------------------------- masks


def test_squares_are_hidden_by_seed_and_as_many_as_published() -> None:
    for side, count, of in ((224, 30, 49), (192, 22, 36)):
        rows = side // 32
        assert of == rows**2
        seeds = torch.arange(64) * 7919
        hidden = hidden_units(seeds, rows, rows, count)
        assert (hidden.sum((1, 2)) == count).all()
        assert torch.equal(hidden[5:6], hidden_units(seeds[5:6], rows, rows, count)), "whatever else is in the batch"
        assert len({tuple(h.flatten().tolist()) for h in hidden}) == 64
        share = hidden.float().mean(0)
        assert share.min() > 0.35, "no square is preferred"
        assert share.max() < 0.85


@pytest.mark.parametrize("wrong", [False, True])
def test_the_number_of_hidden_squares_is_rounded_up(wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if wrong:
        monkeypatch.setattr(simmim, "ceil", math.floor)
    found = []
    with torch.device("meta"):
        for side, changes in ((224, ()), (192, ("window_size=6", "depths=(1,1,1,1)"))):
            config = TimmConfig(name="swin_base_patch4_window7_224", side=side, changes=changes)
            model = SimMimModel(config.encoder(), SimMimConfig())
            found.append((model.count, model.rows**2))
    assert found == ([(29, 49), (21, 36)] if wrong else [(30, 49), (22, 36)])


@pytest.mark.parametrize("unit", [32, 16])
def test_all_pixels_of_a_square_are_hidden_or_none(unit: int) -> None:
    objective = _objective(shared_bias(), unit=unit)
    hidden = objective.run(objective.model, squares(96, 3)).hidden
    shares = hidden.float().unfold(1, 32, 32).unfold(2, 32, 32).mean((3, 4))
    assert bool(((shares == 0) | (shares == 1)).all()) is (unit == 32), "units of 16 pixels are seen"
    assert (hidden.flatten(1).sum(1) == math.ceil(0.6 * (96 // unit) ** 2) * unit**2).all()


@pytest.mark.parametrize("make", [shared_bias, swin])
@pytest.mark.parametrize("wrong", ["", "transposed", "not enlarged"])
def test_the_embeddings_of_hidden_pixels_are_the_token_and_no_others(
    make: Any, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Swin 8 x 8 embeddings lie in a square, rows and columns before channels; of ViT 2 x 2, in one row."""
    objective = _objective(make())
    side, patch = objective.model.encoder.side, objective.model.encoder.encoder.patch_embed.patch_size[0]
    cells, whole = side // patch, simmim._replaced
    if wrong == "transposed":
        monkeypatch.setattr(simmim, "_replaced", lambda e, t, m, w: whole(e, t, m.transpose(1, 2), w))
    if wrong == "not enlarged":
        tiled = cells // objective.model.rows
        monkeypatch.setattr(simmim, "_replaced", lambda e, t, m, w: whole(e, t, m.repeat(1, tiled, tiled), w))
    nn.init.constant_(objective.model.mask_token, 3.0)
    seen: list[Tensor] = []
    embedding = objective.model.encoder.encoder.patch_embed
    batch, inner = squares(side, 2, seed=3), embedding.forward

    def watched(x: Tensor) -> Tensor:
        seen.append(inner(x))
        return seen[0]

    monkeypatch.setattr(embedding, "forward", watched)
    before = dict(embedding._forward_hooks)
    after: list[Tensor] = []
    follow = objective.model.encoder.encoder
    follow = follow.pos_drop if hasattr(follow, "pos_drop") else follow.layers
    follow.register_forward_pre_hook(lambda module, given: after.append(given[0]))
    hidden = objective.run(objective.model, batch).hidden
    assert dict(embedding._forward_hooks) == before, "nothing stays hooked"
    plain, given = (x[:, -(cells**2) :] if x.ndim == 3 else x.flatten(1, 2) for x in (seen[0], after[0]))
    right = True
    for b in range(2):
        for y in range(cells):
            for x in range(cells):
                wanted = (
                    torch.full_like(plain[b, 0], 3.0) if hidden[b, y * patch, x * patch] else plain[b, y * cells + x]
                )
                right &= torch.equal(given[b, y * cells + x], wanted)
    assert right is (not wrong)


@pytest.mark.parametrize("wrong", ["", "after positions"])
def test_positions_are_added_to_the_token(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = _objective(TimmConfig(name="test_vit", side=64))
    encoder = objective.model.encoder.encoder
    nn.init.normal_(encoder.pos_embed)
    batch = squares(64, 2)
    if wrong:
        monkeypatch.setattr(simmim, "_replaced", lambda e, token, hidden, there: _late(encoder, token, hidden))
    seen: list[Tensor] = []
    encoder.blocks[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    hidden = objective.run(objective.model, batch).hidden[:, ::16, ::16].flatten(1)
    wanted = objective.model.mask_token[0, 0] + encoder.pos_embed[0, encoder.num_prefix_tokens :]
    own = seen[0][:, encoder.num_prefix_tokens :]
    assert torch.allclose(own[hidden], wanted.expand(2, -1, -1)[hidden]) is (not wrong)
    assert not torch.allclose(own[~hidden], wanted.expand(2, -1, -1)[~hidden])


@contextmanager
def _late(encoder: Any, token: Tensor, hidden: Tensor) -> Iterator[None]:
    """The mistake: the token is put in place of embedding and position."""

    def replace(module: nn.Module, given: Any, x: Tensor) -> Tensor:
        mask = enlarged(hidden, 2).flatten(1)
        return torch.where(nn.functional.pad(mask, (encoder.num_prefix_tokens, 0))[:, :, None], token, x)

    hook = encoder.pos_drop.register_forward_hook(replace)
    yield
    hook.remove()


# ------------------------------------------------------------------------------------------------- the head


class _PixelsFirst(nn.Module):
    """The other order: channels of one pixel lie together."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        parts = x.view(b, self.stride, self.stride, self.channels, h, w)
        return parts.permute(0, 3, 4, 1, 5, 2).reshape(b, self.channels, h * self.stride, w * self.stride)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wrong", [False, True])
def test_each_output_of_the_linear_map_is_one_pixel_channel_by_channel(wrong: bool, channels: Any) -> None:
    objective = _objective(shared_bias(channels))
    head, stride = objective.model.head, 16
    assert isinstance(head[0], nn.Conv2d)
    if wrong:
        head[1] = _PixelsFirst(stride, channels)
    features = torch.zeros(1, 32, 6, 6)
    features[0, 5, 2, 4] = 1.0  # a token of row 2, column 4
    right = True
    for c, y, x in ((0, 0, 0), (0, 3, 7), (channels - 1, 15, 2), (channels - 1, 9, 9)):
        nn.init.zeros_(head[0].weight)
        nn.init.zeros_(head[0].bias)  # type: ignore[arg-type]
        with torch.no_grad():
            head[0].weight[c * stride**2 + y * stride + x, 5] = 1.0
            found = head(features)
        wanted = torch.zeros(1, channels, 96, 96)
        wanted[0, c, 2 * stride + y, 4 * stride + x] = 1.0
        right &= torch.equal(found, wanted)
    assert right is (not wrong or channels == 1)


def test_features_are_the_encoder_s_own_with_the_token_in_it() -> None:
    """All of it once more in float64: timm's model, hidden by hand, and the head."""
    objective = _objective(shared_bias(3))
    objective.model.double().eval()
    batch = in_double(squares(96, 2))
    out = objective.run(objective.model, batch)
    encoder, images = objective.model.encoder.encoder, batch.images.expand(-1, 3, -1, -1)
    x = encoder.patch_embed(images)
    hidden = out.hidden[:, ::16, ::16].flatten(1)[:, :, None]
    x = torch.where(hidden, objective.model.mask_token, x)
    x = torch.cat([encoder.cls_token.expand(2, -1, -1), x], 1)
    for block in encoder.blocks:
        x = block(x, shared_rel_pos_bias=encoder.rel_pos_bias())
    x = encoder.norm(x)[:, 1:].transpose(1, 2).reshape(2, 32, 6, 6)
    torch.testing.assert_close(out.prediction, objective.model.head(x), rtol=0, atol=1e-12)
    wanted = _by_loops(out.prediction.detach(), batch.images, out.hidden, [True, True])
    assert abs(float(out.losses.detach().mean()) - wanted) <= 1e-12
    assert not any(isinstance(v, nn.Identity) for v in (encoder.norm, encoder.rel_pos_bias))
    assert encoder.pos_embed is None
    assert float(encoder.blocks[0].gamma_1.detach()[0]) == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------- as all methods


@pytest.mark.parametrize("make", [shared_bias, swin])
@pytest.mark.parametrize("channels", [1, 3])
def test_places_without_an_image_count_in_nothing(make: Any, channels: Any) -> None:
    objective = _objective(make(channels))
    side = objective.model.encoder.side
    full, padded = squares(side, 2), squares(side, 3, empty=(2,))
    padded.images[:2], padded.seeds[:2] = full.images, full.seeds
    grads: list[list[Tensor]] = []
    for batch in (full, padded):
        out = objective.run(objective.model, batch)
        objective.model.zero_grad()
        out.loss.backward()  # type: ignore[no-untyped-call]
        grads.append([p.grad.clone() for p in objective.model.parameters() if p.grad is not None])
        measured = out.metrics
        assert out.losses[out.weight == 0].isfinite().all()
    assert len(grads[0]) == sum(p.requires_grad for p in objective.model.parameters()), "all that is trained takes part"
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    rank = metrics.finished(metrics.for_later(measured))["metrics/effective_rank"]
    assert rank.tolist() == [0, 0], "two images do not tell"
    nothing = objective.run(objective.model, squares(side, 2, empty=(0, 1)))
    assert float(nothing.loss.detach()) == 0.0


@pytest.mark.parametrize("wrong", [False, True])
def test_nothing_is_drawn_from_torchs_random_numbers(wrong: bool) -> None:
    """So that another number of processes, or a resumed run, draws the same."""
    objective = _objective(shared_bias(drop_path=0.5))
    if wrong:
        for parent in list(objective.model.encoder.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, DropPath):
                    setattr(parent, name, DropPath(child.drop_prob))
    batch, found = squares(96, 8, empty=(3,)), []
    for seed in range(2):
        torch.manual_seed(seed)
        found.append(objective.run(objective.model, batch).losses)
    assert torch.equal(*found) is (not wrong)
    other = replace(batch, seeds=batch.seeds + 1)
    assert not torch.equal(found[0], objective.run(objective.model, other).losses)


def test_stochastic_depth_leaves_out_branches_of_images_as_often_as_it_says() -> None:
    encoder = TimmEncoder("test_vit", 64, 0.5).train()
    layers = [m for m in encoder.modules() if isinstance(m, DropPath) and m.drop_prob == 0.5]
    assert len(layers) == 2, "of the last block"
    encoder._drawn.begin(torch.arange(4000) * 7919)
    kept = [layer(torch.ones(4000, 3, 2)) for layer in layers]
    for x in kept:
        assert set(x.unique().tolist()) == {0.0, 2.0}
        assert (x == x[:, :1, :1]).all(), "all of an image, or nothing"
        assert float(x.mean()) == pytest.approx(1.0, abs=0.06)
    assert not torch.equal(*kept), "each branch for itself"
    encoder.eval()
    assert torch.equal(layers[0](torch.ones(4, 3)), torch.ones(4, 3))


def test_the_encoder_loads_strictly_into_timm() -> None:
    model = _objective(shared_bias(3)).model
    theirs = timm.create_model(
        "beit_base_patch16_224", img_size=96, num_classes=0, embed_dim=32, depth=2, num_heads=2,
        use_rel_pos_bias=False, use_shared_rel_pos_bias=True, global_pool="token",
    )  # fmt: skip
    theirs.load_state_dict(model.encoder.encoder.state_dict())


def test_what_decays_is_what_decays_in_the_method_s_code() -> None:
    model = _objective(swin()).model
    exempt = model.no_weight_decay()
    assert any("relative_position_bias_table" in name for name in exempt)
    assert exempt <= dict(model.named_parameters()).keys()
    assert "mask_token" not in exempt
    assert model.mask_token.ndim > 1


def test_a_picture_shows_what_was_hidden_and_made_of_it() -> None:
    objective = _objective(shared_bias())
    batch = squares(96, 3, empty=(0,))
    objective.model.eval()
    with torch.no_grad():
        picture = objective.picture(batch, objective.run(objective.model, batch))
    assert picture.dtype == np.uint8
    assert picture.shape[0] == 24 + 2 * 246 + 6, "two images"
    assert "{" not in objective.picture_meaning
    assert (picture[24 + 6 :, 246 + 6 :][:200, :230] == 110).mean() > 0.3, "hidden squares are grey"


def test_what_cannot_be_hidden_is_refused() -> None:
    with pytest.raises(ArgumentError, match="hides patch embeddings, and test_resnet has none"):
        _objective(TimmConfig(name="test_resnet", side=64))
    with pytest.raises(ArgumentError, match=r"is for models of timm's, which --model\.name names, and not for a Vit"):
        SimMimConfig().build(VitConfig(), LOADER)
    with pytest.raises(ArgumentError, match="a divisor of the images' side, 96"):
        _objective(shared_bias(), unit=36)
    with pytest.raises(ArgumentError, match="a multiple of the model's patches, 16 pixels"):
        _objective(shared_bias(), unit=24)
    with pytest.raises(ArgumentError, match="above 0, and 1 at most"):
        SimMimConfig(mask_ratio=0.0)

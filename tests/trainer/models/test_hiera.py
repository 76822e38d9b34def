"""Hiera as a masked autoencoder: against timm's model, against formulas written out, and what may depend on what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from timm.models.hiera import Hiera
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from trainer.models.hiera import HieraConfig, HieraMae, flops
from trainer.models.hiera_formats import load_timm

SIDE = 128  # 4 x 4 mask units, of which 6 are visible
SMALL = HieraConfig(arch="hiera_micro", side=SIDE, decoder_width=32, decoder_depth=1, decoder_heads=4)


@pytest.fixture(scope="module")
def model() -> HieraMae:
    """Its norms are not the identity, its biases not zero; tests leave it as it is."""
    return _random(SMALL)


def _random(config: HieraConfig) -> HieraMae:
    torch.manual_seed(0)
    model = HieraMae(config)
    for p in model.parameters():
        if p.ndim == 1:  # biases and norms, which begin at zero and one
            torch.nn.init.normal_(p.data, p.data.mean().item(), 0.1)
    return model


def _timm(name: str = "hiera_micro", **changes: Any) -> Hiera:
    found = timm.create_model(name, **{"in_chans": 1, "num_classes": 0, **changes})
    assert isinstance(found, Hiera)
    return found


@pytest.fixture
def batch(make_binned: Any) -> BinnedBatch:
    """Two images and a place without one."""
    torch.manual_seed(1)
    made: BinnedBatch = make_binned(list(torch.rand(2, SIDE, SIDE)), [(SIDE, SIDE)] * 2, SIDE, SIDE, 3)
    return made


def _pixels(masked: Tensor, batch: BinnedBatch) -> Tensor:
    """bool (B, 1, side, side): hidden pixels."""
    side = batch.images.shape[-1]
    grid = masked.view(-1, 1, side // 16, side // 16)
    return grid.repeat_interleave(16, -1).repeat_interleave(16, -2)


def _patches(images: Tensor) -> Tensor:
    """(B, 1, side, side) -> (B, patches, 256)."""
    return F.unfold(images, 16, stride=16).transpose(1, 2)


# --- the encoder is timm's


@pytest.mark.parametrize(
    ("arch", "side"), [("hiera_tiny_224", 224), ("hiera_base_plus_224", 224), ("hiera_small_abswin_256", 256)]
)
def test_names_and_shapes_of_the_encoder_are_those_of_timm_s_default_model(arch: str, side: int) -> None:
    with torch.device("meta"):
        ours, theirs = HieraMae(HieraConfig(arch=arch, side=side)), _timm(arch)
    assert {k: v.shape for k, v in ours.encoder.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


def test_the_encoder_loads_strictly_into_timm_s_model_and_back(model: HieraMae) -> None:
    other, again = _timm(img_size=SIDE), HieraMae(SMALL)
    other.load_state_dict(model.encoder.state_dict(), strict=True)
    again.encoder.load_state_dict(other.state_dict(), strict=True)
    pairs = zip(model.encoder.state_dict().items(), again.encoder.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@torch.no_grad()
def test_with_nothing_hidden_features_are_timm_s_fused(model: HieraMae, batch: BinnedBatch) -> None:
    """timm's default pools once more, before its last stage, so that only what comes before can be the same."""
    default, pooled_twice = (_timm(img_size=SIDE, q_pool=pools) for pools in (3, 2))
    for other in (default, pooled_twice):
        other.load_state_dict(model.encoder.state_dict())
    wanted = pooled_twice.forward_features(batch.images, return_intermediates=True)[1]  # each (B, rows, cols, channels)
    for one, two in zip(wanted[:3], default.forward_features(batch.images, return_intermediates=True)[1], strict=False):
        torch.testing.assert_close(one, two)
    first, second = model.multi_scale_fusion_heads
    maps = [stage.permute(0, 3, 1, 2) for stage in wanted]
    fused = pooled_twice.head.norm((first(maps[0]) + second(maps[1]) + maps[3]).permute(0, 2, 3, 1))
    found = model.encode(batch.images, torch.ones(3, 16, dtype=torch.bool), 16).view(3, 4, 4, 2, 2, -1)
    torch.testing.assert_close(found.permute(0, 1, 3, 2, 4, 5).reshape(3, 8, 8, -1), fused, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_colour_checkpoint_gives_grey_images_the_features_they_had(batch: BinnedBatch) -> None:
    torch.manual_seed(2)
    colour = _timm(img_size=SIDE, in_chans=3, num_classes=5, q_pool=2)
    torch.nn.init.normal_(colour.head.norm.weight)
    model = HieraMae(SMALL)
    own = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    missing = load_timm(model, colour.state_dict())
    assert missing == sorted(own)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in own.items())
    assert torch.equal(model.encoder.head.norm.weight, colour.head.norm.weight)
    wanted = colour.forward_features(batch.images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(model.encoder.forward_features(batch.images), wanted, rtol=1e-4, atol=1e-5)


def test_a_whole_model_comes_back_from_our_names_and_from_those_of_the_public_code(model: HieraMae) -> None:
    own = model.state_dict()
    public = {name.removeprefix("encoder.").replace("head.norm.", "encoder_norm."): v for name, v in own.items()}
    kernel = public["patch_embed.proj.weight"]
    public["patch_embed.proj.weight"] = torch.cat([kernel - 1, kernel, 1 - kernel], 1)  # its sum is the kernel
    for name in ("decoder_pred.weight", "decoder_pred.bias"):
        public[name] = torch.cat([public[name] - 1, public[name], public[name] + 1])  # a colour after the other
    for state in (own, public, {"model_state": public}):
        again = HieraMae(SMALL)
        assert load_timm(again, state) == []  # type: ignore[arg-type]
        for name, value in again.state_dict().items():
            torch.testing.assert_close(value, own[name], rtol=0, atol=1e-6, msg=name)


# --- what is hidden


@pytest.mark.parametrize("ratio", [0.6, 0.8])
def test_every_image_hides_whole_mask_units_as_many_as_the_paper(make_binned: Any, ratio: float) -> None:
    images = make_binned([torch.zeros(160, 160)] * 4, [(160, 160)] * 4, 160, 160, 5)
    with torch.no_grad():
        out = HieraMae(replace(SMALL, side=160, mask_ratio=ratio))(images)
    units = out.masked.view(5, 5, 2, 5, 2)
    assert torch.equal(units, units[:, :, :1, :, :1].expand_as(units))
    assert units[:, :, 0, :, 0].sum((1, 2)).tolist() == [25 - int(25 * (1 - ratio))] * 5


def test_at_224_pixels_19_of_49_mask_units_are_visible_and_patches_are_16_pixels() -> None:
    with torch.device("meta"):
        model = HieraMae(HieraConfig())
    assert (model.visible, model.rows**2, model.unit, model.patch) == (19, 49, 32, 16)
    assert len(model.blocks) == 1 + 2 + 7 + 2


def test_stochastic_depth_is_that_of_the_seeds_and_not_of_torch_s_random_numbers(batch: BinnedBatch) -> None:
    model, found = _random(replace(SMALL, drop_path=0.5)).train(), []
    for state, other in ((0, 0), (1, 0), (0, 1)):
        torch.manual_seed(state)
        visible = torch.ones(3, 16, dtype=torch.bool)
        model._drawn.begin(batch.seeds + 100 * other)
        found.append(model.encode(batch.images, visible).detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    (loss,) = {float(model(batch).loss.detach()) for _ in range(2)}
    assert loss > 0


@torch.no_grad()
def test_masks_are_those_of_the_seeds(model: HieraMae, batch: BinnedBatch) -> None:
    def masks(*seeds: int) -> Tensor:
        masked: Tensor = model(replace(batch, seeds=torch.tensor(seeds))).masked
        return masked.view(3, -1)

    one, two = masks(11, 12, 13), masks(12, 11, 12)
    assert torch.equal(one[[1, 0, 1]], two)
    assert len({tuple(of) for of in one.tolist()}) == 3


@torch.no_grad()
def test_hidden_pixels_do_not_reach_predictions_and_visible_ones_reach_all_of_their_image(
    model: HieraMae, batch: BinnedBatch
) -> None:
    out = model(batch)
    hidden = _pixels(out.masked, batch)
    changed = torch.where(hidden, torch.randn_like(batch.images) * 100, batch.images)
    assert torch.equal(model(replace(batch, images=changed)).prediction, out.prediction)
    changed = batch.images.clone()
    row, col = (~hidden[0, 0]).nonzero()[0]
    changed[0, 0, row, col] += 5
    differs = (model(replace(batch, images=changed)).prediction != out.prediction).any(-1).view(3, -1)
    assert differs.all(1).tolist() == differs.any(1).tolist() == [True, False, False]


@torch.no_grad()
def test_a_decoder_without_blocks_puts_every_token_in_its_place(batch: BinnedBatch) -> None:
    model = _random(replace(SMALL, decoder_depth=0))
    out = model(batch)
    hidden = out.masked.view(3, 4, 2, 4, 2)[:, :, 0, :, 0]
    features = model.decoder_embed(model.encode(batch.images, ~hidden.flatten(1)))
    wanted = model.mask_token.expand(3, 64, -1).clone()
    for image in range(3):
        for unit, (row, col) in enumerate((~hidden[image]).nonzero().tolist()):
            for i in range(2):
                for j in range(2):
                    wanted[image, (2 * row + i) * 8 + 2 * col + j] = features[image, unit, i, j]
    wanted = model.decoder_pred(model.decoder_norm(wanted + model.decoder_pos_embed))
    torch.testing.assert_close(out.prediction.view(3, 64, -1), wanted)


# --- the loss


@pytest.mark.parametrize("norm_pix", [False, True])
@torch.no_grad()
def test_the_loss_is_the_mean_squared_error_of_hidden_patches_without_padding(make_binned: Any, norm_pix: bool) -> None:
    torch.manual_seed(3)
    sizes = [(SIDE, SIDE), (100, 70)]
    batch = make_binned([torch.rand(size) for size in sizes], sizes, SIDE, SIDE, 2)
    out = _random(replace(SMALL, norm_pix=norm_pix))(batch)
    target = _patches(batch.images).contiguous()
    real = torch.zeros_like(batch.images)
    for image, (height, width) in enumerate(sizes):
        real[image, 0, :height, :width] = 1
    real = _patches(real).bool()
    if norm_pix:
        for pixels, own in zip(target.flatten(0, 1), real.flatten(0, 1), strict=True):
            if own.any():
                centred = pixels[own] - pixels[own].mean()
                pixels[own] = centred / (centred.square().sum() / (own.sum() - 1) + 1e-6).sqrt()
    square = (out.prediction.view(2, 64, 256) - target).square()
    masked = out.masked.view(2, 64)
    cropped = [square[1, i][real[1, i]].mean() for i in range(64) if masked[1, i] and real[1, i].any()]
    assert len(cropped) < masked[1].sum()
    torch.testing.assert_close(out.losses, torch.stack([square[0][masked[0]].mean(), torch.stack(cropped).mean()]))
    torch.testing.assert_close(out.loss, out.losses.sum())


def test_a_place_without_an_image_counts_for_nothing(model: HieraMae, batch: BinnedBatch) -> None:
    def loss_and_gradients(of: BinnedBatch) -> list[Tensor]:
        out = model(of)
        assert out.images == (of.rows >= 0).sum()
        return [out.loss, *torch.autograd.grad(out.loss, list(model.parameters()))]

    filled = batch.images.clone()
    filled[2] = torch.rand(1, SIDE, SIDE)
    alone = BinnedBatch(filled[:2], batch.sizes[:2], batch.rows[:2], batch.seeds[:2], batch.position)
    wanted = loss_and_gradients(alone)
    for images in (batch.images, filled):
        for one, two in zip(loss_and_gradients(replace(batch, images=images)), wanted, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    nothing = replace(batch, rows=torch.full((3,), -1), sizes=torch.zeros(3, 2, dtype=torch.int64))
    assert all((value == 0).all() for value in loss_and_gradients(nothing))


# --- training


def test_every_parameter_is_trained_and_takes_part_in_every_step(model: HieraMae, batch: BinnedBatch) -> None:
    """Processes that exchange gradients wait for all of them: none may be without, even with nothing hidden."""
    assert all(p.requires_grad for p in model.parameters())
    names = [name for name, _ in model.named_parameters()]
    gradients = torch.autograd.grad(model(batch).loss, list(model.parameters()), allow_unused=True)
    assert [name for name, grad in zip(names, gradients, strict=True) if grad is None or not grad.any()] == []
    whole = HieraMae(replace(SMALL, mask_ratio=0.0))
    out = whole(batch)
    out.loss.backward()
    assert not out.masked.any()
    assert [name for name, p in whole.named_parameters() if p.grad is None] == []


def test_a_few_dozen_steps_on_two_images_bring_the_loss_down(make_binned: Any) -> None:
    torch.manual_seed(4)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    images = [(6 * x).sin() * (4 * y).cos(), (x * x + y * y).sqrt()]
    batch = make_binned(images, [(96, 96)] * 2, 96, 96, 2)
    model = HieraMae(HieraConfig(arch="hiera_micro", side=96, decoder_width=64, decoder_depth=2, decoder_heads=4))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = model(batch).loss / 2
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.9, "nothing is known of normalised targets at first"
    assert losses[-1] < 0.4 * losses[0]


# --- what it costs


@pytest.mark.parametrize(
    "config",
    [
        HieraConfig(),
        HieraConfig(arch="hiera_small_abswin_256", side=256, mask_ratio=0.75, decoder_width=96, decoder_depth=2),
    ],
)
def test_operations_are_those_that_pytorch_counts(make_binned: Any, config: HieraConfig) -> None:
    side = config.side
    batch = make_binned([torch.rand(side, side)], [(side, side)], side, side, 1)
    model = HieraMae(config)

    def attention(q: Any, *_: Any, **__: Any) -> Any:  # (tokens, heads, width), one image
        shape = (1, q[1], q[0], q[2])
        return sdpa_flop_count(shape, shape, shape)  # type: ignore[no-untyped-call]

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.trainer.segments: attention})
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:  # matrix products, which it counts
        model(batch)
    assert flops(config) == pytest.approx(counter.get_total_flops(), rel=1e-3)


# --- what is refused


def test_images_of_another_size_and_packed_ones_are_refused(
    model: HieraMae, make_binned: Any, make_packed: Any
) -> None:
    other = make_binned([torch.rand(96, 64)], [(96, 64)], 96, 64, 1)
    with pytest.raises(ArgumentError, match="96x64 and the model takes 128x128: choose batching resized:side=128"):
        model(other)
    with pytest.raises(ArgumentError, match="packed and the model takes 128x128"):
        model(make_packed([(32, 32)])[0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arch": "vit_base_patch16_224"}, "arch=vit_base_patch16_224 is not a Hiera of timm's: .*hiera_tiny_224"),
        ({"side": 100}, "side=100 must be a multiple of 32"),
        ({"mask_ratio": 0.99}, "mask_ratio=0.99 must be at least 0 and leave one of 49 mask units"),
        ({"mask_ratio": -0.1}, "mask_ratio=-0.1 must be at least 0"),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ArgumentError, match=sentence):
        HieraMae(replace(HieraConfig(), **changes))


def test_checkpoints_of_another_architecture_are_refused(model: HieraMae) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changes: list[dict[str, Any]] = [{"stages": (1, 1, 3, 1)}, {"embed_dim": 24}, {"img_size": 224}, {}]
    deeper, wider, larger, lacking = (_timm(**{"img_size": SIDE, **of}).state_dict() for of in changes)
    del lacking["blocks.3.attn.qkv.bias"]
    for state, sentence in (
        (
            deeper,
            r"blocks.4.attn.qkv.weight is \(192, 64\) in the checkpoint and \(384, 64\) in hiera_micro of side 128",
        ),
        (wider, r"pos_embed is \(1, 1024, 24\) in the checkpoint .* side 128: choose the arch and side it is of"),
        (larger, r"pos_embed is \(1, 3136, 16\) in the checkpoint and \(1, 1024, 16\) in hiera_micro of side 128"),
        ({"cls_token": torch.zeros(1)}, "cls_token is in the checkpoint and not in hiera_micro: choose the arch"),
        (lacking, "the checkpoint lacks blocks.3.attn.qkv.bias of hiera_micro: choose the arch"),
    ):
        with pytest.raises(ArgumentError, match=sentence):
            load_timm(model, state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

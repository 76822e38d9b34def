"""The model against the published formulas, written out densely in float64, image by image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from trainer.models.formats import encoder_state, load_original, original_state, to_colour, to_grey
from trainer.models.mae import Mae, MaeConfig
from trainer.models.masking import draw, noise
from trainer.models.positions import positions
from trainer.models.sequences import sequences, valid_pixels

SIZES = [(64, 48), (80, 80), (33, 50), (16, 100)]
SMALL: dict[str, Any] = {
    "width": 48, "depth": 2, "heads": 4, "decoder_width": 32, "decoder_depth": 2, "decoder_heads": 4,
}  # fmt: skip


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("loss", ["masked", "all"])
def test_packed_images_have_the_loss_and_gradients_of_the_dense_formula(
    make_packed: Any, dense: Any, norm_pix: bool, loss: Any
) -> None:
    torch.manual_seed(0)
    batch, images = make_packed(SIZES)
    model = Mae(MaeConfig(**SMALL, norm_pix=norm_pix, loss=loss)).double()
    of = sequences(batch, 16)
    drawn = noise(of)
    packed = model(of)
    packed.loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for number, (image, size) in enumerate(zip(images, SIZES, strict=True)):
        own = slice(*batch.cu_seqlens[number : number + 2].tolist())
        value, mask, _ = dense(model)(image.double(), size, drawn[own])
        assert torch.equal(packed.masked[own].double(), mask)
        total = total + value
    total.backward()  # type: ignore[no-untyped-call]
    assert packed.images == len(SIZES)
    assert packed.loss.item() == pytest.approx(total.item(), rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(grads[name], p.grad, rtol=1e-6, atol=1e-6, msg=name)


def test_a_binned_batch_of_full_images_is_the_same_as_packed(make_packed: Any, make_binned: Any) -> None:
    torch.manual_seed(1)
    sizes = [(64, 48)] * 3
    packed, images = make_packed(sizes, tokens=36, sequences=4)
    binned = make_binned(images, sizes, 64, 48, 4)
    model = Mae(MaeConfig(**SMALL))
    drawn = torch.rand(36, dtype=torch.float64)
    one = model(sequences(packed, 16), drawn)
    two = model(sequences(binned, 16), torch.cat([drawn, torch.rand(12, dtype=torch.float64)]))
    assert two.images == 3
    torch.testing.assert_close(one.loss, two.loss, rtol=1e-5, atol=1e-6)


def test_filler_and_neighbours_change_nothing(make_packed: Any) -> None:
    torch.manual_seed(2)
    model = Mae(MaeConfig(**SMALL)).double()
    batch, _ = make_packed(SIZES)
    wider, _ = make_packed(SIZES, tokens=200, sequences=9)
    object.__setattr__(wider, "seeds", torch.cat([batch.seeds[:4], torch.arange(5)]))
    torch.testing.assert_close(model(sequences(batch, 16)).loss, model(sequences(wider, 16)).loss, rtol=1e-6, atol=1e-7)


def test_shapes_depend_on_the_layout_alone(make_packed: Any) -> None:
    shapes = set()
    for sizes in ([(16, 16)], SIZES, [(80, 80)] * 5, []):
        mask = draw(sequences(make_packed(sizes)[0], 16), 0.75)
        names = ("masked", "encoder", "decoder", "patches", "encoder_cu", "decoder_cu", "kept")
        shapes.add(tuple(tuple(getattr(mask, name).shape) for name in names))
        assert mask.encoder_cu[-1] == mask.encoder.shape[0]
    assert len(shapes) == 1


def test_filler_is_cut_short_and_images_are_not(make_packed: Any) -> None:
    of = sequences(make_packed([(320, 480)], tokens=4000)[0], 16)
    mask = draw(of, 0.75)
    for lengths, image in ((mask.decoder_cu.diff().tolist(), 601), (mask.encoder_cu.diff().tolist(), 151)):
        assert lengths[0] == image
        assert max(lengths[1:]) <= 512
    assert mask.decoder_cu[-1] == mask.decoder.shape[0]
    full = sequences(make_packed([(320, 480), (320, 480)], tokens=1200)[0], 16)
    assert draw(full, 0.75).decoder_cu.diff().tolist()[:2] == [601, 601]


def test_every_image_keeps_the_share_the_paper_keeps_whatever_its_size(make_packed: Any) -> None:
    for ratio in (0.6, 0.75, 0.9):
        batch, _ = make_packed(SIZES)
        of = sequences(batch, 16)
        mask = draw(of, ratio)
        hidden = torch.zeros(6).index_add(0, of.image.long(), mask.masked.float())
        lengths = of.lengths
        assert hidden.tolist() == [n - int(n * (1 - ratio)) for n in lengths.tolist()]


def test_noise_is_uniform_and_follows_the_seed(make_packed: Any) -> None:
    one = noise(sequences(make_packed([(160, 160)], tokens=4000, sequences=3)[0], 16))
    assert one.min() >= 0
    assert one.max() < 1
    assert torch.histc(one, 10, 0, 1).min() > 300
    again = noise(sequences(make_packed([(160, 160)], tokens=4000, sequences=3)[0], 16))
    other = noise(sequences(make_packed([(160, 160)], tokens=4000, sequences=3, seed=1)[0], 16))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_absolute_positions_are_the_published_table(dense: Any) -> None:
    yx = torch.cartesian_prod(torch.arange(9), torch.arange(14)).int()
    grid = torch.tensor([[9, 14]]).expand(len(yx), 2)
    torch.testing.assert_close(positions(yx, grid, 64, "absolute"), dense.table(9, 14, 64).float(), rtol=0, atol=1e-7)


def test_stretched_positions_are_torch_s_bicubic_interpolation_of_the_table(dense: Any) -> None:
    table = dense.table(64, 64, 32).float().view(1, 64, 64, 32).permute(0, 3, 1, 2)
    for rows, cols in ((64, 64), (40, 23), (7, 90)):
        wanted = F.interpolate(table, (rows, cols), mode="bicubic", align_corners=False)[0].flatten(1).T
        yx = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).int()
        found = positions(yx, torch.tensor([[rows, cols]]).expand(len(yx), 2), 32, "stretch")
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


def test_centred_positions_are_the_same_under_a_half_turn() -> None:
    yx = torch.cartesian_prod(torch.arange(5), torch.arange(8)).int()
    grid = torch.tensor([[5, 8]]).expand(40, 2)
    found = positions(yx, grid, 32, "centered")
    turned = found.flip(0)
    half = torch.arange(8)
    assert torch.allclose(found[:, half], -turned[:, half], atol=1e-6), "sines change their sign"
    assert torch.allclose(found[:, half + 8], turned[:, half + 8], atol=1e-6), "cosines do not"


def test_only_the_image_s_own_pixels_count(make_packed: Any) -> None:
    batch, _ = make_packed(SIZES)
    of = sequences(batch, 16)
    counted = torch.zeros(6, dtype=torch.int64).index_add(0, of.image.long(), valid_pixels(of, 16).sum(-1))
    assert counted.tolist() == [h * w for h, w in SIZES] + [0, 0]


def test_a_trained_encoder_loads_strictly_into_timm_and_gives_equal_features(make_packed: Any) -> None:
    import timm

    torch.manual_seed(3)
    model = Mae(MaeConfig(width=192, depth=3, heads=3, mask_ratio=0.0, decoder_depth=1)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.05)
    other: Any = timm.create_model(
        "vit_tiny_patch16_224", img_size=(64, 96), in_chans=1, num_classes=0, depth=3, global_pool="token"
    ).eval()
    other.load_state_dict(encoder_state(model, (4, 6)), strict=True)
    batch, images = make_packed([(64, 96)], tokens=24, sequences=2)
    of = sequences(batch, 16)
    with torch.no_grad():
        mask = draw(of, 0.0, torch.arange(24, dtype=torch.float64) / 24)
        found = model.encode(of, mask)[:25]
        wanted = other.forward_features(images[0][None, None])[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_whole_model_goes_out_and_comes_back_and_a_timm_encoder_comes_in() -> None:
    import timm

    torch.manual_seed(4)
    one, two = Mae(MaeConfig(**SMALL)), Mae(MaeConfig(**SMALL))
    assert load_original(two, original_state(one, (14, 14))) == []
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    vit: Any = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=2)
    encoder = Mae(MaeConfig(width=192, depth=2, heads=3, decoder_depth=1))
    missing = load_original(encoder, vit.state_dict())
    assert missing
    assert all(name.startswith(("decoder_", "mask_token")) for name in missing)
    torch.testing.assert_close(encoder.patch_embed.proj.weight, vit.patch_embed.proj.weight.sum(1, keepdim=True))


def test_channel_conversions_give_grey_images_the_same_features() -> None:
    colour = torch.randn(8, 3, 4, 4)
    grey = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(
        F.conv2d(grey, to_grey(colour), stride=4), F.conv2d(grey.expand(-1, 3, -1, -1), colour, stride=4)
    )
    weight = torch.randn(8, 1, 4, 4)
    torch.testing.assert_close(
        F.conv2d(grey.expand(-1, 3, -1, -1), to_colour(weight), stride=4), F.conv2d(grey, weight, stride=4)
    )

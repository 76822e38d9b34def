"""Backbones of timm's as encoders: features are timm's, grey images keep theirs, and names are pinned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import Tensor

from shardkit import BinnedBatch, from_text
from shardkit.errors import ArgumentError
from trainer.models import backbone
from trainer.models.backbone import TimmConfig, TimmEncoder
from trainer.models.backbone_layout import layout
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.hiera import HieraConfig, HieraMae
from trainer.models.registry import described
from trainer.models.timm_names import parted, seen_in_pretraining

SIDE = 64
# A head with a norm; NHWC and a wider pooling of its own; tokens behind a class token; batch normalisation.
NAMES = ["test_convnext", "test_mambaout", "test_vit", "test_efficientnet"]


@pytest.fixture
def squares(make_binned: Any) -> Any:
    """(side, images, places) -> a batch of square images."""

    def make(side: int = SIDE, count: int = 2, places: int = 3) -> BinnedBatch:
        torch.manual_seed(3)
        batch: BinnedBatch = make_binned(
            [torch.rand(side, side) for _ in range(count)], [(side, side)] * count, side, side, places
        )
        return batch

    return make


def _timm(name: str, side: int, channels: int, classes: int = 0) -> Any:
    sized: dict[str, Any] = {"img_size": side} if name.startswith(("test_vit", "hiera")) else {}
    return timm.create_model(name, in_chans=channels, num_classes=classes, **sized)


@pytest.mark.parametrize("name", NAMES)
def test_its_own_pooling_gives_timms_features_of_real_images(name: str, squares: Any) -> None:
    model, theirs = TimmConfig(name=name, side=SIDE).encoder().eval(), _timm(name, SIDE, 1).eval()
    theirs.load_state_dict(model.encoder.state_dict())
    batch = squares()
    with torch.no_grad():
        found, expected = model.features(batch), theirs(batch.images)
        assert found.own is not None
        own = found.own(found.tokens)
        plain = theirs.forward_features(batch.images)
    torch.testing.assert_close(own, expected)
    assert own.shape[1] == model.own_width
    assert found.tokens.shape == (3 * (SIDE // model.patch) ** 2, model.width)
    rows = SIDE // model.patch
    assert found.yx[: rows + 1].tolist() == [[0, i] for i in range(rows)] + [[1, 0]]
    assert found.there.tolist() == [True, True, False]
    last = found.tokens.view(3, rows * rows, -1)[1, rows + 1]  # row 1, column 1 of the second image
    at = {"test_mambaout": (1, 1, 1), "test_vit": (1, 1 + rows + 1)}.get(name, (1, slice(None), 1, 1))
    torch.testing.assert_close(last, plain[at])
    assert (name == "test_mambaout") is (model.own_width != model.width)
    if name == "test_vit":
        assert found.class_token is not None
        torch.testing.assert_close(found.class_token, plain[:, 0])


@pytest.mark.parametrize("channels", ["sum", "mean"])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "hiera_micro"])
def test_grey_images_keep_what_colour_weights_make_of_them_where_kernels_are_summed(
    name: str, channels: Any, squares: Any
) -> None:
    torch.manual_seed(1)
    colour = _timm(name, SIDE, 3, 5).eval()
    model = TimmEncoder(name, SIDE).eval()
    assert model.load_weights(colour.state_dict(), channels) == []
    batch = squares()
    with torch.no_grad():
        found = model.features(batch)
        assert found.own is not None
        own = found.own(found.tokens)
        expected = colour.forward_head(
            colour.forward_features(batch.images.expand(-1, 3, -1, -1)),
            pre_logits=True,
        )
    same = torch.allclose(own, expected, rtol=1e-4, atol=1e-5)
    assert same is (channels == "sum"), "the mean makes grey images a third as bright"


def test_weights_of_another_model_are_refused() -> None:
    model = TimmEncoder("test_convnext", SIDE)
    state = _timm("test_convnext", SIDE, 3).state_dict()
    lacking = {name: value for name, value in state.items() if not name.startswith("stages.2.blocks.1.")}
    with pytest.raises(ArgumentError, match=r"the checkpoint lacks stages\.2\.blocks\.1\.gamma of test_convnext"):
        model.load_weights(lacking)
    with pytest.raises(ArgumentError, match="choose the model"):
        model.load_weights(_timm("test_convnext2", SIDE, 3).state_dict())


def test_every_trained_parameter_takes_part_whatever_is_pooled(squares: Any) -> None:
    """Else several processes would wait for its gradient."""
    batch = squares()
    for name in ("test_convnext", "test_mambaout", "test_vit", "hiera_micro"):
        for head in (HeadConfig(), HeadConfig(norm=False), HeadConfig(pool="own"), HeadConfig(pool="own", norm=False)):
            model = Classifier(TimmEncoder(name, SIDE, last_norm=not head.norm), 3, head).train()
            model(batch).sum().backward()
            without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
            assert not without, (name, head)


def test_batch_statistics_are_of_images_alone_and_a_frozen_backbone_keeps_its_own(squares: Any) -> None:
    torch.manual_seed(0)
    model = TimmEncoder("test_efficientnet", SIDE).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    full, padded = squares(places=2), squares(places=4)
    one = model.features(full)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(before)
    two = model.features(padded)
    torch.testing.assert_close(one.mean(), two.mean()[:2])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, after[name], msg=name)
    model.requires_grad_(False).train()
    model.load_state_dict(before)
    model.features(full)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training, "dropout stays on"


def test_a_skipped_step_leaves_the_running_statistics_as_they_were(squares: Any) -> None:
    torch.manual_seed(0)
    model = TimmEncoder("test_efficientnet", SIDE).train()
    model.features(squares())
    model.stepped()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for image in (squares().images * torch.nan, squares().images * 2):
        model.features(replace(squares(), images=image))
    model.skipped()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model.features(squares())
    model.stepped()
    assert not torch.equal(model.encoder.bn1.running_mean, before["encoder.bn1.running_mean"])


def test_operations_are_those_of_its_modules() -> None:
    model = TimmConfig(name="vit_tiny_patch16_224").encoder()
    tokens, width, hidden = 197, 192, 768
    linear = 12 * (width * 3 * width + width * width + 2 * width * hidden)
    by_hand = 2 * (196 * 256 * width + tokens * linear + 12 * 2 * tokens**2 * width)
    assert model.layout.flops == by_hand
    assert model.flops(torch.tensor([196.0, 0.0])).tolist() == [3.0 * by_hand, 0.0]


# ------------------------------------------------------------------------------------------------- Hiera


def test_hieras_encoder_is_timms_own_with_the_weights_of_a_masked_autoencoder(squares: Any) -> None:
    config = HieraConfig(arch="hiera_micro", side=SIDE, decoder_width=32, decoder_depth=1, decoder_heads=4)
    torch.manual_seed(2)
    trained, model = HieraMae(config), config.encoder().eval()
    model.load_state_dict({name: trained.state_dict()[name] for name in model.state_dict()})
    theirs = timm.create_model("hiera_micro", in_chans=1, num_classes=0, img_size=(SIDE, SIDE)).eval()
    theirs.load_state_dict(trained.encoder.state_dict())
    batch = squares()
    with torch.no_grad():
        found = model.features(batch)
        assert found.own is not None
        torch.testing.assert_close(found.own(found.tokens), theirs(batch.images))
    assert model.patch == 32, "queries are pooled three times"
    whole = {**trained.state_dict()}
    public = {name.removeprefix("encoder."): value for name, value in whole.items()}
    again, qkv = config.encoder(), "encoder.blocks.0.attn.qkv.weight"
    again.load_weights(public)
    assert torch.equal(again.get_parameter(qkv), trained.get_parameter(qkv))


# ------------------------------------------------------------------------------------------------- names and batches


def test_names_are_pinned_and_near_ones_named() -> None:
    assert parted("resnet50.a1_in1k") == ("resnet50", "a1_in1k")
    assert TimmConfig(name="test_convnext").encoder().initial is None, "no tag, no weights: timm's default is not taken"
    assert TimmConfig(name="resnet18.tv_in1k", side=SIDE).encoder().initial == "resnet18.tv_in1k"
    with pytest.raises(ArgumentError, match="densnet121 is no model of timm's: choose one of densenet121"):
        parted("densnet121.tv_in1k")
    with pytest.raises(ArgumentError, match=r"resnet50\.a1_in2k is no weights of timm's: choose one of resnet50\.a1_"):
        parted("resnet50.a1_in2k")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("densenet121.tv_in1k", "pre-trained on ImageNet-1k"),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", "pre-trained on ImageNet-21k, then on ImageNet-1k"),
        ("vit_base_patch16_224.mae", "pre-trained on ImageNet-1k, without its labels"),
        ("convnext_tiny.in12k_ft_in1k", "pre-trained on ImageNet-12k (a part of ImageNet-21k), then on ImageNet-1k"),
        (
            "eva_giant_patch14_224.clip_ft_in1k",
            "pre-trained on images that its tag does not name, then on ImageNet-1k",
        ),
        ("regnety_320.seer_ft_in1k", "pre-trained on images that its tag does not name, then on ImageNet-1k"),
        ("hgnetv2_b0.ssld_stage2_ft_in1k", "pre-trained on images that its tag does not name, then on ImageNet-1k"),
        ("nextvit_small.bd_ssld_6m_in1k", "pre-trained on images that its tag does not name, then on ImageNet-1k"),
        ("regnety_320.seer", "pre-trained on images that its tag does not name"),
        ("efficientnet_b1.ft_in1k", "pre-trained on ImageNet-1k"),
        ("vit_small_patch14_dinov2.lvd142m", "pre-trained on LVD-142M, which holds images found with ImageNet"),
    ],
)
def test_what_weights_have_seen_is_said(name: str, words: str) -> None:
    assert seen_in_pretraining(name) == words


def test_images_of_another_size_or_packed_ones_are_refused(squares: Any, make_packed: Any) -> None:
    model = TimmConfig(name="test_convnext", side=SIDE).encoder()
    with pytest.raises(ArgumentError, match=r"takes images of 64 pixels a side: use .* resized:side=64"):
        model.check_batching(from_text("packed:tokens=1024,patch=16"))
    with pytest.raises(ArgumentError, match="images are packed and test_convnext takes 64x64"):
        model.features(make_packed([(64, 64)])[0])
    with pytest.raises(ArgumentError, match="images are 96x96"):
        model.features(squares(96))
    with pytest.raises(ArgumentError, match="densenet121 has no stochastic depth"):
        TimmConfig(name="densenet121", drop_path=0.1).encoder()


@pytest.mark.deep
def test_no_stochastic_depth_is_none_also_where_timm_has_some_by_default() -> None:
    """As Swin has .1 and NesT .5."""
    for drop_path in (0.0, 0.2):
        with torch.device("meta"):  # no weights
            model = TimmConfig(name="nest_tiny", drop_path=drop_path).encoder()
        rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
        assert max(rates, default=0.0) == pytest.approx(drop_path)
    TimmConfig(name="densenet121", side=SIDE, drop_path=0.0).encoder()


def test_registers_are_no_class_token(squares: Any) -> None:
    with torch.device("meta"):
        assert not layout("vit_base_patch16_reg4_gap_256", SIDE).class_token
    assert layout("test_vit", SIDE).class_token


def test_sides_that_cannot_be_run_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"crossvit_tiny_240 takes no images of 224 x 224 .*use --model.side 240"):
        layout("crossvit_tiny_240", 224)


def test_one_image_of_one_value_a_channel_is_refused_where_batches_are_normalised(squares: Any) -> None:
    model = TimmEncoder("resnet18", 32).train()
    with pytest.raises(ArgumentError, match=r"one image of 32 x 32 pixels has a single value a channel: use a greater"):
        model.features(squares(32, count=1, places=2))
    model.features(squares(32, count=2, places=2))


def test_a_linear_kernel_of_colours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TimmEncoder("test_vit", SIDE)
    state = {**model.encoder.state_dict(), "patch_embed.proj.weight": torch.zeros(64, 768)}
    monkeypatch.setattr(backbone, "as_timm", lambda *_: state)
    with pytest.raises(ArgumentError, match=r"proj.weight is \(64, 768\) there .* the first layer is a convolution"):
        model.load_weights(state)


def test_a_runs_options_find_its_model_again() -> None:
    assert described({"name": "resnet18", "side": 64, "drop_path": 0.0}) == TimmConfig(name="resnet18", side=64)
    of: Tensor = TimmConfig(name="resnet18", side=64).build().encoder.conv1.weight
    assert of.shape[1] == 1
    assert replace(TimmConfig(name="a"), drop_path=0.1).drop_path == 0.1

"""GMML against its loss and its blocks written out, in float64, and against versions that are wrong in one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import register_model
from timm.models.beit import Beit, beit_base_patch16_224
from torch import Tensor
from torch.nn import functional as F

from shardkit import MultiViewBatch
from shardkit.errors import ArgumentError
from tests.trainer.objectives.two_views import ALONE, PATCH, SIDE, batch_of, micro, shaken
from trainer import metrics
from trainer.models.backbone import TimmConfig
from trainer.models.base import Channels
from trainer.models.vit import VitConfig
from trainer.objectives.corruption import CorruptionConfig, corrupt
from trainer.objectives.gmml import Gmml, GmmlConfig, GmmlModel
from trainer.objectives.pictures import _HEADING, _MARGIN
from trainer.objectives.sit import Sit, SitConfig, SitModel

CORRUPTION = CorruptionConfig()


def _made(channels: Channels = 1, **options: Any) -> Gmml:
    config = GmmlConfig(**options)
    made = Gmml(GmmlModel(micro(channels), config.blocks), config)
    shaken(made.model)
    made.model.double()
    return made


def _views(batch: MultiViewBatch, channels: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Clean, corrupted and mask of each view."""
    found = []
    for number in range(len(batch.views)):
        view = batch.binned(number)
        clean = view.images.expand(-1, channels, -1, -1)
        made = corrupt(clean, view, CORRUPTION)
        found.append((clean, made.images, made.mask))
    return found


def _repaired(objective: Gmml, seen: Tensor, wrong: str = "") -> Tensor:
    """The model written out: blocks one by one, their mean, the norm, the head patch by patch."""
    vit: Any = objective.model.encoder.encoder
    head: Any = objective.model.reconstruction
    x, raw = vit._pos_embed(vit.patch_embed(seen)), []
    taps = {"5-7-9-11": (5, 7, 9, 11), "the last block alone": (12,)}.get(wrong, (6, 8, 10, 12))
    for number, block in enumerate(vit.blocks, 1):
        x = block(x)
        if number in taps:
            raw.append(vit.norm(x) if wrong == "norm before the mean" else x)
    mean = sum(raw) / len(raw)
    tokens = mean if wrong in ("norm before the mean", "no norm") else vit.norm(mean)
    tokens = tokens[:, :-1] if wrong == "class token kept" else tokens[:, 1:]
    for at in (0, 2, 4):
        tokens = F.linear(tokens, head.mlp[at].weight, head.mlp[at].bias)
        if wrong != "no last GELU" or at < 4:
            tokens = 0.5 * tokens * (1 + torch.erf(tokens / 2**0.5))
    out = torch.zeros_like(seen)
    for place in range(tokens.shape[1]):
        row, col = (PATCH * at for at in divmod(place, SIDE // PATCH))
        patch = torch.einsum("bw,wcij->bcij", tokens[:, place], head.pixels.weight)
        out[:, :, row : row + PATCH, col : col + PATCH] = patch + head.pixels.bias[None, :, None, None]
    return out


def _loss(objective: Gmml, batch: MultiViewBatch, channels: int, wrong: str = "") -> float:
    """One mean over the corrupted elements of all views, element by element."""
    total, count, means = 0.0, 0, []
    for clean, seen, mask in _views(batch, channels):
        made = _repaired(objective, clean if wrong == "clean input" else seen, wrong)
        target = seen if wrong == "corrupted target" else clean
        for place in range(len(clean)):
            if batch.rows[place] < 0:
                continue
            off = (made[place] - target[place]).abs()
            off = off**2 if wrong == "squared" else off
            own = off if wrong == "all pixels" else off[:, mask[place, 0]]
            total = total + float(own.detach().sum())
            count += own.numel() // (channels if wrong == "not by channels" else 1)
            means.append(float(own.detach().mean()))
        if wrong == "first view alone":
            break
    return float(np.mean(means)) if wrong == "mean of images" else total / count


WRONG = [
    "5-7-9-11", "the last block alone", "norm before the mean", "no norm", "class token kept", "no last GELU",
    "all pixels", "mean of images", "not by channels", "squared", "clean input", "corrupted target", "first view alone",
]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_is_one_mean_over_the_corrupted_elements_of_all_views(channels: Channels) -> None:
    objective, batch = _made(channels), batch_of(1)
    out = objective.run(objective.model, batch)
    right = _loss(objective, batch, channels)
    assert float(out.loss.detach() / out.images) == pytest.approx(right, abs=1e-12)
    assert float(out.images) == 3
    assert out.losses[3] == 0


@pytest.mark.parametrize("wrong", WRONG)
def test_a_loss_that_is_wrong_in_one_thing_is_another(wrong: str) -> None:
    objective, batch = _made(3), batch_of(1)
    out = objective.run(objective.model, batch)
    assert abs(float(out.loss.detach() / out.images) - _loss(objective, batch, 3, wrong)) > 1e-6


def _hooked(objective: Gmml, batch: MultiViewBatch, blocks: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """Raw outputs of blocks, and what the head is given, seen from outside."""
    raw: list[Tensor] = []
    given: list[Tensor] = []
    model: Any = objective.model
    hooks = [
        model.encoder.encoder.blocks[at - 1].register_forward_hook(lambda _m, _i, out: raw.append(out)) for at in blocks
    ]
    hooks.append(model.reconstruction.register_forward_pre_hook(lambda _m, given_: given.append(given_[0])))
    objective.run(objective.model, batch)
    for hook in hooks:
        hook.remove()
    return raw, given[0]


def test_the_head_sees_the_mean_of_blocks_6_8_10_and_12_through_an_identical_norm() -> None:
    """With the norm's weights those of an identity, as torch begins."""
    objective, batch = _made(), batch_of(2, (True,) * 3)
    norm: Any = objective.model.encoder.encoder.norm
    torch.nn.init.ones_(norm.weight)
    torch.nn.init.zeros_(norm.bias)

    def normed(x: Tensor) -> Tensor:
        found: Tensor = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
        return found

    raw, given = _hooked(objective, batch, (6, 8, 10, 12))
    torch.testing.assert_close(given, normed(sum(raw[1:], raw[0]) / 4)[:, 1:], rtol=0, atol=1e-12)
    wrong = {
        "norm before the mean": (sum(map(normed, raw[1:]), normed(raw[0])) / 4)[:, 1:],
        "class token kept": normed(sum(raw[1:], raw[0]) / 4)[:, :-1],
        "no norm": (sum(raw[1:], raw[0]) / 4)[:, 1:],
    }
    other, _ = _hooked(objective, batch, (5, 7, 9, 11))
    wrong["5-7-9-11"] = normed(sum(other[1:], other[0]) / 4)[:, 1:]
    for name, tokens in wrong.items():
        assert (given - tokens).abs().max() > 1e-3, name


def test_blocks_follow_the_depth_or_are_chosen_and_end_with_the_last() -> None:
    assert _made().model.blocks == (6, 8, 10, 12)
    assert _made(blocks=(3, 12)).model.blocks == (3, 12)
    for blocks in ((12, 6), (0, 12), (6, 11), (6, 6, 12)):
        with pytest.raises(ArgumentError, match=r"--objective\.blocks"):
            GmmlModel(micro(), blocks)


def test_places_without_an_image_count_in_nothing() -> None:
    objective = _made()
    whole, part = batch_of(1), batch_of(1)
    part = replace(part, views=tuple(v[:, :3] for v in part.views), rows=part.rows[:3], seeds=part.seeds[:3])
    one, two = (objective.run(objective.model, batch) for batch in (whole, part))
    torch.testing.assert_close(one.losses[:3], two.losses, rtol=1e-12, atol=1e-12)
    made, other = (
        {**metrics.named(of), **metrics.finished(metrics.for_later(of))} for of in (one.metrics, two.metrics)
    )
    assert made.keys() == {"metrics/feature_deviation", "metrics/effective_rank"}
    for name, value in made.items():
        torch.testing.assert_close(value, other[name])
    none = objective.run(objective.model, batch_of(1, (False, False)))
    assert float(none.loss.detach()) == 0
    assert torch.isfinite(none.losses).all()


def test_one_view_of_images_of_one_size_is_enough() -> None:
    objective, batch = _made(), batch_of(1)
    out = objective.run(objective.model, batch.binned(0))
    assert float(out.images) == 3
    assert out.loss.detach() > 0


def test_validation_gives_the_same_twice_and_training_goes_through_the_whole_model() -> None:
    objective, batch = _made(), batch_of(1)
    objective.model.eval()
    one, two = (objective.run(objective.model, batch).losses for _ in range(2))
    assert torch.equal(one, two)
    one.sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in objective.model.parameters())


@pytest.mark.parametrize("channels", [1, 3])
def test_its_encoder_loads_strictly_into_timm_s_model(channels: Channels) -> None:
    objective = _made(channels)
    theirs = timm.create_model("vit_micro", in_chans=channels, num_classes=0, img_size=SIDE)
    state = {name.removeprefix("encoder.encoder."): v for name, v in objective.model.state_dict().items()}
    theirs.load_state_dict({name: v for name, v in state.items() if not name.startswith("reconstruction.")})


def test_models_that_are_no_vision_transformers_of_timm_s_are_refused() -> None:
    for config in (VitConfig(patch=8, width=32, heads=2), replace(micro(), name="test_convnext", side=64)):
        with pytest.raises(ArgumentError, match="--model"):
            GmmlModel(config)


def test_its_picture_shows_what_was_seen_pixel_by_pixel_and_repairs_blocks_alone() -> None:
    objective, batch = _made(), batch_of(1)
    out = objective.run(objective.model, batch)
    picture = objective.picture(batch, out)
    height, width = 240, 240
    cells = [
        picture[_HEADING : _HEADING + height, _MARGIN + at * (width + _MARGIN) :][:, :width].astype(float)
        for at in range(4)
    ]
    mask = Image.fromarray(out.mask[0, 0].numpy())
    inside = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))
    assert inside.any()
    assert np.array_equal(cells[0][~inside], cells[1][~inside])
    assert np.array_equal(cells[0][~inside], cells[2][~inside])
    assert not cells[3][~inside].any()
    assert (cells[0][inside] != cells[1][inside]).mean() > 0.5
    assert (cells[1][inside] != cells[2][inside]).mean() > 0.5


@register_model
def beit_micro(pretrained: bool = False, **changes: Any) -> Beit:
    """timm's own code with a norm that only its own pooling of the mean uses."""
    own = {"embed_dim": 16, "depth": 4, "num_heads": 2, "patch_size": PATCH}
    made = beit_base_patch16_224(pretrained, **{**own, **changes})
    assert isinstance(made, Beit)
    return made


@pytest.mark.parametrize("method", ["gmml", "sit"])
@pytest.mark.parametrize("name", ["beit_micro", "vit_micro"])
def test_all_that_is_trained_takes_part_as_several_processes_need_it(method: str, name: str) -> None:
    config = TimmConfig(name=name, side=SIDE)
    made: Any = Gmml(GmmlModel(config), GmmlConfig()) if method == "gmml" else Sit(SitModel(config, 8, 4), SitConfig())
    batch = batch_of(0, dtype=torch.float32)
    made.begin_step(0, 1, [batch], ALONE)
    made.run(made.model, batch).loss.backward()
    assert [n for n, p in made.model.named_parameters() if p.requires_grad and p.grad is None] == []

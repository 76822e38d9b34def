"""Encoders under a method's heads, and timm's: the printed call gives their features, in any channels."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from tests.trainer.a_run import put_run
from tests.trainer.objectives.squares import shared_bias, squares, swin
from trainer.commands.export import Export, export
from trainer.commands.usage import preparation
from trainer.config import OptimConfig
from trainer.errors import TrainingError
from trainer.models.backbone import TimmConfig, TimmEncoder
from trainer.models.base import EncoderConfig
from trainer.models.hiera import HieraConfig
from trainer.models.initial import load_initial
from trainer.models.mae import MaeConfig
from trainer.models.vit import VisionTransformer, VitConfig
from trainer.models.with_heads import WithHeads
from trainer.optim import Average, optimizer
from trainer.parallel import World
from trainer.runs import checkpoint
from trainer.runs.saving import Checkpoints
from trainer.runs.state import TrainingState

VIT = VitConfig(patch=8, width=48, depth=2, heads=3, norm_eps=1e-3, position="stretch", position_table=20)
MAE = MaeConfig(patch=8, width=48, depth=2, heads=3, decoder_width=32, decoder_depth=1, decoder_heads=2)
HIERA = HieraConfig(arch="hiera_micro", side=64, norm_eps=1e-3, decoder_width=32, decoder_depth=1, decoder_heads=2)
LOADER = {"loader.batching": "resized:side=64,patch=8", "loader.normalise": "minmax"}


class _Method(WithHeads):
    def __init__(self, encoder: Any) -> None:
        super().__init__(encoder)
        self.head = nn.Linear(encoder.width, 5)

    def forward(self, batch: Any) -> Tensor:
        return self.head(self.encoder.features(batch).mean())  # type: ignore[no-any-return]


def _put(out: Path, config: Any, heads: bool = True) -> Any:
    """A run's folder with statistics and weights that are not those of the beginning; returns its encoder."""
    torch.manual_seed(5)
    encoder = config.encoder()
    model = _Method(encoder) if heads else encoder
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    put_run(out, config, model, options=LOADER)
    return encoder.eval()


def _called(said: str) -> Any:
    names: dict[str, Any] = {}
    lines = said.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("import "))
    exec("\n".join(lines[first : lines.index("model.eval()") + 1]), names)
    return names["model"]


_BACKBONES = (
    shared_bias(1, side=64),
    shared_bias(3, side=64),
    swin(3),
    TimmConfig(name="test_vit", side=64, any_size=True),
    TimmConfig(name="test_efficientnet", side=64),
    TimmConfig(name="test_convnext", side=64, channels=3),
)


def _asked(config: Any, heads: bool, asked: int | None) -> Any:
    """A case: which channels are asked for is tried with heads, and heads with the channels that there are."""
    return pytest.param(config, heads, asked, marks=() if heads or asked is None else pytest.mark.deep)


@pytest.mark.parametrize(
    ("config", "heads", "asked"),
    # A bare Hiera is a masked autoencoder.
    [_asked(*of, n) for of in [*product(_BACKBONES, (True, False)), (HIERA, True)] for n in (None, 1, 3)],
    ids=lambda c: (
        str(c) if c is None or isinstance(c, int) else getattr(c, "name", "hiera") + str(getattr(c, "channels", 1))
    ),
)
def test_the_printed_call_gives_the_features_of_timms_models(
    tmp_path: Path, config: Any, heads: bool, asked: Any
) -> None:
    encoder = _put(tmp_path / "run", config, heads)
    said = export(Export(run=tmp_path / "run", out=tmp_path / "e.safetensors", channels=asked))
    own = getattr(config, "channels", 1)
    channels, batch = asked or own, squares(64, 2)
    with torch.no_grad():
        found = _called(said).forward_features(batch.images.expand(-1, channels, -1, -1))
        wanted = encoder.encoder.forward_features(batch.images.expand(-1, own, -1, -1))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert f"float32 (batch, {channels}, 64, 64)" in said
    assert "trainer" not in said.partition("model.eval()")[0].replace(str(tmp_path), "")
    again = type(encoder)(encoder.name, 64, changes=encoder._changes, norm_eps=encoder._eps)
    if channels == 1:
        load_initial(again, str(tmp_path / "e.safetensors"))
        assert all(
            torch.equal(v, load_file(tmp_path / "e.safetensors")[n]) for n, v in again.encoder.state_dict().items()
        )


@pytest.mark.parametrize("config", [VIT, MAE])
@pytest.mark.parametrize("channels", [None, 3])
def test_the_printed_call_gives_the_features_of_our_vision_transformer(
    tmp_path: Path, config: Any, channels: Any
) -> None:
    encoder = _put(tmp_path / "run", config)
    assert isinstance(encoder, VisionTransformer)
    said = export(Export(run=tmp_path / "run", out=tmp_path / "e.pth", channels=channels))
    batch = squares(64, 2)
    with torch.no_grad():
        found = _called(said).forward_features(batch.images.expand(-1, channels or 1, -1, -1))
        own = encoder.features(batch)
    torch.testing.assert_close(found[:, 1:].flatten(0, 1), own.tokens, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, 0], own.class_token, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "asked", "told"),
    [
        (TimmConfig(name="test_vit", side=64), {"grid": (4, 4)}, "--grid is not for test_vit"),
        (TimmConfig(name="test_vit", side=64), {"whole": True}, "--whole is for masked autoencoders"),
        (VIT, {"whole": True}, "--whole is for masked autoencoders"),
        (TimmConfig(name="test_nfnet", side=64), {"channels": 3}, "no plain convolution, .*export with --in-chans 1"),
    ],
)
def test_what_cannot_be_exported_is_told(tmp_path: Path, config: EncoderConfig, asked: Any, told: str) -> None:
    _put(tmp_path / "run", config)
    with pytest.raises(ArgumentError, match=told):
        export(Export(run=tmp_path / "run", out=tmp_path / "e.safetensors", **asked))
    assert not (tmp_path / "e.safetensors").exists()


def test_an_average_has_no_buffers_and_no_frozen_parameters(tmp_path: Path) -> None:
    """They are as they were last, and all that is averaged is the average."""
    model = _Method(TimmConfig(name="test_efficientnet", side=64).encoder())
    frozen = "conv_stem.weight"
    model.encoder.encoder.get_parameter(frozen).requires_grad_(False)  # type: ignore[union-attr]
    average = Average(model, 0.5)
    for p in model.parameters():
        nn.init.normal_(p)
    for _, value in model.named_buffers():
        value.fill_(7)
    checkpoints = Checkpoints(tmp_path, 1, World(0, 1, torch.device("cpu")))
    checkpoints.save(1, TrainingState(model, optimizer(model, OptimConfig(lr=1.0)), average, 0), {"step": 1})
    checkpoints.wait()
    path = tmp_path / "checkpoints" / "step_00000001"
    found = TimmEncoder("test_efficientnet", 64)
    checkpoint.weights(path, found, average=True, under="encoder.")
    for name, value in found.state_dict().items():
        wanted = average.state.get(f"encoder.{name}", model.encoder.state_dict()[name])
        assert torch.equal(value, wanted), name
    assert f"encoder.encoder.{frozen}" not in average.state
    with pytest.raises(TrainingError, match="is of another model"):
        checkpoint.weights(path, TimmEncoder("test_resnet", 64), average=True, under="encoder.")


def test_it_is_told_how_to_prepare_whole_images_whatever_views_the_run_saw() -> None:
    views = "views=64:n=2:crop=0.4/1.0:jitter=0.8+32:n=4:crop=0.05/0.4"
    for text in (f"multiview:batch_size=8,{views}", "resized:side=64,batch_size=8,crop=0.2/1.0,flip=0.5,level=auto"):
        options = {"loader.batching": text, "loader.normalise": "minmax"}
        said = preparation(options, {}, (64, 64), 1)
        assert "resized to 64 x 64 pixels (--loader.batching resized:" in said
        assert "crop" not in said, "a loader with these options shows no part of an image"
        assert "jitter" not in said

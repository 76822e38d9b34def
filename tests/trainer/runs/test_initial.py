"""Weights of elsewhere in an encoder with a head: what is taken, what begins at random, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from shardkit.errors import ArgumentError
from tests.trainer.a_run import put_run
from trainer.config import flat
from trainer.errors import TrainingError
from trainer.models.backbone import TimmConfig
from trainer.models.base import Model
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.formats import original_state
from trainer.models.hiera import HieraConfig
from trainer.models.initial import described_encoder, load_initial
from trainer.models.mae import Mae, MaeConfig
from trainer.models.positions import Mode
from trainer.models.vit import VitConfig

DECODER: dict[str, Any] = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
MAE = MaeConfig(patch=8, width=192, depth=2, heads=3, **DECODER)
HIERA = HieraConfig(arch="hiera_micro", side=64, **DECODER)
OWN, TOKEN = HeadConfig(pool="own", norm=False), HeadConfig(pool="token", norm=False)


def _fresh(seed: int, config: Any = MAE, head: HeadConfig = TOKEN, classes: int = 3) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(config.encoder(last_norm=not head.norm), classes, head)


def _same(encoder: Model, of: dict[str, Tensor]) -> None:
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, of[name]), name


@pytest.mark.parametrize("config", [MAE, HIERA])
@pytest.mark.parametrize("norm", [False, True])
def test_a_pre_trained_runs_encoder_gets_a_fresh_head(tmp_path: Path, config: Any, norm: bool) -> None:
    torch.manual_seed(0)
    trained = config.build()
    run = put_run(tmp_path / "run", config, trained, weights="weights begin at random")
    model = _fresh(1, config, HeadConfig(norm=norm))
    before = model.head.fc.weight.clone()
    told = load_initial(model, str(run))
    _same(model.encoder, trained.state_dict())
    assert torch.equal(model.head.fc.weight, before)
    assert told.startswith(f"the encoder's weights are those of {run}/checkpoints/step_00000007, ")
    assert told.endswith(", the head begins at random; that run began at random")
    assert ("without the last norm, in whose place the head has one of its own" in told) is norm


def test_what_the_run_began_with_is_told_last(tmp_path: Path) -> None:
    before = "all weights are those of runs/first/best; that run began at random"
    run = put_run(tmp_path / "run", MAE, MAE.build(), weights=before)
    told = load_initial(MAE.build(), str(run))
    assert told == f"all weights are those of {run}/checkpoints/step_00000007; when that run began, {before}"


@pytest.mark.parametrize(("classes", "taken"), [(("a", "b", "c"), True), (("a", "c", "b"), False), ((), False)])
def test_a_fine_tuned_runs_head_is_taken_where_its_classes_are_the_same(
    tmp_path: Path, classes: tuple[str, ...], taken: bool
) -> None:
    trained = _fresh(0, head=HeadConfig(batch_norm=True))
    run = put_run(tmp_path / "run", MAE, trained, classes=["a", "b", "c"])
    model = _fresh(1, head=HeadConfig(batch_norm=True))
    told = load_initial(model, str(run), classes=classes)
    _same(model.encoder, trained.encoder.state_dict())
    assert torch.equal(model.head.fc.weight, trained.head.fc.weight) is taken
    assert ("encoder and head" in told, "head begins at random" in told) == (taken, not taken)


def test_pre_training_goes_on_from_a_fine_tuned_encoder(tmp_path: Path) -> None:
    trained = _fresh(0)
    run = put_run(tmp_path / "run", VitConfig(patch=8, width=192, depth=2, heads=3), trained)
    model = Mae(MAE)
    assert "the decoder begins at random" in load_initial(model, str(run))
    _same(trained.encoder, dict(model.state_dict()))


@pytest.mark.parametrize(
    ("then", "kind", "told"),
    [
        (HeadConfig(batch_norm=True, std=1.0), "multilabel", ""),
        (HeadConfig(pool="token", batch_norm=True), "multilabel", "--objective.head.pool mean"),
        (HeadConfig(norm=False), "multilabel", "--objective.head.norm True --objective.head.batch-norm True"),
        (HeadConfig(batch_norm=True), "regression", "--objective.kind multilabel"),
    ],
)
def test_a_head_of_other_features_or_another_kind_begins_at_random(
    tmp_path: Path, then: HeadConfig, kind: str, told: str
) -> None:
    def options(of: HeadConfig, kind: str) -> dict[str, Any]:
        return {"objective.kind": kind, **flat(of, "objective.head.")}

    before, classes = HeadConfig(batch_norm=True), ["a", "b", "c"]
    trained = _fresh(0, head=before)
    run = put_run(tmp_path / "run", MAE, trained, classes=classes, options=options(before, "multilabel"))
    model = _fresh(1, head=then)
    said = load_initial(model, str(run), "sum", classes, options(then, kind))
    assert torch.equal(model.head.fc.weight, trained.head.fc.weight) is not bool(told)
    wanted = f", the head begins at random, for that of the run had {told}" if told else "step_00000007"
    assert said.endswith(wanted)


@pytest.mark.parametrize("config", [MAE, HIERA])
def test_the_last_norm_begins_anew_where_it_was_the_heads(tmp_path: Path, config: Any) -> None:
    trained = _fresh(0, config, HeadConfig())
    run = str(put_run(tmp_path / "run", config, trained))
    told = "the encoder's last norm begins anew, for there the head had one in its place"
    assert told in load_initial(config.build(), run)
    model = _fresh(1, config, HeadConfig(norm=False))
    assert f"{told} (as with --objective.head.norm), the head begins" in load_initial(model, run)
    for name, value in trained.encoder.state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name]), name


def test_fine_tuned_files_of_masked_autoencoders_lack_the_last_norm(tmp_path: Path) -> None:
    state = {name: v for name, v in _timm().items() if not name.startswith("norm.")}
    torch.save({"model": state | {"fc_norm.weight": torch.ones(192), "fc_norm.bias": torch.ones(192)}}, tmp_path / "f")
    assert "the encoder's last norm begins anew" in load_initial(_fresh(0), str(tmp_path / "f"))
    assert "the encoder's last norm begins anew" in load_initial(Mae(MAE), str(tmp_path / "f"))
    torch.save({"model": state}, tmp_path / "g")
    with pytest.raises(ArgumentError, match=r"lacks norm\.bias"):
        load_initial(_fresh(0), str(tmp_path / "g"))


def test_a_run_of_another_architecture_is_refused(tmp_path: Path) -> None:
    run = put_run(tmp_path / "run", MAE, Mae(MAE))
    with pytest.raises(TrainingError, match=r"of another model: blocks\.2\..* is missing there"):
        load_initial(_fresh(0, replace(MAE, depth=3)), str(run))


def test_the_encoder_of_a_run_describes_itself(tmp_path: Path) -> None:
    mae = str(put_run(tmp_path / "mae", MAE, Mae(MAE)))
    own = VitConfig(patch=8, width=192, depth=2, heads=3)
    assert described_encoder(mae) == own, "a decoder is no part of it"
    hiera = str(put_run(tmp_path / "hiera", HIERA, HIERA.build()))
    assert described_encoder(f"{hiera}/checkpoints/step_00000007") == HIERA
    backbone = TimmConfig(name="test_convnext", side=64)
    assert described_encoder(str(put_run(tmp_path / "timm", backbone, _fresh(0, backbone, HeadConfig())))) == backbone
    assert described_encoder("vit_base_patch16_224.mae") is None


# ------------------------------------------------------------------------------------------------- files


def _timm(**changes: Any) -> dict[str, Tensor]:
    torch.manual_seed(4)
    made: dict[str, Tensor] = timm.create_model(
        "vit_tiny_patch16_224", depth=2, patch_size=8, img_size=64, num_classes=5, **changes
    ).state_dict()
    return made


@pytest.mark.parametrize(("channels", "factor"), [("sum", 1.0), ("mean", 1 / 3)])
def test_a_file_of_timms_gives_an_encoder_of_grey_images(tmp_path: Path, channels: Any, factor: float) -> None:
    state = _timm()
    save_file(state, tmp_path / "vit.safetensors")
    model = _fresh(0, head=HeadConfig())
    told = load_initial(model, str(tmp_path / "vit.safetensors"), channels)
    kernel = state["patch_embed.proj.weight"].sum(1, keepdim=True) * factor
    torch.testing.assert_close(model.encoder.get_parameter("patch_embed.proj.weight"), kernel)
    assert "without the last norm" in told
    assert "without the table of positions that it had learned" in told
    assert told.endswith(", the head begins at random")


def test_summed_kernels_give_the_originals_features_of_grey_images(tmp_path: Path, make_binned: Any) -> None:
    """f(rgb(x)) == f(x), positions and all; the mean of the kernels would not."""
    torch.manual_seed(6)
    whole = Mae(MAE)
    state = original_state(whole, (8, 8), 3)
    state["patch_embed.proj.weight"] = torch.randn_like(state["patch_embed.proj.weight"])
    theirs = timm.create_model("vit_tiny_patch16_224", depth=2, patch_size=8, img_size=64, num_classes=0)
    encoder = {name: v for name, v in state.items() if not name.startswith(("decoder", "mask"))}
    theirs.load_state_dict(encoder)
    torch.save({"model": state}, tmp_path / "mae.pth")
    images = [torch.rand(64, 64), torch.rand(64, 64)]
    batch = make_binned(images, [(64, 64)] * 2, 64, 64, 2)
    with torch.no_grad():
        expected = theirs.eval()(batch.images.expand(-1, 3, -1, -1))
        for channels, same in (("sum", True), ("mean", False)):
            model = _fresh(1).eval()
            told = load_initial(model, str(tmp_path / "mae.pth"), channels)  # type: ignore[arg-type]
            found = model.encoder.features(batch).class_token
            assert found is not None
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4) is same
            assert "table of positions" not in told, "it is the formula"


def test_files_fit_backbones_of_timm_too(tmp_path: Path) -> None:
    for name in ("test_efficientnet", "test_resnet", "hiera_micro"):
        state = timm.create_model(name, num_classes=7).state_dict()
        torch.save({"state_dict": {f"module.{n}": v for n, v in state.items()}}, tmp_path / f"{name}.pth")
    backbone = TimmConfig(name="test_efficientnet", side=64)
    assert "(state_dict / module.*)" in load_initial(_fresh(0, backbone, OWN), str(tmp_path / "test_efficientnet.pth"))
    resnet = TimmConfig(name="test_resnet", side=64)
    assert "(state_dict / module.*)" in load_initial(_fresh(0, resnet), str(tmp_path / "test_resnet.pth"))
    hiera = replace(HIERA, side=224)
    assert "head begins at random" in load_initial(_fresh(0, hiera), str(tmp_path / "hiera_micro.pth"))
    with pytest.raises(ArgumentError, match="choose the model"):
        load_initial(_fresh(0, backbone), str(tmp_path / "hiera_micro.pth"))


# ------------------------------------------------------------------------------------------------- names


def test_weights_of_timm_are_named_with_their_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=r"does not say which weights: choose one of vit_base_patch16_224\."):
        load_initial(Mae(MAE), "vit_base_patch16_224")
    with pytest.raises(ArgumentError, match=r"no weights of timm's: choose one of vit_base_patch16_224\.mae"):
        load_initial(Mae(MAE), "vit_base_patch16_224.mea")

    def offline(*args: Any, **named: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ArgumentError, match=r"ConnectionError.*: download their file, .*, and name it with --init"):
        load_initial(Mae(MAE), "vit_base_patch16_224.mae")


def test_what_weights_of_timm_had_seen_and_expect_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model("vit_tiny_patch16_224", depth=2, patch_size=8, num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda *args, **named: made)
    told = load_initial(_fresh(0), "vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert "pre-trained on ImageNet-21k, then on ImageNet-1k" in told
    assert "--loader.normalise 0.5,0.5" in told


def test_weights_whose_heads_are_known_are_refused_by_a_model_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = timm.create_model("vit_tiny_patch16_224", depth=2, patch_size=8, num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda *args, **named: made)
    save_file(_timm(), tmp_path / "ours.safetensors", {"model.heads": "3"})
    for source in ("vit_tiny_patch16_224.augreg_in21k", str(tmp_path / "ours.safetensors")):
        with pytest.raises(ArgumentError, match=r"it has 3 attention heads and this model 2, .*: use --model\.heads 3"):
            load_initial(_fresh(0, replace(MAE, heads=2)), source)


@pytest.mark.parametrize("mode", ["absolute", "centered", "stretch"])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_a_table_of_positions_is_known_by_its_formula(tmp_path: Path, mode: Mode, grid: tuple[int, int]) -> None:
    config = replace(MAE, position=mode)
    save_file(config.build().encoder_weights(grid), tmp_path / "ours.safetensors")
    for own in get_args(Mode):
        told = load_initial(_fresh(0, replace(MAE, position=own)), str(tmp_path / "ours.safetensors"))
        assert "learned" not in told
        assert (f"its positions were {mode} and are {own} here (--model.position {mode} keeps" in told) is (own != mode)


def test_resampled_patches_and_the_part_of_a_decoder_that_is_missing_are_said(tmp_path: Path) -> None:
    torch.save({"model": MAE.build().whole_weights((4, 4))}, tmp_path / "whole.pth")
    told = load_initial(replace(MAE, decoder_depth=2).build(), str(tmp_path / "whole.pth"))
    assert told.endswith(", of the decoder decoder_blocks.1 begins at random")
    save_file(MAE.build().encoder_weights((4, 4)), tmp_path / "ours.safetensors")
    stretched = replace(MAE, patch=16, position="stretch")
    moved = {replace(MAE, patch=16): ", so that every position lies elsewhere", stretched: ", its positions were"}
    for config, words in moved.items():
        told = load_initial(_fresh(0, config), str(tmp_path / "ours.safetensors"))
        assert f"its patches of 8 pixels resampled to 16{words}" in told

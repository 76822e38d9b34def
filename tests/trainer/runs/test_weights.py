"""Checkpoints on disk, and weights that come from and go to elsewhere."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shardkit.errors import ArgumentError, StorageError
from trainer.config import OptimConfig
from trainer.errors import TrainingError
from trainer.models.backbone import TimmConfig
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.formats import original_state
from trainer.models.initial import load_initial
from trainer.models.mae import Mae, MaeConfig
from trainer.models.vit import VitConfig
from trainer.optim import optimizer
from trainer.parallel import World
from trainer.runs import checkpoint
from trainer.runs.saving import Checkpoints
from trainer.runs.state import TrainingState

TINY = MaeConfig(patch=8, width=192, depth=2, heads=3, decoder_width=32, decoder_depth=1, decoder_heads=2)
ALONE = World(0, 1, torch.device("cpu"))


def _state(seed: int, config: MaeConfig = TINY) -> TrainingState:
    torch.manual_seed(seed)
    model = Mae(config)
    adam = optimizer(model, OptimConfig(lr=1e-3))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    adam.step()
    return TrainingState(model, adam, None, 0)


def _same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_a_checkpoint_holds_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    state = _state(0)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    checkpoints = Checkpoints(tmp_path, 3, ALONE)
    checkpoints.save(1, state, {"step": 1})
    with torch.no_grad():
        for p in state.model.parameters():
            p.fill_(7.0)
    checkpoints.wait()
    other = _state(1)
    place = checkpoints.latest().path
    assert place is not None
    assert other.load(place) == {"step": 1}
    assert _same(other.model.state_dict(), before)
    moments = [s["exp_avg"] for s in other.optimizer.state.values()]
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, state.optimizer.state.values(), strict=True))


def test_what_is_half_written_is_no_checkpoint_and_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / "step_00000009.part"
    left.mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path, 2, ALONE)
    assert checkpoints.latest().path is None
    for step in (1, 2, 3):
        checkpoints.save(step, _state(step), {"step": step})
    checkpoints.wait()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_00000002", "step_00000003"]


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoints = Checkpoints(tmp_path, 2, ALONE)
    checkpoints.save(1, _state(0), {"step": object()})  # no JSON
    with pytest.raises(StorageError, match="step_00000001 cannot be written"):
        checkpoints.wait()
    assert checkpoints.latest().path is None


def test_a_checkpoint_of_another_model_is_refused_with_a_sentence(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2, ALONE)
    checkpoints.save(1, _state(0), {})
    checkpoints.wait()
    place = checkpoints.latest().path
    assert place is not None
    with pytest.raises(TrainingError, match=r"of another model: blocks\.2\..* is missing there"):
        _state(0, replace(TINY, depth=3)).load(place)


@pytest.mark.parametrize("nested", [True, False])
def test_a_file_of_the_original_s_gives_all_weights(tmp_path: Path, nested: bool) -> None:
    torch.manual_seed(5)
    one, two = Mae(TINY), Mae(TINY)
    state = original_state(one, (4, 4))
    torch.save({"model": state, "epoch": 3} if nested else state, tmp_path / "mae.pth")
    told = load_initial(two, str(tmp_path / "mae.pth"))
    assert "decoder begins at random" not in told
    assert _same(one.state_dict(), two.state_dict())


def test_a_safetensors_file_of_timm_s_gives_the_encoder_summed_over_colours(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    vit = timm.create_model("vit_tiny_patch16_224", depth=2, patch_size=8, num_classes=3)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    model = Mae(TINY)
    assert "decoder begins at random" in load_initial(model, str(tmp_path / "vit.safetensors"))
    colour = vit.get_parameter("patch_embed.proj.weight")
    torch.testing.assert_close(model.patch_embed.proj.weight, colour.sum(1, keepdim=True))
    assert torch.equal(model.get_parameter("blocks.1.mlp.fc2.weight"), vit.get_parameter("blocks.1.mlp.fc2.weight"))


def _timm() -> dict[str, Tensor]:
    import timm

    torch.manual_seed(4)
    made: dict[str, Tensor] = timm.create_model(
        "vit_tiny_patch16_224", depth=2, patch_size=8, in_chans=1, num_classes=3
    ).state_dict()
    return made


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


ARGUMENTS = argparse.Namespace(lr=1, output_dir=Path("out"))


@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda s: _under("module.", s), "(module.*)"),
        (lambda s: _under("_orig_mod.", s), ""),
        (lambda s: _under("module._orig_mod.", s), "(module.*)"),
        (lambda s: {"state_dict": _under("model.", s), "epoch": 3}, "(state_dict / model.*)"),
        (
            lambda s: _under("encoder.", s | {"mask_token": torch.ones(1, 1, 32)}) | {"decoder.0.bias": torch.ones(2)},
            "(encoder.*)",
        ),
        (lambda s: {"state_dict": _under("model.encoder.", s)}, "(state_dict / model.encoder.*)"),
        (lambda s: {"state_dict": _under("module.base_encoder.", s)}, "(state_dict / module.base_encoder.*)"),
        (lambda s: {"state_dict": _under("net.backbone.", s) | {"loss.weight": torch.ones(2)}}, "net.backbone.*"),
        (lambda s: {"model": s, "optimizer": {}, "epoch": 799, "args": ARGUMENTS}, "(model)"),
        (lambda s: {"state_dict": s, "state_dict_ema": {n: v * 0 for n, v in s.items()}}, "(state_dict)"),
        (lambda s: {"model_ema": s}, "(model_ema)"),
        (lambda s: s | {"temperature": 3.0}, ""),
        (
            lambda s: {"model": s | {"epoch": 3}, "best": np.float64(0.3), "curve": np.ones(3), "n": np.int64(3)},
            "(model)",
        ),
        (lambda s: {"ema": {"module": _under("module.", s)}}, "(ema / module / module.*)"),
    ],
)
def test_weights_are_found_in_what_programs_wrap_around_them(tmp_path: Path, wrap: Any, where: str) -> None:
    state, model = _timm(), Mae(TINY)
    torch.save(wrap(state), tmp_path / "wrapped.pth")
    task = Classifier(VitConfig(patch=8, width=192, depth=2, heads=3).encoder(), 3, HeadConfig(norm=False))
    for of, own in ((model, model.state_dict()), (task, task.encoder.state_dict())):
        told = load_initial(of, str(tmp_path / "wrapped.pth"))
        assert where in told
        assert of is task or "the decoder begins at random" in told
        held = {name: value for name, value in state.items() if name in own and "embed" not in name}
        assert held
        assert _same(held, own)


def test_prefixes_are_found_where_a_backbone_is_begun_with_too(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("test_vit", in_chans=1, img_size=64, num_classes=3).state_dict()
    torch.save({"state_dict": _under("module.encoder.", state)}, tmp_path / "wrapped.pth")
    encoder = TimmConfig(name="test_vit", side=64).encoder()
    for of in (encoder, Classifier(encoder, 3, HeadConfig(pool="own", norm=False))):
        assert "(state_dict / module.encoder.*)" in load_initial(of, str(tmp_path / "wrapped.pth"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 128, "heads": 4}, "use --model.width 192, and the heads that it had, mostly --model.heads 3"),
        ({"depth": 1}, "blocks.1.norm1.weight is in the checkpoint and not in this model: use --model.depth 2"),
        ({"depth": 4, "patch": 16}, "use --model.depth 2 --model.patch 8"),
        ({"mlp_ratio": 2.0}, "use --model.mlp-ratio 4"),
        ({"decoder_width": 64, "decoder_depth": 2}, "use --model.decoder-width 32 --model.decoder-depth 1"),
    ],
)
def test_the_options_of_a_files_architecture_are_named(tmp_path: Path, changes: Any, told: str) -> None:
    torch.save({"model": original_state(Mae(TINY), (4, 4), 3)}, tmp_path / "mae.pth")
    with pytest.raises(ArgumentError, match=re.escape(told)):
        load_initial(Mae(replace(TINY, **changes)), str(tmp_path / "mae.pth"))


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda mark: {"model": _Payload(mark)}, "holds posix.mkdir, which is no weights and could run code"),
        (lambda mark: _under("student.", _timm()) | _under("teacher.", _timm()), "several models, student., teacher."),
        (lambda mark: {"optimizer": {"a": 1}, "epoch": 3}, "no weights by name, but optimizer, epoch"),
        (lambda mark: {"net": _timm(), "epoch": torch.tensor(3)}, "no weights by name, but net, epoch"),
        (lambda mark: np.array([_Payload(mark)], dtype=object), "holds posix.mkdir, which is no weights"),
    ],
)
def test_the_true_obstacle_is_named_and_no_file_is_run(tmp_path: Path, content: Any, told: str) -> None:
    torch.save(content(tmp_path / "ran"), tmp_path / "file.pth")
    with pytest.raises(ArgumentError, match=re.escape(told)):
        load_initial(Mae(TINY), str(tmp_path / "file.pth"))
    assert not (tmp_path / "ran").exists()


def test_patches_of_another_size_are_resampled_to_keep_what_they_respond_to(tmp_path: Path) -> None:
    torch.manual_seed(6)
    small = Mae(TINY)
    torch.save(
        {k: v for k, v in small.state_dict().items() if not k.startswith(("decoder_", "mask_"))}, tmp_path / "p8.pth"
    )
    large = Mae(MaeConfig(patch=16, width=192, depth=2, heads=3, decoder_depth=1))
    load_initial(large, str(tmp_path / "p8.pth"))
    patch = torch.rand(5, 1, 8, 8)
    wide = torch.nn.functional.interpolate(patch, scale_factor=2, mode="bicubic", antialias=True)
    torch.testing.assert_close(
        large.patch_embed(wide.flatten(1)), small.patch_embed(patch.flatten(1)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: p.write_text("no weights"), "cannot be read as weights"),
        (lambda p: torch.save({"a": 3}, p), "holds no weights"),
        (lambda p: torch.save(Mae(MaeConfig(width=48, heads=4, depth=2)).state_dict(), p), "in the checkpoint"),
        (lambda p: p.mkdir(), "contains no complete checkpoint"),
        (lambda p: None, "is neither a file nor a run, and .* is no model of timm's"),
    ],
)
def test_what_cannot_be_begun_with_is_told_in_a_sentence(tmp_path: Path, make: Any, told: str) -> None:
    path = tmp_path / "weights.pth"
    make(path)
    with pytest.raises(ArgumentError, match=told):
        load_initial(Mae(TINY), str(path))


def test_a_run_or_file_with_nearly_the_name_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "mae_vit.pth").touch()
    monkeypatch.chdir(tmp_path / "runs")
    for typed, there in (("tinny", "tiny"), ("mae_vti.pth", "mae_vit.pth")):
        with pytest.raises(ArgumentError, match=rf"--init .*/{typed} does not exist; there is .*/runs/{there}$"):
            load_initial(Mae(TINY), str(tmp_path / "runs" / typed))
        with pytest.raises(ArgumentError, match=rf"neither a file nor a run \(there is {there}\), and .* no model"):
            load_initial(Mae(TINY), typed)


def test_weights_alone_can_be_read_from_a_checkpoint(tmp_path: Path) -> None:
    state = _state(0)
    checkpoints = Checkpoints(tmp_path, 2, ALONE)
    checkpoints.save(1, state, {})
    checkpoints.wait()
    place, model = checkpoint.latest(tmp_path / "checkpoints"), Mae(TINY)
    assert place is not None
    checkpoint.weights(place, model)
    assert _same(model.state_dict(), state.model.state_dict())

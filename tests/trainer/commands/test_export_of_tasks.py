"""Classifiers as files: timm's model of the printed call gives the run's own scores, or nothing is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from tests.trainer.a_run import put_run
from tests.trainer.commands.test_export_of_methods import HIERA, LOADER, VIT, _called
from tests.trainer.objectives.squares import squares
from trainer.commands import export_task
from trainer.commands.export import Export, export
from trainer.config import flat
from trainer.models.backbone import TimmConfig
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.initial import load_initial
from trainer.recipes.registry import RECIPES
from trainer.tasks.config import TaskConfig

CLASSES = ("effusion", "cardiomegaly", "no finding")
OWN = HeadConfig(pool="own", norm=False)


def _put(
    out: Path,
    config: Any,
    head: HeadConfig,
    kind: Any = "multilabel",
    offset: float = 1.0,
    batching: str = LOADER["loader.batching"],
) -> Classifier:
    """The folder of a run with a task, all of whose weights and statistics matter; returns its network."""
    torch.manual_seed(4)
    model = Classifier(config.encoder(last_norm=not head.norm), len(CLASSES), head)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var", "head.scale", "head.offset")):
            value.uniform_(0.5, 2)
    model.head.offset.mul_(offset)
    recipe = RECIPES["tiny-finetune"].config
    assert isinstance(recipe.objective, TaskConfig)
    options = flat(replace(recipe, model=config, objective=replace(recipe.objective, head=head, kind=kind)))
    put_run(
        out,
        config,
        model,
        options=options | LOADER | {"loader.batching": batching},
        objective={"kind": "Task", "classes": CLASSES},
    )
    return model.eval()


def _scores(network: nn.Module, channels: int) -> tuple[Tensor, BinnedBatch]:
    batch = squares(64, 3)
    with torch.no_grad():
        return network(batch.images.expand(-1, channels, -1, -1)), batch


def _at(name: str, model: Classifier) -> str:
    """The name of a parameter of the encoder, whose own names may have a prefix."""
    return next(own for own in model.encoder.state_dict() if own.endswith(name))


@pytest.mark.parametrize(
    ("config", "head", "kind", "channels"),
    [
        (VIT, HeadConfig(), "multilabel", None),
        (VIT, HeadConfig(pool="token"), "multilabel", 3),
        (VIT, HeadConfig(pool="token", norm=False), "multiclass", None),
        (VIT, HeadConfig(norm=False, batch_norm=True), "regression", None),
        (HIERA, HeadConfig(), "multilabel", 3),
        (HIERA, OWN, "multiclass", None),
        (VIT, OWN, "multilabel", None),
        (TimmConfig(name="test_vit", side=64), OWN, "multilabel", 3),
        (TimmConfig(name="test_vit", side=64), HeadConfig(pool="mean"), "regression", None),
        (TimmConfig(name="test_vit", side=64), HeadConfig(pool="mean"), "multilabel", None),
        (TimmConfig(name="test_vit", side=64), HeadConfig(pool="token"), "multilabel", None),
        (TimmConfig(name="test_efficientnet", side=64), replace(OWN, batch_norm=True), "multilabel", None),
        (TimmConfig(name="test_convnext", side=64, channels=3), OWN, "multilabel", None),
    ],
)
def test_the_printed_call_gives_the_run_s_own_scores(
    tmp_path: Path, config: Any, head: HeadConfig, kind: str, channels: Any
) -> None:
    model = _put(tmp_path / "run", config, head, kind)
    said = export(Export(run=tmp_path / "run", out=tmp_path / "c.safetensors", channels=channels))
    found, batch = _scores(_called(said), channels or getattr(config, "channels", 1))
    with torch.no_grad():
        wanted: Tensor = model(batch)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert "holds encoder and head" in said
    assert f"in this order: {json.dumps(CLASSES)}." in said
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        about = file.metadata()
    assert (about["kind"], json.loads(about["classes"])) == (kind, [*CLASSES])
    if (channels or getattr(config, "channels", 1)) == 1:
        fresh = Classifier(config.encoder(last_norm=not head.norm), 2, head)
        load_initial(fresh, str(tmp_path / "c.safetensors"))
        first = config.encoder().first_kernel
        assert torch.equal(fresh.encoder.state_dict()[_at(first, fresh)], model.encoder.state_dict()[_at(first, model)])


@pytest.mark.parametrize(
    ("config", "head", "asked", "told"),
    [
        (
            TimmConfig(name="test_efficientnet", side=64),
            HeadConfig(pool="mean"),
            {},
            r"no head .* \(--objective.head.pool mean --objective.head.norm\): train one that it has",
        ),
        (VIT, HeadConfig(), {"whole": True}, "--whole is for masked autoencoders, and .*run is a task: leave it out"),
        (VIT, HeadConfig(), {"average": True}, "holds no average"),
    ],
)
def test_what_timm_has_no_head_for_is_told(
    tmp_path: Path, config: Any, head: HeadConfig, asked: Any, told: str
) -> None:
    _put(tmp_path / "run", config, head)
    with pytest.raises(Exception, match=told):
        export(Export(run=tmp_path / "run", out=tmp_path / "c.safetensors", **asked))
    assert not (tmp_path / "c.safetensors").exists()


def test_an_offset_that_all_images_share_hides_no_other_head(tmp_path: Path) -> None:
    """Years are around 2015, and differ by a few: a model that pools otherwise is near to all of them."""
    config, head = TimmConfig(name="test_vit", side=64), HeadConfig(pool="mean")
    model = _put(tmp_path / "run", config, head, "regression", offset=2015.0)
    _, state = export_task.with_head(model, None, 1)
    said = export(Export(run=tmp_path / "run", out=tmp_path / "c.safetensors"))
    assert "global_pool='avg'" in said
    found, batch = _scores(_called(said), 1)
    with torch.no_grad():
        assert float((found - model(batch)).abs().max()) < 0.01
    assert set(state) == set(_called(said).state_dict())


@pytest.mark.parametrize(
    ("batching", "warned"), [("resized:side=64,patch=8", False), ("resized:side=64,patch=8,fit=pad", True)]
)
def test_it_is_said_where_images_are_padded(tmp_path: Path, batching: str, warned: bool) -> None:
    _put(tmp_path / "run", VIT, HeadConfig(), batching=batching)
    said = export(Export(run=tmp_path / "run", out=tmp_path / "c.safetensors"))
    assert ("of other images can be far off" in said) is warned


def test_scores_that_are_not_finite_are_told(tmp_path: Path) -> None:
    _put(tmp_path / "run", VIT, HeadConfig(), offset=float("nan"))
    with pytest.raises(ArgumentError, match="not finite: export another checkpoint"):
        export(Export(run=tmp_path / "run", out=tmp_path / "c.safetensors"))


def test_scores_that_differ_are_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(tmp_path / "run", VIT, HeadConfig())
    folded = export_task.folded
    monkeypatch.setattr(export_task, "folded", lambda head: (folded(head)[0], folded(head)[1] + 1))
    with pytest.raises(ArgumentError, match="no head was found"):
        export(Export(run=tmp_path / "run", out=tmp_path / "c.safetensors"))

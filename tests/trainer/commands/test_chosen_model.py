"""Which model a command trains: the recipe's, that of the run it begins with, or a backbone of timm's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import ArgumentError
from tests.trainer.a_run import put_run
from trainer.commands.chosen_model import backbone_note, with_model
from trainer.commands.run_model import with_run
from trainer.commands.training import _with_model
from trainer.models.backbone import TimmConfig
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig
from trainer.recipes.registry import RECIPES
from trainer.runs.start import Job

OWN = VitConfig(patch=8, width=32, depth=1, heads=8, position="stretch", position_table=16, norm_eps=1e-12)
MAE = MaeConfig(
    patch=8, width=32, depth=1, heads=8, position="stretch", position_table=16, norm_eps=1e-12, decoder_depth=1
)
DENSE = TimmConfig(name="test_resnet", side=64)
STUDY = RECIPES["medmae-s16-nih"].config


def _typed(config: Any, **model: Any) -> Any:
    return replace(config, model=replace(config.model, **model))


@pytest.mark.parametrize("option", ["model.drop-path", "model.drop_path"])
def test_an_option_of_the_model_changes_that_field_of_the_runs_model_alone(tmp_path: Path, option: str) -> None:
    run = str(put_run(tmp_path / "run", MAE, MAE.build()))
    tiny = RECIPES["tiny-finetune"].config
    assert with_run(tiny, run, frozenset()).model == OWN
    assert with_run(_typed(tiny, drop_path=0.1), run, frozenset({option})).model == replace(OWN, drop_path=0.1)
    assert with_run(STUDY, run, frozenset()).model == replace(OWN, drop_path=0.2), "no part of an architecture"
    decoder = frozenset({"model.decoder-width", "model.position"})
    assert with_run(_typed(tiny, decoder_width=8), run, decoder).model == replace(OWN, position="absolute")


def test_the_head_pools_as_the_runs_backbone_does(tmp_path: Path) -> None:
    run = str(put_run(tmp_path / "run", DENSE, DENSE.build()))
    found = with_run(STUDY, run, frozenset())
    assert found.model == DENSE, "no stochastic depth of another model"
    assert found.objective.head == HeadConfig(pool="own", norm=False, std=2e-5)  # type: ignore[attr-defined]
    found = with_run(_typed(STUDY, drop_path=0.0), run, frozenset({"model.drop-path"}))
    assert found.model == DENSE, "an option does not put the recipe's model in its place"
    typed = frozenset({"objective.head.pool", "objective.head.norm"})
    assert with_run(STUDY, run, typed).objective == STUDY.objective
    assert with_run(STUDY, run, frozenset({"objective.head.no-norm"})).objective.head.norm  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=r"of a model of the kind Timm, without --model\.heads: leave it out"):
        with_run(STUDY, run, frozenset({"model.heads"}))
    same = replace(STUDY, model=TimmConfig(name="test_resnet.r160_in1k", drop_path=0.3))
    assert with_run(same, run, frozenset()) == replace(same, model=replace(DENSE, drop_path=0.3)), "a recipe of its own"


def test_a_moved_checkpoint_takes_the_model_from_the_options(tmp_path: Path) -> None:
    run = put_run(tmp_path / "run", MAE, MAE.build())
    moved = str((run / "checkpoints" / "step_00000007").rename(tmp_path / "moved"))
    tiny = RECIPES["tiny-finetune"].config
    with pytest.raises(ArgumentError, match=r"no run\.json that says which model it is of: add --model"):
        with_run(tiny, moved, frozenset())
    assert with_run(tiny, moved, frozenset({"model.heads"})) == tiny


def test_a_backbone_has_the_same_rate_in_all_its_layers_and_it_is_said(tmp_path: Path) -> None:
    """At .55 a layer, 59 layers of DenseNet would leave most weights as they begin."""
    run, nothing = str(put_run(tmp_path / "run", DENSE, DENSE.build())), frozenset[str]()
    for found in (with_model(STUDY, "test_resnet"), with_run(STUDY, run, nothing)):
        assert found.optim == replace(STUDY.optim, layer_decay=1.0)
        assert backbone_note(STUDY, found, frozenset({"model"})) == (
            "test_resnet is in place of the recipe's model: it has --optim.layer-decay 1.0, --model.drop-path 0.0,"
            " --objective.head.pool own, --objective.head.norm False, not --optim.layer-decay 0.55,"
            " --model.drop-path 0.2, --objective.head.pool mean, --objective.head.norm True"
        )
    typed = frozenset({"optim.layer-decay"})
    found = with_run(STUDY, run, typed)
    assert found.optim.layer_decay == 0.55
    assert "layer-decay" not in backbone_note(STUDY, found, typed)
    assert backbone_note(STUDY, STUDY, nothing) == ""


def _begun(run: Path, model: Any, typed: str = "", command: str = "pretrain") -> Any:
    """The model of a command that begins with a run."""
    config = replace(RECIPES["tiny" if command == "pretrain" else "tiny-finetune"].config, model=model)
    return _with_model(Job("r", config, "d", Path("out"), str(run), frozenset(typed.split()), command)).config.model


def test_pre_training_from_a_run_of_other_heads_or_positions_is_refused_with_the_options(tmp_path: Path) -> None:
    run = put_run(tmp_path / "run", MAE, MAE.build())
    assert _begun(run, replace(MAE, mask_ratio=0.5, norm_pix=True, drop_path=0.3)), "how it trains may differ"
    other = replace(MAE, heads=4, position="absolute", norm_eps=1e-6)
    with pytest.raises(
        ArgumentError, match=r"use --model\.heads 8 --model\.position stretch --model\.norm-eps 1e-12, or"
    ):
        _begun(run, other)
    with pytest.raises(ArgumentError, match=r"use --model\.decoder-heads 16, or another recipe, instead of 8"):
        _begun(run, replace(MAE, decoder_heads=8))
    changed = replace(MAE, position="absolute")
    assert _begun(run, changed, "model.position") == changed, "asked for"
    for command in ("pretrain", "finetune"):
        with pytest.raises(ArgumentError, match=r"use --model\.heads 8, or"):
            _begun(run, replace(MAE, heads=4), "model.heads", command)
    absolute = replace(MAE, position="absolute")
    run = put_run(tmp_path / "absolute", absolute, absolute.build())
    assert _begun(run, replace(absolute, position_table=64)), "a table that nothing interpolates"


def test_pre_training_from_a_task_compares_the_encoder_alone(tmp_path: Path) -> None:
    task = Classifier(OWN.encoder(), 3, HeadConfig(norm=False))
    run = put_run(tmp_path / "run", MAE, task)
    assert _begun(run, replace(MAE, decoder_heads=8, decoder_depth=3))
    with pytest.raises(ArgumentError, match=r"use --model\.heads 8, or"):
        _begun(run, replace(MAE, heads=4))


@pytest.mark.parametrize("model", [OWN, MAE, DENSE])
def test_a_command_goes_on_with_its_runs_model_where_the_first_one_is_gone(tmp_path: Path, model: Any) -> None:
    put_run(tmp_path / "out", model, model.build())
    job = Job("tiny-finetune", RECIPES["tiny-finetune"].config, "data", tmp_path / "out", "gone", command="finetune")
    assert _with_model(job).config.model == model
    wider = replace(job, config=_typed(job.config, width=64), typed=frozenset({"model.width"}))
    if model is not DENSE:
        assert _with_model(wider).config.model == replace(model, width=64), "refused then, as it is not the run's"
    first = replace(job, out=tmp_path / "other", init=str(put_run(tmp_path / "pre", OWN, OWN.build())))
    assert _with_model(first).config.model == OWN

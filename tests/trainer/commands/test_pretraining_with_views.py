"""DINO and MoCo by the command: a run draws pictures, is validated, and its encoder is of use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.objectives.whole_runs import held
from trainer.commands.cli import run as command
from trainer.models.backbone import TimmConfig
from trainer.models.initial import load_initial

STEPS = 2
SIDE = 32
VIEWS = {
    "dino": f"{SIDE}:n=2:crop=0.4/1.0:jitter=0.8:blur=0.5+16:n=2:crop=0.05/0.4:jitter=0.8:blur=0.5",
    "moco": f"{SIDE}:n=2:crop=0.2/1.0:jitter=0.8:blur=0.5",
}
OWN = {
    "dino": ["--recipe", "krones-dino-s16", "--model.name", "vit_tiny_patch16_224", "--objective.outputs", "64",
             "--objective.hidden", "32", "--objective.bottleneck", "16"],
    "moco": ["--recipe", "medmae-densenet121-moco", "--model.name", "resnet10t", "--objective.queue", "32"],
}  # fmt: skip


def _run(method: str, data: Path, out: Path) -> None:
    batching = f"multiview:batch_size=4,patch=16,per_step=2,remainder=drop,views={VIEWS[method]}"
    common = f"""
    --model.side {SIDE} --run.steps {STEPS} --run.precision fp32 --save.every 1 --save.keep {STEPS} --log.every 1
    --log.pictures 1 --val.every {STEPS}
    """
    words = ["--data", str(data), "--out", str(out), "--loader.batching", batching, *common.split()]
    assert command(["pretrain", *OWN[method], *words, "--run.no-compile", "--log.no-tensorboard"]) == 0


@pytest.mark.parametrize("method", ["dino", "moco"])
def test_a_run_by_the_command_is_drawn_and_validated_and_its_encoder_is_found(
    method: str, dataset_folder: Path, tmp_path: Path
) -> None:
    _run(method, dataset_folder, tmp_path / "run")
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 3, "two of the training, one of the validation"
    kept = held(tmp_path / "run", STEPS)
    assert any(name.startswith("objective.") for name in kept)
    name = {"dino": "vit_tiny_patch16_224", "moco": "resnet10t"}[method]
    encoder = TimmConfig(name=name, side=SIDE, any_size=method == "dino").build()
    load_initial(encoder, str(tmp_path / "run"))
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, kept[f"model.encoder.{key}"]), key


@pytest.mark.parametrize("method", ["dino", "moco"])
@pytest.mark.parametrize(
    ("batching", "remedy"),
    [
        ("packed:tokens=4096,patch=16,per_step=1", f"multiview:views={SIDE}:n=2:crop=0.4/1.0 with its batch_size"),
        (f"resized:side={SIDE},batch_size=4", f"multiview:views={SIDE}:n=2:crop=0.4/1.0 with its batch_size"),
        (f"multiview:batch_size=4,views={SIDE}", f"multiview:views={SIDE}:n=2:crop=0.4/1.0 with its batch_size"),
        ("multiview:batch_size=4,views=64:n=2", "a view has 64: write that side in views=... of --loader.batching"),
    ],
)
def test_a_batching_that_does_not_serve_is_refused_with_views_that_do(
    method: str, batching: str, remedy: str, dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [*OWN[method], "--model.side", str(SIDE), "--run.no-compile", "--run.steps", "1", "--val.every", "0"]
    words = ["pretrain", *own, "--data", str(dataset_folder), "--out", str(tmp_path / "run")]
    assert command([*words, "--loader.batching", batching]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert remedy in told
    assert "resized" not in told

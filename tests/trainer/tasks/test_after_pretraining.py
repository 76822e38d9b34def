"""Runs of methods with heads by command line: they go on exactly, and export, finetune and assess take the encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from trainer.commands.cli import run as command
from trainer.models.initial import described_encoder
from trainer.runs import checkpoint, unpickling

BEIT = "embed_dim=32 depth=2 num_heads=2 use_rel_pos_bias=False use_shared_rel_pos_bias=True global_pool=token"
SIMMIM = f"--recipe krones-simmim --model.side 64 --model.drop-path 0.3 --model.changes {BEIT}"
INPAINTING = "--recipe medmae-densenet121-mae --model.name test_efficientnet --model.side 64"
BATCHING = "resized:batch_size=4,crop=0.67/1.0,flip=0.5,patch=16,per_step=2,side=64"
SMALL = f"""
--loader.batching {BATCHING} --optim.lr 0.001 --run.steps 3 --save.every 1 --save.keep 9 --val.every 3
--log.every 1 --log.pictures 3 --log.baseline 1 --run.precision fp32 --log.no-tensorboard --optim.ema 0.5
"""
METHODS = {"simmim": SIMMIM, "inpainting": INPAINTING}


def _pretrain(method: str, data: Path, out: Path, *more: str, steps: int = 3) -> int:
    given = "--optim.lr" in more
    words = f"pretrain {METHODS[method]} {SMALL.replace('--optim.lr 0.001', '') if given else SMALL}".split()
    words[words.index("--run.steps") + 1] = str(steps)
    return command([*words, "--data", str(data), "--out", str(out), *more])


@pytest.fixture(scope="module", params=METHODS)
def trained(request: pytest.FixtureRequest, labelled_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(method, run)."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    assert _pretrain(request.param, labelled_dataset, out) == 0
    return request.param, out


def _all_of(path: Path) -> dict[str, torch.Tensor]:
    """Weights, buffers and moments of a checkpoint."""
    found = {n: torch.empty(s) for n, s in unpickling.shapes(path).items() if s is not None and n.startswith("model.")}
    held = {name.removeprefix("model."): value for name, value in found.items()}
    checkpoint.fill(path, held)
    return held


def test_pictures_are_drawn_and_the_page_says_what_they_are(trained: Any) -> None:
    method, run = trained
    for name in ("step_00000003", "val_00000003"):
        with Image.open(run / "pictures" / f"{name}.png") as picture:
            assert picture.width > 400
    facts = json.loads((run / "run.json").read_text())
    assert ("Hidden squares" in facts["objective"]["picture"], "features" in facts["objective"]["loss"]) == (True, True)
    assert (facts["baseline"] is None) is (method == "simmim")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["metrics"].keys() >= {"feature_deviation", "effective_rank"}


@pytest.mark.parametrize("step", [1, 2])
def test_a_run_that_was_stopped_goes_on_to_the_last_bit(
    trained: Any, labelled_dataset: Path, tmp_path: Path, step: int
) -> None:
    method, run = trained
    shutil.copytree(run, tmp_path / "run")
    for later in range(step + 1, 4):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{later:08d}")
    assert _pretrain(method, labelled_dataset, tmp_path / "run") == 0
    one, two = (_all_of(checkpoint.named(each)) for each in (run, tmp_path / "run"))
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    before = _all_of(run / "checkpoints" / "step_00000002")
    assert any(not torch.equal(value, before[name]) for name, value in one.items())


@pytest.mark.parametrize("average", [False, True])
def test_the_encoder_goes_out_to_timm_and_its_features_are_the_same(
    trained: Any, tmp_path: Path, average: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    out = tmp_path / "encoder.safetensors"
    assert command(["export", str(run), "--out", str(out), *(["--average"] if average else [])]) == 0
    with safe_open(out, "pt") as file:
        about = file.metadata()
    names: dict[str, Any] = {}
    assert about["call"] in capsys.readouterr().out
    exec(about["call"], names)
    config: Any = described_encoder(str(run))
    encoder = config.encoder().eval()
    checkpoint.weights(checkpoint.named(run), encoder, average, "encoder.")
    image = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            names["model"].forward_features(image), encoder.encoder.forward_features(image), rtol=0, atol=1e-5
        )
    last = {n: v for n, v in _all_of(checkpoint.named(run)).items() if n.startswith("encoder.encoder.")}
    weights = {n.removeprefix("encoder.encoder."): v for n, v in last.items()}
    changed = {n for n, v in load_file(out).items() if not torch.equal(v, weights[n].to(v.dtype))}
    trained_ones = {n for n, p in encoder.encoder.named_parameters() if p.requires_grad}
    assert (len(changed) > 5) is average
    assert changed <= trained_ones, "running statistics are the last ones"
    with pytest.raises(RuntimeError, match="in loading state_dict"):
        timm.create_model("test_vit", in_chans=1, num_classes=0).load_state_dict(load_file(out))


@pytest.mark.deep
def test_tasks_begin_with_the_encoder(
    trained: Any, words: Callable[..., list[str]], labelled_dataset: Path, tmp_path: Path, capsys: Any
) -> None:
    """A probe leaves it as it was; its scores and the encoder's features can be judged."""
    _, before = trained
    run = tmp_path / "probe"
    options = "--optim.lr 0.01 --run.steps 2 --val.every 2 --log.pictures 0 --log.no-tensorboard --select.patience 0"
    data = ["--data", str(labelled_dataset)]
    ask = ["--labels", "sizes", "--objective.columns", "high", "--loader.split", "sizes:train"]
    batching = ["--loader.batching", BATCHING.replace(",crop=0.67/1.0", "")]
    assert command(["probe", *data, "--out", str(run), "--init", str(before), *ask, *batching, *options.split()]) == 0
    assert "the encoder's weights are those of" in " ".join(capsys.readouterr().out.split())
    there, found = _all_of(checkpoint.named(before)), _all_of(checkpoint.named(run))
    same = {name for name in found if name in there and torch.equal(found[name], there[name])}
    assert {name for name in found if name.startswith("encoder.")} <= same
    once = ["--run.steps", "1", "--val.every", "0", "--select.metric", "", "--log.pictures", "0"]
    assert (
        command(["finetune", *data, "--out", str(tmp_path / "f"), "--init", str(before), *ask, *batching, *once]) == 0
    )
    assert (
        command(["evaluate", str(run), *data, "--bootstrap", "100", "--split", "all", "--out", str(tmp_path / "page")])
        == 0
    )
    judged = ["assess", str(before), *data, "--labels", "sizes", "--objective.columns", "high", "--out"]
    assert command([*judged, str(tmp_path / "assess"), "--fractions", "1", "--replicates", "10"]) == 0


@pytest.mark.deep
def test_pre_training_begins_with_a_run_of_its_own_or_another_method(
    trained: Any, labelled_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All weights of the same network, else the encoder's; an exported file has the encoder."""
    method, run = trained
    out, there = tmp_path / "encoder.pth", _all_of(checkpoint.named(run))
    assert command(["export", str(run), "--out", str(out)]) == 0
    whole = "all weights are those of", there.keys()
    part = "what the method puts on it begins at random", {n for n in there if n.startswith("encoder.")}
    for source, (words, names) in ((run, whole), (out, part)):
        capsys.readouterr()
        again, still = tmp_path / source.name.replace(".", "-"), ("--optim.lr", "1e-30", "--optim.weight-decay", "0")
        assert _pretrain(method, labelled_dataset, again, "--init", str(source), *still, steps=1) == 0
        assert words in " ".join(capsys.readouterr().out.split())
        found = _all_of(checkpoint.named(again))
        kept = {n for n in found if torch.equal(found[n], there[n]) and not n.endswith(("_mean", "_var", "_tracked"))}
        weights = {n for n in names if not n.endswith(("_mean", "_var", "_tracked"))}
        assert kept >= weights
        assert (kept >= {n for n in there if not n.endswith(("_mean", "_var", "_tracked"))}) is (source == run)


def test_maps_of_what_looks_odd_need_a_masked_autoencoder(
    trained: Any, labelled_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = trained
    words = ["explain", str(run), "--data", str(labelled_dataset), "--out", str(tmp_path / "maps")]
    assert command(words) == 1
    told = [" ".join(capsys.readouterr().err.split())]
    assert "anomaly maps need a masked autoencoder, and" in told[0]
    for method in ("rollout", "gradcam"):
        assert command([*words, "--method", method]) == 1
        told.append(" ".join(capsys.readouterr().err.split()))
    for sentence in told:
        assert "name a run of finetune or probe" in sentence
    assert "rollout" not in told[0], "no method is named that is refused next"

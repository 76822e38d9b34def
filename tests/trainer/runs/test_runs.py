"""Whole runs by command line: stopped, killed, on one process or two, they end as one that nothing happened to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.commands.cli import run as command
from trainer.models.mae import Mae, MaeConfig
from trainer.runs import checkpoint

SMALL = """
--model.width 32 --model.depth 2 --model.heads 2
--model.decoder-width 32 --model.decoder-depth 1 --model.decoder-heads 2
--loader.split all --loader.batching packed:patch=8,level=1,per_step=4,tokens=1024
--run.steps 10 --save.every 3 --log.every 1 --log.pictures 10 --log.baseline 2
--optim.ema 0.9 --optim.lr 4e-3 --optim.eps 1e-4
"""
# eps: Adam with its own of 1e-8 makes steps of full length out of rounding where a gradient is 0, as of biases of keys.
MODEL = MaeConfig(patch=8, width=32, depth=2, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

Lines = list[tuple[int, float, float]]


def _lines(out: Path) -> Lines:
    """(step, loss, norm of the gradient) of every logged step."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"], record["grad_norm"]) for record in records]


def _pairs(words: Sequence[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))


def _weights(out: Path, average: bool = False) -> dict[str, torch.Tensor]:
    model, place = Mae(MODEL), checkpoint.latest(out / "checkpoints")
    assert place is not None
    checkpoint.weights(place, model, average)
    return model.state_dict()


def _equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def words(dataset_folder: Path) -> Callable[..., list[str]]:
    def make(out: Path, *more: str) -> list[str]:
        options = {"--data": str(dataset_folder), "--out": str(out), **_pairs(SMALL.split()), **_pairs(more)}
        return ["pretrain", *(word for pair in options.items() for word in pair)]

    return make


@pytest.fixture(scope="module")
def whole(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert command(words(out)) == 0
    return out


def _start(words: list[str], *launcher: str) -> subprocess.Popen[str]:
    launch = [sys.executable, *launcher, "-m", "trainer", *words]
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()) if not launcher else "1"}
    return subprocess.Popen(launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def _until(process: subprocess.Popen[str], step: int, out: Path) -> None:
    """Wait for a line of that step."""
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() or len(_lines(out)) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_leaves_everything_a_user_looks_for(whole: Path) -> None:
    steps = [step for step, _, _ in _lines(whole)]
    assert steps == list(range(1, 11))
    kept = sorted(p.name for p in (whole / "checkpoints").iterdir())
    assert kept == ["step_00000009", "step_00000010"], "the last two"
    assert (whole / "pictures" / "step_00000010.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (whole / "report.html").read_text()
    assert list((whole / "tensorboard").iterdir())
    facts = json.loads((whole / "run.json").read_text())
    assert 0.5 < facts["baseline"]["flat_patch"] <= 1
    assert facts["parameters"] == sum(p.numel() for p in Mae(MODEL).parameters())
    record = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < record["padding"] < 1
    assert record["loss_by_bin"]
    assert record["images"] > 10 * 4


def test_the_same_command_again_does_nothing_more(whole: Path, words: Any) -> None:
    before = _lines(whole)
    assert command(words(whole)) == 0
    assert _lines(whole) == before


@pytest.mark.deep
def test_a_run_killed_at_any_moment_goes_on_as_if_nothing_happened(whole: Path, words: Any, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for step in (5, 8):
        process = _start(words(out))
        _until(process, step, out)
        process.kill()
        process.wait()
    assert not list((out / "checkpoints").glob("*10"))
    assert command(words(out)) == 0
    assert _lines(out) == _lines(whole), "same losses, bit for bit"
    assert _equal(_weights(out), _weights(whole))
    assert _equal(_weights(out, average=True), _weights(whole, average=True))
    assert not list((out / "checkpoints").glob("*.part"))


@pytest.mark.deep
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_and_the_run_goes_on_from_there(
    whole: Path, words: Any, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "asked"
    process = _start(words(out, "--save.every", "1000"))
    _until(process, 4, out)
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == code, told
    done = len(_lines(out))
    assert 4 <= done < 10
    assert (out / "checkpoints" / f"step_{done:08d}").exists()
    assert "run the same command again" in told
    assert command(words(out)) == 0
    assert _lines(out) == _lines(whole)
    assert _equal(_weights(out), _weights(whole))


@pytest.mark.deep
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_the_same_weights_and_either_number_goes_on_from_the_other(
    whole: Path, words: Any, tmp_path: Path, parallel: str
) -> None:
    out = tmp_path / parallel
    process = _start(words(out, "--run.parallel", parallel), *TORCHRUN)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told
    together, alone = _weights(out), _weights(whole)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=2e-5, msg=name)
    for (step, loss, norm), (_, other, other_norm) in zip(_lines(whole), _lines(out), strict=True):
        assert other == pytest.approx(loss, rel=1e-5), step
        assert other_norm == pytest.approx(norm, rel=1e-4), step
    # Back to its ninth step, and on with one process.
    for place in (out / "checkpoints").glob("*10"):
        place.rename(tmp_path / "aside")
    assert command(words(out)) == 0
    assert _lines(out)[-1] == pytest.approx(_lines(whole)[-1], rel=1e-4)


@pytest.mark.deep
def test_a_run_of_one_process_goes_on_with_two(whole: Path, words: Any, tmp_path: Path) -> None:
    out = tmp_path / "grown"
    process = _start(words(out, "--save.every", "1000"))
    _until(process, 3, out)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    process = _start(words(out), *TORCHRUN)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told
    for (step, loss, _), (_, other, _) in zip(_lines(whole), _lines(out), strict=True):
        assert other == pytest.approx(loss, rel=1e-5), step


def test_another_run_in_the_same_folder_is_refused(whole: Path, words: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(words(whole, "--optim.lr", "0.5")) == 1
    told = capsys.readouterr().err
    assert "--optim.lr 0.004, not 0.5" in " ".join(told.split())
    assert "--init" in told


def test_what_does_not_change_the_weights_may_change(whole: Path, words: Any) -> None:
    assert command(words(whole, "--save.every", "7", "--log.every", "3", "--loader.decoder", "threads")) == 0


def test_patches_of_model_and_batches_must_agree(
    words: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(words(tmp_path / "x", "--model.patch", "16")) == 1
    assert "patches are 16 pixels" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_run_begins_with_another_s_weights(
    whole: Path, words: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "second"
    assert command(words(out, "--init", str(whole), "--run.steps", "2", "--optim.warmup", "0")) == 0
    assert "all weights are those of" in capsys.readouterr().out
    assert _lines(out)[0][1] < 0.8 * _lines(whole)[0][1]


def test_a_run_s_encoder_goes_out_as_a_file_that_timm_loads_strictly(whole: Path, tmp_path: Path) -> None:
    from timm.models.vision_transformer import VisionTransformer

    out = tmp_path / "encoder.pth"
    assert command(["export", str(whole), "--grid", "4", "6", "--out", str(out)]) == 0
    vit = VisionTransformer(
        img_size=(32, 48), patch_size=8, in_chans=1, num_classes=0, embed_dim=32, depth=2, num_heads=2
    )
    vit.load_state_dict(torch.load(out, weights_only=True), strict=True)
    assert torch.equal(vit.get_parameter("blocks.0.attn.qkv.weight"), _weights(whole)["blocks.0.attn.qkv.weight"])
    assert command(["export", str(whole), "--grid", "4", "6", "--out", str(out), "--whole", "--average"]) == 0
    saved = torch.load(out, weights_only=True)["model"]
    assert torch.equal(saved["mask_token"], _weights(whole, average=True)["mask_token"])
    assert command(["export", str(tmp_path), "--grid", "4", "6", "--out", str(out)]) == 1

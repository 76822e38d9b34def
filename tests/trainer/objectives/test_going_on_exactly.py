"""Runs of every method that are stopped after every step go on bit for bit; without any part of it they do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.objectives.whole_runs import METHODS, STEPS, go, held, in_double, pictures, told

Runs = Callable[[str], tuple[Path, Path]]


def _differing(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> list[str]:
    """Names of what both hold that is not the same to the last bit."""
    return [name for name in one if name in two and not torch.equal(one[name], two[name])]


@pytest.fixture(scope="module")
def runs(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Method -> folder of a run that nothing disturbs, and of one stopped after every step, each time built anew."""
    made: dict[str, tuple[Path, Path]] = {}

    def of(name: str) -> tuple[Path, Path]:
        if name not in made:
            whole, stopped = (tmp_path_factory.mktemp(f"{name}-{which}") for which in ("whole", "stopped"))
            assert go(name, dataset_folder, whole)
            for step in range(1, STEPS + 1):  # others' weights are there before those of the checkpoint
                assert go(name, dataset_folder, stopped, until=step, seed=step - 1) is (step == STEPS)
            made[name] = whole, stopped
        return made[name]

    return of


def _same(whole: Path, other: Path, step: int = STEPS) -> None:
    """Check weights, moments, the average, statistics, the objective's, random states, numbers and pictures."""
    one, two = held(whole, step), held(other, step)
    assert one.keys() == two.keys()
    assert _differing(one, two) == []
    assert told(whole) == told(other)
    assert len(pictures(whole)) == 2 * ((step + 1) // 2), "of steps and of validations"
    assert pictures(whole) == pictures(other)


KINDS = ("mae", "inpainting-cnn", "sit-vit", "dino-vit", "moco-cnn")
"""A method for each kind of what is kept: an average, statistics of batches, and what an objective has of its own."""


@pytest.mark.parametrize("name", [n if n in KINDS else pytest.param(n, marks=pytest.mark.deep) for n in METHODS])
def test_a_run_that_is_stopped_after_every_step_is_one_that_is_not(runs: Runs, name: str) -> None:
    whole, stopped = runs(name)
    _same(whole, stopped)
    now, before = held(stopped), held(stopped, 2)
    kinds = {"model", "optim", "rng", *["average"] * (name == "mae")}
    kinds |= {"objective"} if name.startswith(("sit", "dino", "moco")) else set()
    assert {tensor.partition(".")[0] for tensor in now} == kinds
    changed = {tensor.partition(".")[0] for tensor in _differing(now, before)}
    assert kinds - {"rng"} <= changed, "all kinds change in a step"
    assert {line["epoch"] for line in told(whole) if "epoch" in line} > {0}, "the epoch changes too"


def _without(lost: str, objective: Any) -> None:
    """Forget tensors of an objective's whose names begin so, or that outputs are frozen in the first epoch."""
    if lost == "freeze":
        objective.config = replace(objective.config, freeze_last=0)
    else:
        own: Any = objective.state_dict
        objective.state_dict = lambda: {n: v for n, v in own().items() if not n.startswith(lost)}


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("sit-vit", "teacher.encoder.encoder.cls_token"),
        ("dino-vit", "centre"),
        ("dino-vit", "teacher.encoder.encoder.cls_token"),
        ("dino-vit", "freeze"),
        ("moco-cnn", "queue"),
        ("moco-cnn", "pointer"),
        *(
            pytest.param(*each, marks=pytest.mark.deep)
            for each in [
                ("sit-vit", "teacher.contrast.maps.0.weight"),
                ("sit-vit", "teacher.contrast.norms.0.weight"),
                ("sit-vit", "teacher.contrast.norms.1.running_mean"),
                ("sit-vit", "teacher.contrast.norms.2.running_var"),
                ("dino-vit", "teacher.head.last.direction"),
                ("dino-cnn", "teacher.encoder.encoder.bn1.running_var"),
                ("moco-vit", "teacher.encoder.encoder.cls_token"),
                ("moco-cnn", "teacher.head.0.weight"),
                ("moco-cnn", "teacher.encoder.encoder.bn1.running_mean"),
            ]
        ),
    ],
)
def test_without_any_part_it_would_be_another(
    runs: Runs, name: str, lost: str, dataset_folder: Path, tmp_path: Path
) -> None:
    _, stopped = runs(name)
    shutil.copytree(stopped / "checkpoints" / "step_00000001", tmp_path / "checkpoints" / "step_00000001")
    go(name, dataset_folder, tmp_path, until=2, seed=1, change=partial(_without, lost))
    found, right = held(tmp_path, 2), held(stopped, 2)
    assert (found.keys() == right.keys()) is (lost == "freeze")
    if "running" in lost:  # of use in validation alone
        assert told(tmp_path) != [line for line in told(stopped) if line["step"] == 2]
    else:
        assert _differing(found, right)


def test_dino_s_outputs_do_not_change_in_the_first_epoch_and_do_after_it(runs: Runs) -> None:
    """Nor by weight decay; moments that no step has made are kept as zeros."""
    after = [held(runs("dino-vit")[1], step) for step in range(1, STEPS + 1)]
    last = [of["model.head.last.direction"] for of in after]
    assert torch.equal(last[0], last[1]), "two steps of epoch 0"
    assert not torch.equal(last[1], last[2])
    moments = [of["optim.state.head.last.direction.exp_avg"] for of in after]
    assert [bool(of.any()) for of in moments] == [False, False, True]
    assert [float(of["optim.state.head.last.direction.step"]) for of in after] == [0.0, 0.0, 1.0]
    assert [float(of["objective.temperature"]) for of in after] == [0.04, 0.04, 0.07], "a validation knows it"


@pytest.mark.deep
@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_is_killed_after_any_step_goes_on_too(name: str, dataset_folder: Path, tmp_path: Path) -> None:
    """What it wrote after its last checkpoint is there, and is written again."""
    whole, steps = tmp_path / "whole", 5
    assert go(name, dataset_folder, whole, until=steps, steps=steps, save=1)
    for after in range(1, steps):
        out = tmp_path / f"after_{after}"
        shutil.copytree(whole, out)
        for step in range(after + 1, steps + 1):
            shutil.rmtree(out / "checkpoints" / f"step_{step:08d}")
        assert go(name, dataset_folder, out, until=steps, steps=steps, seed=after)
        _same(whole, out, steps)


# --- another number of processes

RANKS = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tests.trainer.objectives.whole_runs import METHODS, go, in_double
from trainer import parallel
from trainer.objectives import moco_keys, sit

world, (data, folder) = parallel.start(), map(Path, sys.argv[1:])
for name in METHODS:
    assert not go(name, data, folder / name, world, until=3, seed=1, steps=4, per_step=4, change=in_double)
for name, module in (("sit-vit", sit), ("moco-cnn", moco_keys)):
    module.parallel = SimpleNamespace(all_reduce_sum=lambda values: values)
    assert not go(name, data, folder / f"{name}-alone", world, until=3, seed=1, steps=4, per_step=4, change=in_double)
del world  # groups have threads, which must not live longer than Python
parallel.stop()
"""


ALONE = ("sit-vit", "moco-cnn")


@pytest.fixture(scope="module")
def between(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of four steps of four micro-batches: one on one process, two on two, one on one again."""
    folder = tmp_path_factory.mktemp("between")
    (folder / "ranks.py").write_text(RANKS)
    for name in METHODS:
        assert not go(name, dataset_folder, folder / name, until=1, steps=4, per_step=4, change=in_double)
    for name in ALONE:
        shutil.copytree(folder / name, folder / f"{name}-alone")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", folder / "ranks.py"]
    done = subprocess.run(
        [*map(str, [*launch, dataset_folder, folder])], capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name in METHODS:
        assert go(name, dataset_folder, folder / name, seed=2, until=4, steps=4, per_step=4, change=in_double)
    return folder


def _own(name: str) -> bool:
    """Whether a tensor is no mean over processes, and no random state, which the trainer draws nothing from."""
    return "running_" not in name and "num_batches" not in name and not name.startswith("rng.")


@pytest.mark.deep
@pytest.mark.parametrize("name", METHODS)
def test_a_run_may_change_the_number_of_its_processes(
    between: Path, name: str, dataset_folder: Path, tmp_path: Path
) -> None:
    """In float64: rounding of float32, which differs with threads and machines, grows tenfold from step to step."""
    assert go(name, dataset_folder, tmp_path, until=4, steps=4, per_step=4, change=in_double)
    lines, wanted = ([line for line in told(out) if "epoch" in line] for out in (between / name, tmp_path))
    assert [line["images"] for line in lines] == [line["images"] for line in wanted]
    for which in ("loss", "grad_norm"):
        assert [line[which] for line in lines] == pytest.approx([line[which] for line in wanted], rel=1e-5, abs=1e-5)
    one, two = held(between / name, 4), held(tmp_path, 4)
    assert {n for n in one if not n.startswith("rng.")} == {n for n in two if not n.startswith("rng.")}
    for tensor in filter(_own, two):
        torch.testing.assert_close(one[tensor], two[tensor], rtol=0, atol=1e-5, msg=tensor)
    if name.startswith("moco"):
        assert int(one["objective.pointer"]) == 0, "the queue of two steps has come round"


@pytest.mark.deep
@pytest.mark.parametrize("name", ALONE)
def test_keys_that_stay_on_their_process_train_otherwise(between: Path, name: str) -> None:
    right, wrong = (held(between / which, 3) for which in (name, f"{name}-alone"))
    assert max(float((right[n] - wrong[n]).abs().max()) for n in right if _own(n)) > 1e-4, "ten times the tolerance"

"""A training step gives a GPU its work without waiting for it, and no gradient is summed place after place.

A CPU runs the same operators: those are looked for here that a GPU would have to be waited for, or be slow at. Whole
steps of every method run on a GPU that is not there, which names the lines that would wait for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from shardkit import BinnedBatch, MultiViewBatch
from shardkit.terminal.output import Terminal
from tests.trainer.objectives.views_made import Batches, model
from tests.trainer.objectives.whole_runs import METHODS, config_of
from tests.trainer.pretended import CUDA, Pretended
from trainer.commands.training import open_loader
from trainer.config import Config, OptimConfig
from trainer.loop import Loop
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig, VitEncoder
from trainer.objectives.base import Objective
from trainer.objectives.masked import Masked
from trainer.parallel import World
from trainer.runs.log import Log
from trainer.tasks.targets import Targets
from trainer.tasks.task import Task
from trainer.tasks.training_targets import TrainingTargets

WAITS = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "_unique2")
"""Operators that read a value of the device or, as `torch.tensor` does with a list, copy one to it and wait."""
MAE = MaeConfig(patch=4, width=16, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES = [(16, 8), (12, 16), (9, 5)]


class Seen(TorchDispatchMode):
    """Counts operators by name, and remembers what `index_put` is asked to add up."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[str] = Counter()
        self.repeated = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        self.count[name] += 1
        if name.startswith(("index_put", "_unsafe_index_put", "_index_put_impl")) and args[3:4] == (True,):
            places = [index.flatten() for index in args[1] if index is not None and index.dtype != torch.bool]
            self.repeated = max([self.repeated, *(int(one.bincount().max()) for one in places if len(one))])
        return func(*args, **(kwargs or {}))


def seen(run: Callable[[], object]) -> Seen:
    mode = Seen()
    with mode:
        run()
    return mode


@pytest.fixture(params=["packed", "binned"])
def batch(request: pytest.FixtureRequest, make_packed: Any, make_binned: Any) -> Any:
    packed, images = make_packed(SIZES, patch=4, tokens=64, sequences=5)
    return packed if request.param == "packed" else make_binned(images, SIZES, 16, 16, 5)


def test_what_is_looked_for_is_seen() -> None:
    values, place = torch.arange(3.0, requires_grad=True), torch.tensor(1)
    assert seen(lambda: values[place]).count["_local_scalar_dense"]
    assert seen(lambda: torch.tensor([1, 2])).count["lift_fresh"]
    assert not any(seen(lambda: values[place[None]]).count[name] for name in WAITS)
    same = torch.tensor([1, 1, 1, 0])
    assert seen(lambda: torch.autograd.backward(values[same].sum())).repeated == 3


@pytest.mark.parametrize("position", ["absolute", "centered", "stretch"])
def test_a_step_of_a_masked_autoencoder_waits_for_nothing_and_adds_nothing_up(position: Any, batch: Any) -> None:
    objective = Masked(replace(MAE, position=position, norm_pix=True).build())
    found = seen(lambda: torch.autograd.backward(objective.run(objective.model, batch).loss))
    assert not {name: found.count[name] for name in WAITS if found.count[name]}
    assert found.repeated <= 1


def test_a_step_of_a_masked_hiera_adds_nothing_up(make_binned: Any) -> None:
    images = list(torch.rand(2, 128, 128))
    batch = make_binned(images, [(128, 128)] * 2, 128, 128, 3)
    config = HieraConfig(arch="hiera_micro", side=128, decoder_width=32, decoder_depth=1, decoder_heads=4)
    objective = Masked(config.build())
    found = seen(lambda: torch.autograd.backward(objective.run(objective.model, batch).loss))
    assert found.repeated <= 1


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_a_classifier_waits_for_nothing_and_adds_nothing_up(pool: Any, batch: Any) -> None:
    config = VitConfig(patch=4, width=16, depth=2, heads=2, drop_path=0.1)
    model = Classifier(VitEncoder(config), 3, HeadConfig(pool=pool))
    found = seen(lambda: torch.autograd.backward(model(batch).float().sum()))
    assert not {name: found.count[name] for name in WAITS if found.count[name]}
    assert found.repeated <= 1


# --- whole steps, on a GPU that is not there

_VIT = VitConfig(patch=8, width=32, depth=2, heads=2, drop_path=0.3)


def _optim(**changes: Any) -> OptimConfig:
    return OptimConfig(lr=1e-3, **changes)


TASKS: dict[str, tuple[Any, str, HeadConfig, Any, OptimConfig]] = {
    "multilabel": (_VIT, "mae", HeadConfig(), "multilabel", _optim(layer_decay=0.7)),
    "multiclass": (_VIT, "hiera", HeadConfig(pool="token"), "multiclass", _optim(clip=1.0)),
    "regression": (model("cnn"), "inpainting-cnn", HeadConfig(pool="own", norm=False), "regression", _optim()),
    "hiera, categories": (
        HieraConfig(arch="hiera_of_runs", side=64, drop_path=0.3), "hiera", HeadConfig(pool="own", norm=False),
        "multiclass", _optim(name="adam"),
    ),
    "probe": (_VIT, "mae", HeadConfig(batch_norm=True, pool="token"), "multilabel", _optim(name="lars")),
}  # fmt: skip


def _task(name: str, rows: int) -> Objective:
    described, _, head, kind, _ = TASKS[name]
    known = np.ones((rows, 3), np.bool_)
    values = np.eye(3, dtype=np.float32)[np.arange(rows) % 3]
    targets = Targets(("a", "b", "c"), values, known)
    trained, weight = TrainingTargets(targets.classes, values, known, kind), np.ones(3, np.float32)
    return Task(Classifier(described.encoder(), 3, head), targets, trained, (weight, weight))


def _emptied(batch: Any, places: list[int]) -> Any:
    """The batch with no image in some places, as the loader has such places."""
    rows, seeds = batch.rows.clone(), batch.seeds.clone()
    rows[places], seeds[places] = -1, 0
    changes: dict[str, Any] = {"rows": rows, "seeds": seeds}
    if isinstance(batch, BinnedBatch | MultiViewBatch):
        changes["kept"] = replace(batch.slots(), rows=rows.numpy(), seeds=seeds.numpy())
    return replace(batch, **changes)


def _objective(name: str, data: Path) -> tuple[Config, Objective, list[Any]]:
    """A run's config, its objective, and the batches of two steps of its loader; in the second one places are empty."""
    here, method = World(0, 1, torch.device("cpu")), TASKS[name][1] if name in TASKS else name
    config = config_of(method)
    loader = open_loader(config, str(data), here.device, 0, 1)
    if name in TASKS:
        config = replace(config, optim=TASKS[name][4])
        objective = _task(name, len(loader.bins()[1]))
    else:
        objective = config.objective.build(config.model, loader)
    batches = list(islice(chain.from_iterable(repeat(loader)), 4))
    batches[2], batches[3] = _emptied(batches[2], [1]), _emptied(batches[3], [0, 1, 2])
    return config, objective, batches


class _There(Batches):
    """The batches as a loader on the GPU hands them out."""

    def __init__(self, given: list[Any], bins: Any) -> None:
        super().__init__(given)
        self._bins = bins

    def bins(self) -> Any:
        return self._bins


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    made = Pretended()
    monkeypatch.setattr(Tensor, "backward", lambda *_: None)  # its threads need a GPU; see the backward passes below
    monkeypatch.setattr(torch, "tensor", made.of_values(torch.tensor))
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    return made


@pytest.mark.parametrize("wait", [
    lambda x: x[x[:, 0] > 0],
    lambda x: x[torch.tensor([1, 0])],
    lambda x: x.tolist(),
    lambda x: bool(x.any()),
    lambda x: x.cpu(),
    lambda x: x.to("cpu", non_blocking=True),  # who could read it?
    lambda x: torch.nonzero(x),
    lambda x: torch.tensor([1.0, 2.0], device=x.device),
    lambda x: torch.ones(2).to(x.device),
    lambda x: torch.ones(2).to(x.device, non_blocking=True),  # not pinned
    lambda x: x.copy_(torch.ones(3, 2)),
    lambda x: torch.linalg.svdvals(x),
    lambda x: torch.linalg.eigvalsh(x @ x.T),
])  # fmt: skip
def test_every_way_to_wait_for_a_gpu_is_seen(wait: Any, gpu: Pretended) -> None:
    x = gpu.tensor(torch.ones(3, 2))
    with gpu:
        wait(x)
    assert gpu.waits


def test_work_that_is_only_handed_to_a_gpu_is_no_wait(gpu: Pretended) -> None:
    x = gpu.tensor(torch.ones(3, 2))
    with gpu:
        at = torch.arange(2).pin_memory().to(x.device, non_blocking=True)
        x[at] = x[:2] * 2.0
        x.index_add_(0, at, torch.where(x > 0, x, 0.0)[:2]).sum().double()
    assert gpu.waits == []


def _waits(name: str, data: Path, folder: Path, gpu: Pretended) -> list[list[str]]:
    """The places where each of two steps waits."""
    config, objective, batches = _objective(name, data)
    of = [objective.model, *(part for part in vars(objective).values() if isinstance(part, nn.Module))]
    for part in dict.fromkeys(of):
        gpu.module(part)
    for key, value in vars(objective).items():
        if isinstance(value, Tensor):
            setattr(objective, key, gpu.tensor(value))
    objective.to = lambda device: None  # type: ignore[method-assign]  # all of it is there
    there = [batch._each(gpu.tensor) for batch in batches]
    world, names = World(0, 1, CUDA), ["all"]
    log = Log(folder, names, 99, None, 1, Terminal(quiet=True), False)
    bins = names, np.zeros(99, np.int64)
    with gpu:
        loop = Loop(objective, _There(there, bins), config, folder, world, log, 2)  # type: ignore[arg-type]
        for p in loop.model.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        loop.optimizer.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]
        found = []
        for _ in range(2):
            before = len(gpu.waits)
            loop._step()
            found.append(gpu.waits[before:])
    return found


@pytest.mark.parametrize("name", [*METHODS, *TASKS])
def test_a_step_waits_for_a_gpu_once(name: str, dataset_folder: Path, tmp_path: Path, gpu: Pretended) -> None:
    for waits in _waits(name, dataset_folder, tmp_path, gpu):
        assert [wait.split(":")[0] for wait in waits] == ["trainer/metrics.py"], "\n".join(waits)


@pytest.mark.parametrize("name", [*METHODS, *TASKS])
def test_a_backward_pass_waits_for_nothing(name: str, dataset_folder: Path) -> None:
    _, objective, batches = _objective(name, dataset_folder)
    objective.model.train()
    for batch in batches[1:3]:  # all places are filled; some are
        objective.begin_step(1, 3, [batch], World(0, 1, torch.device("cpu")))
        loss = objective.run(objective.model, batch).loss
        found = seen(partial(torch.autograd.backward, loss))
        assert not {wait: found.count[wait] for wait in WAITS if found.count[wait]}


@pytest.mark.parametrize("source", [[2, 5, 0, 5, 1], [5, 5], [0, 1, 2, 3, 4], []])
def test_mask_tokens_and_outputs_are_those_of_a_table_with_all_of_them(source: list[int]) -> None:
    decoder = replace(MAE, decoder_width=4, decoder_heads=1).build()
    nn.init.normal_(decoder.mask_token)
    x, places = torch.randn(5, 4, requires_grad=True), torch.tensor(source, dtype=torch.int64)
    weight = torch.randn(len(source), 4)

    def gradients(of: Tensor) -> list[Tensor]:
        torch.autograd.backward((of * weight).sum(), inputs=[x, decoder.mask_token])
        found = [x.grad, decoder.mask_token.grad]
        x.grad = decoder.mask_token.grad = None
        return [torch.zeros(1) if one is None else one for one in found]

    ours, table = decoder.with_mask_tokens(x, places), torch.cat([x, decoder.mask_token[0]])[places]
    assert torch.equal(ours, table)
    for one, other in zip(gradients(ours), gradients(table), strict=True):
        torch.testing.assert_close(one, other)

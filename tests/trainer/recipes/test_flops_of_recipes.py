"""Operations that every recipe is billed for are those that PyTorch counts while a micro-batch of it is run.

A pass with gradients counts three times, as it does in what is billed. Models of other programs have their full size:
they run without values on a GPU that is not there.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import varlen  # names the operator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from shardkit import BinnedBatch, MultiView, MultiViewBatch, from_text
from shardkit.loader.batch import BatchPosition, Slots
from tests.trainer.pretended import CUDA, Pretended
from trainer.models.backbone import TimmConfig
from trainer.models.classifier import Classifier
from trainer.models.hiera import HieraConfig
from trainer.objectives.base import Objective
from trainer.parallel import World
from trainer.recipes.registry import RECIPES
from trainer.tasks.config import TaskConfig
from trainer.tasks.targets import Targets
from trainer.tasks.task import Task
from trainer.tasks.training_targets import TrainingTargets

HERE = BatchPosition(0, 0, 0, 1, True)
PLACES = 4


class Counter(TorchDispatchMode):
    """PyTorch's formulas, three times where gradients follow; our attention by the lengths that it is given."""

    def __init__(self, trained: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self.trained = 0, trained

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet, tensors = func._overloadpacket, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        times = 3 if torch.is_grad_enabled() and any(x.requires_grad for x in tensors) else 1
        if packet in (torch.ops.trainer.segments, varlen._varlen_attn._opoverload.overloadpacket):
            times = 3 if self.trained else 1  # PyTorch turns gradients off within operators of this kind
        if packet is torch.ops.trainer.segments:
            lengths = args[3].diff().long()
            self.total += times * int(4 * lengths.square().sum()) * args[0].shape[1] * args[0].shape[2]
        elif packet in flop_registry:
            self.total += times * int(flop_registry[packet](*args, **(kwargs or {}), out_val=out))
        return out


def _classified(config: Any) -> Objective:
    """A task of the recipe's model and head, with made-up labels."""
    task: TaskConfig = config.objective
    names = task.columns or ("a", "b")
    known, values = np.ones((9, len(names)), np.bool_), np.zeros((9, len(names)), np.float32)
    targets, weight = Targets(names, values, known), np.ones(len(names), np.float32)
    model = Classifier(config.model.encoder(), len(names), task.head)
    if task.freeze:
        model.encoder.requires_grad_(False)
    trained = TrainingTargets(names, values, known, "multilabel")
    return Task(model, targets, trained, (weight, weight))


def _batch(batching: Any, make_packed: Any) -> Any:
    """Two images and two empty places."""
    rows, seeds = np.array([0, 1, -1, -1]), np.array([5, 6, 0, 0])
    ids = torch.from_numpy(rows), torch.from_numpy(seeds)
    if isinstance(batching, MultiView):
        views = tuple(torch.zeros(v.n, PLACES, 1, v.side, v.side) for v in batching.views)
        return MultiViewBatch(views, *ids, HERE, Slots(rows, seeds))
    if not hasattr(batching, "side"):
        p = batching.patch
        return make_packed([(10 * p, 9 * p - 3), (7 * p, 12 * p)], patch=p, tokens=240, sequences=4)[0]
    side = batching.side
    sizes = torch.tensor([[side, side]] * 2 + [[0, 0]] * 2)
    return BinnedBatch(torch.zeros(PLACES, 1, side, side), sizes, *ids, HERE, Slots(rows, seeds))


SLOW = ("dino-s16", "krones-dino-s16", "medhiera-t224", "medhiera-t224-nih", "medmae-densenet121-mae",
        "medmae-densenet121-moco", "simmim-b16", "simmim-swin-b192")  # fmt: skip
"""Large models; those of the other recipes go through the same lines."""


@pytest.mark.parametrize("recipe", [pytest.param(r, marks=pytest.mark.deep) if r in SLOW else r for r in RECIPES])
def test_operations_of_a_recipe_are_those_that_pytorch_counts(
    recipe: str, make_packed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RECIPES[recipe].config
    found = Counter(trained=not getattr(config.objective, "freeze", False))
    batching = from_text(config.loader.batching)
    foreign = isinstance(config.model, TimmConfig | HieraConfig)
    if not foreign:  # its formulas are the same for a shallow model
        own: Any = config.model
        config = replace(config, model=replace(own, depth=2, **_shallow(own)))
    loader: Any = SimpleNamespace(batching=batching, normalised={})
    with torch.device("meta" if foreign and not isinstance(config.model, HieraConfig) else "cpu"):
        task = isinstance(config.objective, TaskConfig)
        objective = _classified(config) if task else config.objective.build(config.model, loader)
    batch, world = _batch(batching, make_packed), World(0, 1, torch.device("cpu"))
    objective.model.eval()  # places without an image are run, too: what a batch is billed for
    if not foreign:
        with found:
            objective.run(objective.model, batch)
        assert float(objective.run_flops(batch)) == pytest.approx(found.total, rel=5e-3)
        return
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    gpu = Pretended()
    for part in (objective.model, *(part for part in vars(objective).values() if isinstance(part, nn.Module))):
        gpu.module(part)
    for name, value in vars(objective).items():
        if isinstance(value, Tensor):
            setattr(objective, name, gpu.tensor(value))
    there = batch._each(gpu.tensor)
    with gpu, found:
        if not task and objective.whole_steps:
            objective.begin_step(1, 3, [_full(there)], replace(world, device=CUDA))
            objective.model.train()
            there = _full(there)
        objective.run(objective.model, there)
    run = float(objective.run_flops(batch))
    assert run == pytest.approx(found.total, rel=5e-3)
    assert objective.own_flops(batch).tolist() == pytest.approx([run / PLACES] * 2 + [0, 0])


def _full(batch: Any) -> Any:
    return replace(batch, kept=Slots(np.arange(PLACES), np.arange(PLACES)))


def _shallow(model: Any) -> dict[str, Any]:
    return {"decoder_depth": 1} if hasattr(model, "decoder_depth") else {}

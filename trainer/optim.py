"""Optimiser, its parameter groups, gradient norms, and a moving average of the weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from trainer.config import OptimConfig


def optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return Adam or AdamW with two groups of parameters, one of which decays.

    With `decay="matrices"` biases, norms and what the model's `no_weight_decay()` names do not decay.
    """
    named = getattr(model.module if isinstance(model, DistributedDataParallel) else model, "no_weight_decay", None)
    exempt = frozenset[str]() if named is None else named()
    trained = {plain(name): p for name, p in model.named_parameters() if p.requires_grad}
    decayed = {name for name, p in trained.items() if config.decay == "all" or (p.ndim > 1 and name not in exempt)}
    groups = [
        {"params": [p for name, p in trained.items() if name in decayed], "weight_decay": config.weight_decay},
        {"params": [p for name, p in trained.items() if name not in decayed], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    fused = all(p.is_cuda for p in trained.values())
    return kind([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def gradients(model: nn.Module) -> list[Tensor]:
    """Return the gradients of the parameters that have one."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def norm(grads: Iterable[Tensor]) -> Tensor:
    """Return the norm of all gradients together, on all ranks: float32 ()."""
    total = torch.nn.utils.get_total_norm(list(grads))
    return total.full_tensor() if isinstance(total, DTensor) else total


class Average:
    """Exponential moving average of a model's trained parameters.

    Parameters
    ----------
    model
        As it is trained, wrapped or not.
    decay
        Share of the average that stays at each update.

    Attributes
    ----------
    state : dict of str to Tensor
        The average, by the names of the model without wrappers.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._own = [p for p in model.parameters() if p.requires_grad]
        self._decay, names = decay, [name for name, p in model.named_parameters() if p.requires_grad]
        self.state = {plain(name): p.detach().clone() for name, p in zip(names, self._own, strict=True)}

    @torch.no_grad()
    def update(self) -> None:
        """Follow the weights, after a step of the optimiser."""
        torch._foreach_lerp_(list(self.state.values()), [p.detach() for p in self._own], 1 - self._decay)


def plain(name: str) -> str:
    """Return a parameter's name without what wrappers put before it."""
    return name.removeprefix("module.")

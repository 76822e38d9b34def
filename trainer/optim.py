"""Optimiser, its parameter groups, gradient norms, and a moving average of the weights."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.optim import Lars
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from shardkit.errors import ArgumentError
from trainer.config import OptimConfig

_SCALE = "lr_scale"  # timm's name; groups without have the schedule's rate


def optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a model's trained parameters, in groups.

    With `decay="matrices"` biases, norms and what the model's `no_weight_decay()` names do not decay. With layer decay
    each layer has two groups, and their rates are the schedule's times a power of `layer_decay`: that of the number of
    layers up to the last one (Clark et al. 2020; Bao et al. 2022).

    Raises
    ------
    ArgumentError
        For a weight decay that is to change from 0: groups that do not decay are known by their 0.
    """
    if config.weight_decay_end is not None and not config.weight_decay:
        raise ArgumentError(
            "--optim.weight-decay-end changes --optim.weight-decay, which is 0: begin with a small number above it"
        )
    groups = list(_groups(model, config).values())
    o = config
    if o.name == "lars":
        for group in groups:  # as for MoCo-v3: matrices adapt, decayed or not, and nothing else does
            group["always_adapt"] = group["params"][0].ndim > 1
        return Lars(groups, lr=o.lr, momentum=o.momentum, trust_coeff=o.trust)
    if o.name == "sgd":
        return torch.optim.SGD(groups, lr=o.lr, momentum=o.momentum)
    kind = torch.optim.AdamW if o.name == "adamw" else torch.optim.Adam
    fused = all(p.is_cuda for group in groups for p in group["params"])
    return kind(groups, lr=o.lr, betas=o.betas, eps=o.eps, fused=fused)


def _groups(model: nn.Module, config: OptimConfig) -> dict[tuple[int, bool, bool], dict[str, Any]]:
    """Return groups of parameters of one layer that decay or not, ordered by layer, those that decay first."""
    own: Any = model.module if isinstance(model, DistributedDataParallel) else model
    exempt: frozenset[str] = own.no_weight_decay() if hasattr(own, "no_weight_decay") else frozenset()
    trained = {plain(name): p for name, p in model.named_parameters() if p.requires_grad}
    found: dict[tuple[int, bool, bool], dict[str, Any]] = {}
    for name, p in trained.items():
        decays = config.decay == "all" or (p.ndim > 1 and name not in exempt)
        layer = 0 if config.layer_decay == 1 else own.layer_of(name)
        adapts = config.name == "lars" and p.ndim > 1
        group = found.setdefault((layer, not decays, adapts), {"params": []})
        group["params"].append(p)
        group["weight_decay"] = config.weight_decay if decays else 0.0
        if config.layer_decay != 1:
            group[_SCALE] = config.layer_decay ** (own.layers - layer)
    return {key: found[key] for key in sorted(found)}


def set_rate(of: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups, each with its own scale."""
    for group in of.param_groups:
        group["lr"] = rate * group.get(_SCALE, 1.0)


def gradients(model: nn.Module) -> list[Tensor]:
    """Return the gradients of the parameters that have one."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def set_decay(of: torch.optim.Optimizer, decay: float) -> None:
    """Set the weight decay of the groups that decay."""
    for group in of.param_groups:
        if group["weight_decay"]:
            group["weight_decay"] = decay


@torch.no_grad()
def scaled(grads: list[Tensor], scale: Tensor, config: OptimConfig) -> Tensor:
    """Scale gradients, in place, and clip them; return their norm before they are clipped: float32 ().

    Parameters
    ----------
    grads
        Of all parameters that have one.
    scale
        (), what they are multiplied by.
    config
        What is clipped, and to which norm.
    """
    before = norm(grads) * scale
    if config.clip is not None and config.clip_by == "model":
        scale = scale * (config.clip / (before + 1e-6)).clamp(max=1)
    torch._foreach_mul_(grads, scale.to(grads[0].dtype))
    if config.clip is not None and config.clip_by == "tensor":
        clip_each(grads, config.clip)
    return before


@torch.no_grad()
def clip_each(grads: Sequence[Tensor], greatest: float) -> None:
    """Scale each tensor's gradient down to a norm, in place, whatever the others have.

    Parameters
    ----------
    grads
        One a parameter; none is sharded over ranks.
    greatest
        Greatest norm of one tensor.
    """
    factors = (greatest / (torch.stack(torch._foreach_norm(list(grads))) + 1e-6)).clamp(max=1)  # all at once
    torch._foreach_mul_(list(grads), list(factors.unbind()))


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

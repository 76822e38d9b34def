"""Sums by name, added up over micro-batches and processes. A metric is a sum and a count; their quotient is logged."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer import parallel

Sums = dict[str, Tensor]

PREFIX = "metrics/"
"""Before the names of an objective's metrics, where they lie among others."""


def mean_of(values: Tensor, weight: Tensor) -> Tensor:
    """Return a metric for `Output.metrics`, from one value per image.

    Parameters
    ----------
    values
        Any dtype (S,), one an image.
    weight
        float (S,), how much each of them counts.

    Returns
    -------
    Tensor
        float64 (2,), the weighted sum and the sum of weights; their quotient is what is logged.
    """
    values, weight = values.detach().double(), weight.double()
    return torch.stack([torch.where(weight > 0, values * weight, 0.0).sum(), weight.sum()])


def named(metrics: Mapping[str, Tensor]) -> Sums:
    """Return an objective's metrics by the names that they have among other sums."""
    return {f"{PREFIX}{name}": value for name, value in metrics.items()}


@torch.no_grad()
def add(sums: Sums, values: Mapping[str, Tensor]) -> None:
    """Add values to the sums of the same name, in place, as float64."""
    for name, value in values.items():
        new = value.detach().double()
        sums[name] = sums[name] + new if name in sums else new


def over_processes(sums: Sums) -> Sums:
    """Add sums up over processes, in one exchange.

    All processes have to give the same names and shapes, in the same order.
    """
    return _split(parallel.all_reduce_sum(_joined(sums)), sums)


def on_cpu(sums: Sums) -> Sums:
    """Copy sums to the CPU in one piece; waits for the device."""
    return _split(_joined(sums).cpu(), sums)


def means(sums: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Return the objective's metrics among the sums as means, by the objective's names; None where none is finite."""
    found: dict[str, float | None] = {}
    for name, value in sums.items():
        if name.startswith(PREFIX):
            total, count = value.tolist()
            mean = total / count if count else math.nan
            found[name.removeprefix(PREFIX)] = mean if math.isfinite(mean) else None
    return found


def _joined(sums: Sums) -> Tensor:
    return torch.cat([value.flatten() for value in sums.values()])


def _split(values: Tensor, like: Sums) -> Sums:
    parts = torch.split(values, [value.numel() for value in like.values()])
    return {name: part.view(like[name].shape) for name, part in zip(like, parts, strict=True)}

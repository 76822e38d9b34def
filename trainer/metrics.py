"""Sums and counts by name: of micro-batches, of all processes, and their quotients."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer import parallel

Sums = dict[str, Tensor]

METRICS = "metrics/"
"""Before the names of an objective's metrics, where they lie among others."""


def mean_of(values: Tensor, weight: Tensor) -> Tensor:
    """float64 (2,), a metric for `Output.metrics` from a value an image: (S,) and (S,)."""
    values, weight = values.detach().double(), weight.double()
    return torch.stack([torch.where(weight > 0, values * weight, 0.0).sum(), weight.sum()])


def named(metrics: Mapping[str, Tensor]) -> Sums:
    """An objective's metrics, for `add`."""
    return {f"{METRICS}{name}": value for name, value in metrics.items()}


@torch.no_grad()
def add(sums: Sums, values: Mapping[str, Tensor]) -> None:
    """Add values to those of the same name, as float64."""
    for name, value in values.items():
        new = value.detach().double()
        sums[name] = sums[name] + new if name in sums else new


def over_processes(sums: Sums) -> Sums:
    """Added up over processes, in one exchange. All of them have the same names and shapes, in the same order."""
    return _split(parallel.all_reduce_sum(_joined(sums)), sums)


def on_cpu(sums: Sums) -> Sums:
    """Copied in one piece; waits for the device."""
    return _split(_joined(sums).cpu(), sums)


def means(sums: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Of the metrics among them, by the objective's names; None where there is no finite one."""
    found: dict[str, float | None] = {}
    for name, value in sums.items():
        if name.startswith(METRICS):
            total, count = value.tolist()
            mean = total / count if count else math.nan
            found[name.removeprefix(METRICS)] = mean if math.isfinite(mean) else None
    return found


def _joined(sums: Sums) -> Tensor:
    return torch.cat([value.flatten() for value in sums.values()])


def _split(values: Tensor, like: Sums) -> Sums:
    parts = torch.split(values, [value.numel() for value in like.values()])
    return {name: part.view(like[name].shape) for name, part in zip(like, parts, strict=True)}

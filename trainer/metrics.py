"""Sums by name, added up over micro-batches and processes. A metric is a sum and a count; their quotient is logged."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import parallel

Sums = dict[str, Tensor]

PREFIX = "metrics/"
"""Before the names of an objective's metrics, where they lie among others."""


@dataclass(frozen=True, slots=True)
class Later:
    """A metric that is made on the CPU, of what a device would have to be waited for in the middle of a step.

    Attributes
    ----------
    values : Tensor
        float64, small, of any shape. They come to the CPU with the step's sums, in the one copy that is waited for.
    finish : function
        Makes the metric of these values on the CPU: float64 (2,), a sum and a count.
    """

    values: Tensor
    finish: Callable[[Tensor], Tensor]


Metrics = Mapping[str, Tensor | Later]


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


def named(metrics: Metrics) -> Sums:
    """Return an objective's metrics by the names that they have among other sums; those for later are left out."""
    return {f"{PREFIX}{name}": value for name, value in metrics.items() if isinstance(value, Tensor)}


def for_later(metrics: Metrics) -> list[tuple[str, Later]]:
    """Return the metrics that `named` leaves out, by the names that they will have."""
    return [(f"{PREFIX}{name}", value) for name, value in metrics.items() if isinstance(value, Later)]


@torch.no_grad()
def finished(later: Iterable[tuple[str, Later]]) -> Sums:
    """Finish metrics whose values are on the CPU, and add up those of one name, over processes too.

    All processes have to give the same names, in the same order.
    """
    sums: Sums = {}
    for name, one in later:
        add(sums, {name: one.finish(one.values)})
    return over_processes(sums) if sums else sums


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


def on_cpu(sums: Sums, later: Iterable[tuple[str, Later]] = ()) -> tuple[Sums, list[tuple[str, Later]]]:
    """Copy sums, and the values of metrics that are made later, to the CPU in one piece; waits for the device."""
    names, values = [name for name, _ in later], {str(i): one.values for i, (_, one) in enumerate(later)}
    found = _split(_joined({**sums, **values}).cpu(), {**sums, **values})
    there = [Later(found.pop(at), one.finish) for at, (_, one) in zip(values, later, strict=True)]
    return found, list(zip(names, there, strict=True))


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

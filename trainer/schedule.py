"""Learning rates by step, pure functions: linear warm-up then cosine or nothing more, or one cycle."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A learning rate for each step.

    Attributes
    ----------
    kind : {"cosine", "onecycle", "constant"}
        Its shape.
    peak, floor : float
        Greatest learning rate, and the least, at the end; one cycle has its own end.
    warmup, total : int
        Steps of linear warm-up, and of the whole run.
    every : int
        Steps that share a rate: those of an epoch, where it changes by epoch.
    """

    kind: Literal["cosine", "onecycle", "constant"] = "cosine"
    peak: float
    floor: float = 0.0
    warmup: int = 0
    total: int
    every: int = 1

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        at, total, warmup = step // self.every, math.ceil(self.total / self.every), round(self.warmup / self.every)
        if self.kind == "onecycle":
            return _one_cycle(at, total, self.peak)
        if at < warmup:
            return self.peak * (at + 1) / warmup
        if self.kind == "constant":
            return self.peak
        done = min(1.0, (at - warmup) / max(1, total - warmup))
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(step: int, total: int, peak: float) -> float:
    """Rise from peak / 25 over 30 % of the steps, fall to peak / 250,000: rates of torch's OneCycleLR, no betas."""
    start, end, top = peak / 25, peak / 25e4, 0.3 * total - 1
    last = total - 1
    if step <= top:
        return _cosine(start, peak, step / top if top > 0 else 1.0)
    return _cosine(peak, end, min(1.0, (step - top) / max(last - top, 1e-12)))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))

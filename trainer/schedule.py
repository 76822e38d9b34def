"""Learning rates by step, pure functions: linear warm-up, then a cosine, milestones or nothing more; or one cycle."""

import math
from dataclasses import dataclass
from typing import Literal

from trainer.config import OptimConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A learning rate for each step.

    Attributes
    ----------
    kind : {"cosine", "onecycle", "constant", "multistep"}
        Its shape.
    peak, floor : float
        Greatest learning rate, and the least, at the end; one cycle has its own end.
    warmup, total : int
        Steps of linear warm-up, and of the whole run.
    every : int
        Steps that share a rate: those of an epoch, where it changes by epoch.
    start : float
        Learning rate that the warm-up rises from.
    rise : {"end", "start", "both"}
        Which ends of the rise are steps: "end" rises to `peak` in `warmup` steps, the first above `start`; "start"
        begins at `start`, and reaches `peak` in the step after the warm-up; "both" begins at one and ends at the other.
    milestones : tuple of float
        Shares of the steps after which multistep multiplies the rate by `gamma`.
    gamma : float
        Factor of multistep.
    """

    kind: Literal["cosine", "onecycle", "constant", "multistep"] = "cosine"
    peak: float
    floor: float = 0.0
    warmup: int = 0
    total: int
    every: int = 1
    start: float = 0.0
    rise: Literal["end", "start", "both"] = "end"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1

    @classmethod
    def of(cls, config: OptimConfig, steps: int, every: int) -> "Schedule":
        """Return the schedule of a run of so many steps, whose rate stays for `every` of them."""
        return cls(
            kind=config.schedule,
            peak=config.lr,
            floor=config.floor,
            warmup=round(config.warmup * steps),
            total=steps,
            every=every,
            start=config.warmup_from,
            rise=config.rise,
            milestones=config.milestones,
            gamma=config.gamma,
        )

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        at, total, warmup = step // self.every, math.ceil(self.total / self.every), round(self.warmup / self.every)
        if self.kind == "onecycle":
            return _one_cycle(at, total, self.peak)
        if at < warmup:
            return self.start + (self.peak - self.start) * self._risen(at, warmup)
        if self.kind == "constant":
            return self.peak
        if self.kind == "multistep":
            return self.peak * self.gamma ** sum(at >= round(share * total) for share in self.milestones)
        done = min(1.0, (at - warmup) / max(1, total - warmup))
        return cosine(self.peak, self.floor, done)

    def _risen(self, at: int, warmup: int) -> float:
        """Return which share of the rise a step of the warm-up has."""
        if self.rise == "end":
            return (at + 1) / warmup
        return at / (warmup if self.rise == "start" else max(1, warmup - 1))


def _one_cycle(step: int, total: int, peak: float) -> float:
    """Rise from peak / 25 over 30 % of the steps, fall to peak / 250,000: rates of torch's OneCycleLR, no betas."""
    start, end, top = peak / 25, peak / 25e4, 0.3 * total - 1
    last = total - 1
    if step <= top:
        return cosine(start, peak, step / top if top > 0 else 1.0)
    return cosine(peak, end, min(1.0, (step - top) / max(last - top, 1e-12)))


def cosine(start: float, end: float, share: float) -> float:
    """Return the value at a share of the way from `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))

"""Which of how many processes this one is: asked when it matters, for process groups come after loaders are made."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError
from shardkit.loader.batch import BatchPosition
from shardkit.plan.epoch import EpochPlan
from shardkit.plan.shapes import MicroBatch
from shardkit.terminal.output import logger

_log = logger("shardkit.loader")


@dataclass(frozen=True, slots=True)
class World:
    """A process's rank among `size` processes that share every global step; ArgumentError for any other."""

    rank: int
    size: int

    def __post_init__(self) -> None:
        """Check that the rank is one of them."""
        if not 0 <= self.rank < self.size:
            raise ArgumentError(f"rank={self.rank} is none of the {self.size} ranks 0 to {self.size - 1}")

    def __str__(self) -> str:
        """Say it in words."""
        return f"rank {self.rank} of {self.size}"

    def check(self, per_step: int) -> None:
        """Refuse a step whose micro-batches cannot be shared evenly.

        Raises
        ------
        ArgumentError
            Names a number that can.
        """
        if per_step % self.size:
            raise ArgumentError(
                f"per_step={per_step} micro-batches cannot be shared among {self.size} ranks: choose a multiple,"
                f" as per_step={ceil_div(per_step, self.size) * self.size}"
            )


class Share:
    """Which part of every global step is this process's: asked anew each time, since a process group may come late.

    Parameters
    ----------
    rank, size : int, optional
        What a caller named; both or none.
    per_step : int
        Micro-batches of a global step.

    Raises
    ------
    ArgumentError
        Where one of the two is named, or a step cannot be shared evenly.
    """

    def __init__(self, rank: int | None, size: int | None, per_step: int) -> None:
        self._named, self._per_step = given(rank, size), per_step
        self._told: World | None = None  # whose length was asked for
        if (foreseen := self.foreseen()) is not None:
            foreseen.check(per_step)

    def now(self) -> World:
        """Return this process's share as it is now."""
        found = current(self._named)
        found.check(self._per_step)
        return found

    def foreseen(self) -> World | None:
        """Return what `now` would, None where it cannot be told yet."""
        return foreseen(self._named)

    def told(self) -> World:
        """Return the share for a length, which `begin` compares with what it finds."""
        self._told = self._compared()
        return self._told

    def begin(self) -> World:
        """Return the share for an iteration; log a line where a length was told for another, or a group differs."""
        mine = self._compared()
        warn(self._named)
        return mine

    def _compared(self) -> World:
        mine = self.now()
        if self._told not in (None, mine):
            _log.warning("the loader's length was asked for as %s, and it is %s now: ask again", self._told, mine)
        return mine


def given(rank: int | None, size: int | None) -> World | None:
    """Return what a caller named, None for nothing.

    Raises
    ------
    ArgumentError
        Where one of the two is named.
    """
    if rank is None and size is None:
        return None
    if rank is None or size is None:
        raise ArgumentError("rank and world_size go together")
    return World(rank, size)


def current(named: World | None) -> World:
    """Return what is named, else torch.distributed's, else what a launcher's variables say, else alone.

    Raises
    ------
    ArgumentError
        Where the variables are not whole.
    """
    return named or _group() or launched(os.environ)


def foreseen(named: World | None) -> World | None:
    """Return what `current` does, or None where it cannot be told yet."""
    try:
        return current(named)
    except ArgumentError:
        return None


def micro_batches(plan: EpochPlan, step: int, mine: World) -> Iterator[tuple[BatchPosition, MicroBatch]]:
    """Go through a process's micro-batches of an epoch, from a step on, and say where each stands."""
    while plan.has(step):
        micros, ends = plan[step], not plan.has(step + 1)
        for at in range(mine.rank, len(micros), mine.size):
            last = at + mine.size >= len(micros)
            yield BatchPosition(plan.epoch, step, at, len(micros), last, ends), micros[at]
        step += 1


def warn(named: World | None) -> None:
    """Log a line where a process group contradicts what is named, which wins.

    No error: a mesh of data and tensor parallelism has more processes than shares of the data. More often it is a
    mistake, which trains on the same images twice. The group's first rank may look at everything alone, without a word:
    so are baselines and scores computed.
    """
    group = _group()
    if named is None or group is None or group == named or (group.rank, named.size) == (0, 1):
        return
    _log.warning(
        "the loader was told %s and torch.distributed says %s: leave rank and world_size out, unless ranks are meant to"
        " share batches",
        named,
        group,
    )


def launched(environment: Mapping[str, str]) -> World:
    """Read what torchrun's or Slurm's variables say; alone where there are none.

    Slurm's count only in a step, which srun starts: a batch script has SLURM_NTASKS and SLURM_PROCID=0, too, and runs
    once.

    Parameters
    ----------
    environment : mapping
        The process's variables.

    Raises
    ------
    ArgumentError
        Where some are there and others are not, or one is no number.
    """
    there = [name for name in ("RANK", "WORLD_SIZE") if name in environment]
    if len(there) == 2:
        return World(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"))
    if there and not (there == ["WORLD_SIZE"] and _number(environment, "WORLD_SIZE") == 1):
        lacking = "RANK" if there == ["WORLD_SIZE"] else "WORLD_SIZE"
        raise ArgumentError(
            f"{there[0]}={environment[there[0]]} is set and {lacking} is not, so that this process's share is unknown:"
            " begin after torch.distributed.init_process_group, or give rank and world_size"
        )
    if {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"} <= environment.keys():
        return World(_number(environment, "SLURM_PROCID"), _number(environment, "SLURM_STEP_NUM_TASKS"))
    if "SLURM_STEP_ID" in environment and {"SLURM_NTASKS", "SLURM_PROCID"} <= environment.keys():
        return World(_number(environment, "SLURM_PROCID"), _number(environment, "SLURM_NTASKS"))
    return World(0, 1)


def _group() -> World | None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return World(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return None


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ArgumentError(f"{name}={environment[name]} is no whole number: give rank and world_size") from None

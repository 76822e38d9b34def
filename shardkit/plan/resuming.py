"""Where a plan goes on: what the pieces of an epoch before one leave over, in memory and as plain values.

Micro-batches form as the order passes, so that a step depends on all before it. What a piece needs to know of them is
little: the samples that wait for a micro-batch or a step. A state that names these is gone on with at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shardkit.plan.batchers import Batcher
from shardkit.plan.crops import Crops
from shardkit.plan.samples import Ints
from shardkit.plan.shapes import MicroBatch

MOST = 1 << 15
"""Samples that a mark names at most: of more, planning from the start is left to whoever resumes."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a piece begins with: the batcher as the piece before left it. Nothing changes it afterwards.

    Attributes
    ----------
    batcher : Batcher
        As the piece before left it.
    waiting : list of MicroBatch
        Those of a step that is not full.
    steps : int
        Steps before this piece.
    """

    batcher: Batcher
    waiting: list[MicroBatch]
    steps: int


@dataclass(frozen=True, slots=True)
class Mark:
    """`Unfinished` as plain numbers: samples are named by their draws, from which all else of them follows.

    Attributes
    ----------
    seed, epoch : int
        Of the plan.
    piece, steps : int
        The piece that it is the beginning of, and the steps before it.
    waiting : list of list of int
        Draws of each micro-batch of a step that is not full.
    kept : list of list of int
        Draws of what the batcher keeps; see `Batcher.kept`.
    """

    seed: int
    epoch: int
    piece: int
    steps: int
    waiting: list[list[int]]
    kept: list[list[int]]

    @classmethod
    def of(
        cls, seed: int, epoch: int, piece: int, begun: Unfinished, draws_of: Callable[[Crops], Ints]
    ) -> "Mark | None":
        """Write down what a piece begins with; None where that is too much, or the batcher cannot say.

        Parameters
        ----------
        seed, epoch, piece : int
            As above.
        begun : Unfinished
            What it begins with.
        draws_of : callable
            Names crops.
        """
        kept = begun.batcher.kept()
        waiting = [micro.crops for micro in begun.waiting]
        if kept is None or sum(map(len, [*waiting, *kept])) > MOST:
            return None
        named = [[draws_of(crops).tolist() for crops in part] for part in (waiting, kept)]
        return cls(seed, epoch, piece, begun.steps, *named)

    def begun(self, batcher: Batcher, shown: Callable[[Ints], Crops]) -> Unfinished:
        """Make what the piece begins with.

        Parameters
        ----------
        batcher : Batcher
            A fresh one.
        shown : callable
            Gives the crops of draws.

        Raises
        ------
        ValueError
            Where this is no mark of such a batcher.
        """
        waiting, kept = ([shown(np.array(one, np.int64)) for one in part] for part in (self.waiting, self.kept))
        batcher.go_on(kept)
        return Unfinished(batcher, [batcher.formed(crops) for crops in waiting], self.steps)

    def plain(self) -> dict[str, Any]:
        """Return it as numbers and lists, for JSON too."""
        return asdict(self)

    @classmethod
    def read(cls, given: Any) -> "Mark":
        """Read what `plain` gave.

        Raises
        ------
        ValueError
            For anything else.
        """
        if not isinstance(given, dict) or set(given) != set(cls.__slots__):
            raise ValueError("it has other fields")
        numbers = [given[name] for name in ("seed", "epoch", "piece", "steps")]
        if not all(map(_whole, numbers)) or min(numbers[1:]) < 0:
            raise ValueError("its numbers are none")
        for name in ("waiting", "kept"):
            if not (isinstance(given[name], list) and all(isinstance(one, list) for one in given[name])):
                raise ValueError(f"{name} is no list of lists")
            if not all(_whole(draw) for one in given[name] for draw in one):
                raise ValueError(f"{name} holds what is no number")
        return cls(**given)

    def check(self, draws: int, pieces: int) -> None:
        """Refuse a mark that no plan of so many draws and pieces gives.

        Raises
        ------
        ValueError
            Says why.
        """
        if not 0 < self.piece < pieces:
            raise ValueError(f"the epoch has {pieces:,} pieces, and no piece {self.piece:,} to go on with")
        for part in (self.waiting, self.kept):
            named = list(_flat(part))
            if len(set(named)) != len(named) or not all(0 <= draw < draws for draw in named):
                raise ValueError(f"it names a sample twice, or one that is none of {draws:,}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _flat(lists: list[list[int]]) -> Iterable[int]:
    return (one for part in lists for one in part)

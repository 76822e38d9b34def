"""An epoch's plan: global step k as a list of micro-batches, a pure function of (digest, seed, epoch, batching, k).

The order comes in pieces and micro-batches form as they pass, so that the first step of 10**8 samples is planned from
the first piece. A later step needs the pieces before it, of which only counts and what was unfinished are kept.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shardkit.errors import ArgumentError
from shardkit.plan.batchers import Batcher, MicroBatch
from shardkit.plan.batching import Batching
from shardkit.plan.crops import crops
from shardkit.plan.samples import Samples
from shardkit.plan.shuffle import Order, key_of
from shardkit.terminal import reprs

WINDOW = 256  # shards
_KEPT = 3  # pieces whose steps stay in memory

Step = list[MicroBatch]


@dataclass(frozen=True, slots=True)
class EpochStats:
    """Tokens of an epoch, and samples: used + padded + repeated is what the model is given, used + dropped the data."""

    samples: int = 0
    steps: int = 0
    micro_batches: int = 0
    used: int = 0
    padded: int = 0
    repeated: int = 0
    dropped: int = 0
    samples_repeated: int = 0
    samples_dropped: int = 0

    @property
    def overhead(self) -> float:
        """What the model is given by what it is given once; 1.0 at best."""
        return (self.used + self.padded + self.repeated) / self.used if self.used else 1.0

    def __add__(self, other: "EpochStats") -> "EpochStats":
        return EpochStats(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """What a piece begins with."""

    batcher: Batcher
    waiting: list[MicroBatch]  # of a step that is not full
    steps: int  # before this piece


class EpochPlan:
    """Steps of one epoch: `plan[k]`, `len(plan)`, iteration. Not for several threads at once.

    window: shards that are mixed at any time. Raises ArgumentError where the batching does not suit the samples, here
    or when the sample concerned comes up.
    """

    def __init__(self, samples: Samples, seed: int, epoch: int, batching: Batching, window: int = WINDOW) -> None:
        if not len(samples):
            raise ArgumentError("there is nothing to plan: no sample is in this split")
        if window < 1:
            raise ArgumentError(f"window={window} must be at least 1 shard")
        if batching.level != "auto" and batching.level > samples.levels:
            raise ArgumentError(f"level={batching.level} is not in this dataset: it holds levels 0 to {samples.levels}")
        self.samples, self.batching, self.seed, self.epoch = samples, batching, seed, epoch
        key = key_of("shardkit plan", samples.digest, seed, epoch)
        self.order = Order(samples.starts, window, key_of(key, "order"))
        self.crop_key = key_of(key, "views")
        self._begun = [_Unfinished(batching.batcher(samples), [], 0)]
        self._accounts: list[EpochStats] = []
        self._kept: OrderedDict[int, list[Step]] = OrderedDict()

    @property
    def images(self) -> int:
        """Images a micro-batch holds at most."""
        return self._begun[0].batcher.images

    def copy(self) -> "EpochPlan":
        """The same plan for another thread, which need not plan again what this one has planned."""
        other = copy.copy(self)
        other._begun, other._accounts, other._kept = list(self._begun), list(self._accounts), OrderedDict()
        return other

    def __len__(self) -> int:
        """Steps of the epoch; plans all of it, once, which takes about 1 s for 10**6 samples."""
        while len(self._begun) <= self.order.pieces:
            self._steps(len(self._begun) - 1)
        return self._begun[-1].steps

    def __getitem__(self, step: int) -> Step:
        """The micro-batches of a step. Raises IndexError past the end."""
        piece = self._piece_of(step)
        return self._steps(piece)[step - self._begun[piece].steps]

    def __iter__(self) -> Iterator[Step]:
        for piece in range(self.order.pieces):
            yield from self._steps(piece)

    def has(self, step: int) -> bool:
        """Whether the epoch goes on to this step; plans no further than needed."""
        try:
            self._piece_of(step)
        except IndexError:
            return False
        return True

    def account(self) -> EpochStats:
        """The epoch's tokens; plans all of it, once."""
        len(self)
        total = EpochStats()
        for part in self._accounts:
            total += part
        return total

    def _facts(self) -> reprs.Facts:
        """What is known without planning further."""
        done = len(self._begun) > self.order.pieces
        return {
            "batching": self.batching,
            "samples": f"{len(self.samples):,}",
            "seed": self.seed,
            "epoch": self.epoch,
            "steps": f"{self._begun[-1].steps:,}" if done else f"{self._begun[-1].steps:,} so far",
            "window": f"{self.order.width:,}",
        }

    def __repr__(self) -> str:
        return reprs.line("EpochPlan", self._facts())

    def _repr_html_(self) -> str:
        return reprs.table("EpochPlan", self._facts())

    def _piece_of(self, step: int) -> int:
        if step < 0:
            raise IndexError(step)
        while self._begun[-1].steps <= step:
            if len(self._begun) > self.order.pieces:
                raise IndexError(step)
            self._steps(len(self._begun) - 1)
        ends = [begun.steps for begun in self._begun[1:]]
        return int(np.searchsorted(ends, step, side="right"))

    def _steps(self, piece: int) -> list[Step]:
        """The steps that a piece completes; the pieces before it have been planned."""
        if piece in self._kept:
            self._kept.move_to_end(piece)
            return self._kept[piece]
        begun, per_step = self._begun[piece], self.batching.per_step
        batcher = copy.deepcopy(begun.batcher)
        fresh = crops(self.samples, self.order.piece(piece), self.batching.augmentation, self.crop_key)
        micros = begun.waiting + batcher.feed(fresh)
        if piece == self.order.pieces - 1:
            micros = batcher.finish(micros)
        whole = len(micros) // per_step
        steps = [micros[i * per_step : (i + 1) * per_step] for i in range(whole)]
        if piece == len(self._begun) - 1:
            self._begun.append(_Unfinished(batcher, micros[whole * per_step :], begun.steps + whole))
            self._accounts.append(_account(len(fresh), steps, batcher))
        self._kept[piece] = steps
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return steps


def _account(samples: int, steps: list[Step], batcher: Batcher) -> EpochStats:
    micros = [micro for step in steps for micro in step]
    used, again = sum(micro.used for micro in micros), sum(micro.again for micro in micros)
    return EpochStats(
        samples=samples,
        steps=len(steps),
        micro_batches=len(micros),
        used=used,
        padded=sum(micro.slots for micro in micros) - used - again,
        repeated=again,
        dropped=sum(int(v.tokens.sum()) for v in batcher.dropped),
        samples_repeated=sum(int(micro.repeated.sum()) for micro in micros),
        samples_dropped=sum(map(len, batcher.dropped)),
    )

"""An epoch's plan: global step k as a list of micro-batches, a pure function of (digest, seed, epoch, batching, k).

The order comes in pieces and micro-batches form as they pass, so that the first step of 10**8 samples is planned from
the first piece. A later step needs the pieces before it, of which only counts and what was unfinished are kept: in
memory, and, of large epochs, in a mark that a state carries.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from cachetools import LRUCache

from shardkit.errors import ArgumentError
from shardkit.plan.base import Batching
from shardkit.plan.batchers import Batcher
from shardkit.plan.crops import Crops, crops, turns
from shardkit.plan.draws import Draws
from shardkit.plan.resuming import Mark, Unfinished
from shardkit.plan.samples import Ints, Samples
from shardkit.plan.shapes import MicroBatch
from shardkit.plan.shuffle import Order, key_of
from shardkit.terminal import reprs

WINDOW = 256  # shards
MARKED = 1 << 18
"""Samples before a step from which on it has a mark: fewer are planned again in a fraction of a second."""
_KEPT = 3  # pieces whose steps stay in memory

Step = list[MicroBatch]


@dataclass(frozen=True, slots=True)
class EpochStats:
    """What an epoch gives the model, and what it leaves out, on all ranks together.

    The model is given real, padding and repeated tokens; the data have the real and the dropped ones.

    Attributes
    ----------
    samples : int
        Samples of the epoch, dropped ones included; as often as the weight of their member of a mixture says.
    steps, micro_batches : int
        Global steps, and micro-batches of all of them.
    real_tokens : int
        Tokens of samples that are shown, the first time.
    padding_tokens : int
        Tokens of no image.
    repeated_tokens : int
        Tokens of samples that are shown again.
    dropped_tokens : int
        Tokens of samples that are left out.
    samples_repeated, samples_dropped : int
        Samples that are shown again or left out.
    """

    samples: int = 0
    steps: int = 0
    micro_batches: int = 0
    real_tokens: int = 0
    padding_tokens: int = 0
    repeated_tokens: int = 0
    dropped_tokens: int = 0
    samples_repeated: int = 0
    samples_dropped: int = 0

    @property
    def overhead(self) -> float:
        """Tokens that the model is given, as a multiple of the real ones; 1.0 at best, and where there are none."""
        given = self.real_tokens + self.padding_tokens + self.repeated_tokens
        return given / self.real_tokens if self.real_tokens else 1.0

    def __add__(self, other: "EpochStats") -> "EpochStats":
        """Add field by field."""
        return EpochStats(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class EpochPlan:
    """Global steps of one epoch: `plan[k]`, `len(plan)`, iteration. Not for several threads at once.

    Parameters
    ----------
    samples : Samples
        What there is to plan for.
    seed : int
        Seed of the run.
    epoch : int
        Number of the epoch, from 0.
    batching : Batching
        How samples become micro-batches.
    window : int
        Shards that are mixed at any time.

    Raises
    ------
    ArgumentError
        Where the batching does not suit the samples: here, or when the sample concerned comes up.
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
        self.draws = Draws.of(samples, key_of(key, "draws"))
        if not len(self.draws):
            raise ArgumentError(
                f"epoch {epoch} shows no sample: the weights of the mixture are too small for its"
                f" {len(samples):,} samples; raise them"
            )
        self.order = Order(self.draws.starts, window, key_of(key, "order"))
        self.crop_key = key_of(key, "views")
        # By piece, without gaps but where a mark was gone on with; copies of a plan share both.
        self._begun = {0: Unfinished(batching.batcher(samples), [], 0)}
        self._accounts: dict[int, EpochStats] = {}
        self._kept: LRUCache[int, list[Step]] = LRUCache(_KEPT)

    @property
    def images(self) -> int:
        """Images that a micro-batch holds at most."""
        return self._begun[0].batcher.images

    def copy(self) -> "EpochPlan":
        """Copy the plan for another thread: what one of the two has planned, the other need not plan again."""
        other = copy.copy(self)
        other._kept = LRUCache(_KEPT)
        return other

    def mark(self, step: int, least: int = MARKED) -> Mark | None:
        """Return what a plan of the same arguments needs to know, to begin at a step without all before it.

        Parameters
        ----------
        step : int
            The step; no further than this one are pieces looked at.
        least : int
            Samples that a mark spares planning; None is returned for fewer.

        Returns
        -------
        Mark or None
            None also where the steps before were not planned here, and for batchings whose batchers keep no record.
        """
        piece = self._known(max(step, 0))
        if piece in (0, self.order.pieces) or len(self.draws) * piece // self.order.pieces < least:
            return None
        return Mark.of(self.seed, self.epoch, piece, self._begun[piece], self._drawn)

    def go_on(self, mark: Mark) -> None:
        """Know where a piece begins: from there on, steps are planned without those before.

        Parameters
        ----------
        mark : Mark
            Of a plan of the same arguments; one of another seed or epoch changes nothing.

        Raises
        ------
        ValueError
            Where it is none of such a plan.
        """
        if (mark.seed, mark.epoch) == (self.seed, self.epoch):
            mark.check(len(self.draws), self.order.pieces)
            self._begun[mark.piece] = mark.begun(self.batching.batcher(self.samples), self._crops)

    def __len__(self) -> int:
        """Count the steps. Plans the whole epoch, once, which takes about 1 s for 10**6 samples."""
        while (piece := self._known()) < self.order.pieces:
            self._steps(piece)
        return self._begun[piece].steps

    def __getitem__(self, step: int) -> Step:
        """Return the micro-batches of a step, or raise IndexError past the end."""
        piece = self._piece_of(step)
        return self._steps(piece)[step - self._begun[piece].steps]

    def __iter__(self) -> Iterator[Step]:
        """Go through all steps, without keeping them."""
        for piece in range(self.order.pieces):
            yield from self._steps(piece)

    def has(self, step: int) -> bool:
        """Tell whether the epoch goes on to this step; plans no further than needed."""
        try:
            self._piece_of(step)
        except IndexError:
            return False
        return True

    def account(self) -> EpochStats:
        """Count the epoch's tokens. Plans all of it, once."""
        total = EpochStats()
        for piece in range(self.order.pieces):
            if piece not in self._accounts:
                self._steps(piece)
            total += self._accounts[piece]
        return total

    def shown(self, piece: int) -> Crops:
        """Return what a piece of the order shows."""
        return self._crops(self.order.piece(piece))

    def _crops(self, draws: Ints) -> Crops:
        index, turn = self.draws.sample(draws), self.draws.turn(draws)
        return crops(self.samples, index, self.batching.augmentation, self.crop_key, turn)

    def _drawn(self, shown: Crops) -> Ints:
        """Return the draws that gave crops."""
        return self.draws.find(shown.index, turns(shown, self.crop_key, len(self.draws.passes) - 1))

    def _facts(self) -> reprs.Facts:
        """Gather what is known without planning further."""
        known = self._known()
        return {
            "batching": self.batching,
            "samples": f"{len(self.draws):,}",
            "seed": self.seed,
            "epoch": self.epoch,
            "steps": f"{self._begun[known].steps:,}{' so far' * (known < self.order.pieces)}",
            "window": f"{self.order.width:,}",
        }

    def __repr__(self) -> str:
        """Show what is known without planning further."""
        return reprs.line("EpochPlan", self._facts())

    def _repr_html_(self) -> str:
        return reprs.table("EpochPlan", self._facts())

    def _piece_of(self, step: int) -> int:
        if step < 0:
            raise IndexError(step)
        piece = self._known(step)
        while piece < self.order.pieces:
            if piece + 1 not in self._begun:
                self._steps(piece)
            if step < self._begun[piece + 1].steps:
                return piece
            piece += 1
        raise IndexError(step)

    def _known(self, step: float = inf) -> int:
        """Return the last piece that is known to begin at a step or before it. Copies may add some meanwhile."""
        return max(piece for piece, begun in list(self._begun.items()) if begun.steps <= step)

    def _steps(self, piece: int) -> list[Step]:
        """Plan the steps that a piece completes; what it begins with is known."""
        if piece in self._kept:
            return self._kept[piece]
        begun, per_step = self._begun[piece], self.batching.per_step
        batcher = copy.deepcopy(begun.batcher)
        fresh = self.shown(piece)
        micros = begun.waiting + batcher.feed(fresh)
        if piece == self.order.pieces - 1:
            micros = batcher.finish(micros)
        whole = len(micros) // per_step
        steps = [micros[i * per_step : (i + 1) * per_step] for i in range(whole)]
        self._begun.setdefault(piece + 1, Unfinished(batcher, micros[whole * per_step :], begun.steps + whole))
        if piece not in self._accounts:
            self._accounts[piece] = _account(len(fresh), steps, batcher)
        self._kept[piece] = steps
        return steps


def _account(samples: int, steps: list[Step], batcher: Batcher) -> EpochStats:
    micros = [micro for step in steps for micro in step]
    real, repeated = sum(micro.real_tokens for micro in micros), sum(micro.repeated_tokens for micro in micros)
    return EpochStats(
        samples=samples,
        steps=len(steps),
        micro_batches=len(micros),
        real_tokens=real,
        padding_tokens=sum(micro.padded_tokens for micro in micros) - real - repeated,
        repeated_tokens=repeated,
        dropped_tokens=sum(int(v.tokens.sum()) for v in batcher.dropped),
        samples_repeated=sum(int(micro.repeated.sum()) for micro in micros),
        samples_dropped=sum(map(len, batcher.dropped)),
    )

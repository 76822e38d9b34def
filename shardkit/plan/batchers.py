"""Forming micro-batches from a stream of crops, whatever the pieces it comes in: dense by size class, or packed.

A batcher is fed crops in the epoch's order and hands out micro-batches as they fill; what is unfinished waits in it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shardkit.dataset.bins import Bins
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError
from shardkit.plan.crops import Crops
from shardkit.plan.samples import Ints
from shardkit.plan.shapes import BatchShape, MicroBatch, Pack, Shape
from shardkit.plan.shuffle import mix

Remainder = Literal["fill", "repeat", "drop"]


class Batcher(ABC):
    """Builds micro-batches incrementally, and keeps the crops that wait for one. It is copied by `copy.deepcopy`.

    Parameters
    ----------
    images : int
        Images that a micro-batch holds at most.
    per_step : int
        Micro-batches of a global step.

    Attributes
    ----------
    images : int
        As above.
    dropped : list of Crops
        Crops that a remainder rule left out.
    """

    def __init__(self, images: int, per_step: int) -> None:
        self.images, self._per_step = images, per_step
        self.dropped: list[Crops] = []

    @abstractmethod
    def feed(self, crops: Crops) -> list[MicroBatch]:
        """Take in the crops that follow in the epoch's order, and return the micro-batches that they complete."""

    @abstractmethod
    def finish(self, waiting: list[MicroBatch]) -> list[MicroBatch]:
        """Return the epoch's last micro-batches.

        Parameters
        ----------
        waiting : list of MicroBatch
            Those handed out before that do not fill a step.

        Returns
        -------
        list of MicroBatch
            `waiting` and those that the remaining crops make: whole steps of `per_step`.
        """

    def kept(self) -> list[Crops] | None:
        """Return all that was fed and that later micro-batches depend on, in parts of which none is a repeat.

        None, the default, where a batcher of this kind is not gone on with: a resume then plans the epoch so far.
        """
        return None

    def go_on(self, kept: list[Crops]) -> None:
        """Stand, when fresh, where another of the same kind and options stood when it gave `kept`.

        Raises
        ------
        ValueError
            For what no such batcher keeps.
        """
        raise ValueError(f"a {type(self).__name__} is not gone on with")

    def formed(self, crops: Crops) -> MicroBatch:
        """Make the micro-batch of which `feed` gave these crops; for batchers that are gone on with."""
        raise ValueError(f"a {type(self).__name__} is not gone on with")


class DenseBatcher(Batcher):
    """Queues by size class, which hand out micro-batches once they have enough images.

    Parameters
    ----------
    shapes : sequence of Shape or ViewsShape, optional
        One a class; None where each image is its own.
    patch : int
        Side of a patch in pixels.
    per_step : int
        Micro-batches of a global step.
    remainder : {"fill", "repeat", "drop"}
        What becomes of the last images.
    group : int
        Micro-batches of one class that are handed out together.
    bins : Bins, optional
        The classes; None where there is one.
    """

    def __init__(
        self,
        shapes: Sequence[BatchShape] | None,
        patch: int,
        per_step: int,
        remainder: Remainder,
        group: int = 1,
        bins: Bins | None = None,
    ) -> None:
        super().__init__(max(shape.images for shape in shapes) if shapes else 1, per_step)
        self._shapes, self._patch, self._group, self._remainder, self._bins = shapes, patch, group, remainder, bins
        self._waiting: Crops | None = None
        self._first: dict[BatchShape, list[Crops]] = {}  # what repeats are taken from
        self._repeats: dict[BatchShape, int] = {}

    def feed(self, crops: Crops) -> list[MicroBatch]:
        """See `Batcher`."""
        if self._waiting is not None:
            crops = Crops.join([self._waiting, crops])
        out: list[tuple[int, list[MicroBatch]]] = []
        left = [np.zeros(0, np.int64)]
        for shape, members in self._classes(crops):
            size = shape.images * self._group
            whole = len(members) // size * size
            for batch in members[:whole].reshape(-1, size):
                micros = [crops.take(part) for part in batch.reshape(self._group, -1)]
                out.append((int(batch[-1]), [MicroBatch.of(shape, self._patch, part) for part in micros]))
            left.append(members[whole:])
        self._waiting = crops.take(np.sort(np.concatenate(left)))
        done = [micro for _, micros in sorted(out, key=lambda item: item[0]) for micro in micros]
        if self._remainder == "repeat":
            self._remember(done)
        return done

    def _classes(self, crops: Crops) -> Iterator[tuple[BatchShape, Ints]]:
        """Shape and the indices of its crops, in order, of every class that is there."""
        index: npt.NDArray[np.integer[Any]]
        shapes: Sequence[BatchShape]
        if self._shapes is None:  # each image its own
            sides = (ceil_div(side, self._patch) * self._patch for side in (crops.out_height, crops.out_width))
            sizes, index = np.unique(np.stack(list(sides), 1), axis=0, return_inverse=True)
            shapes, index = [Shape(1, int(h), int(w)) for h, w in sizes], index.ravel()
        elif self._bins is not None:
            shapes, index = self._shapes, self._bins.assign(crops.out_height, crops.out_width)
        else:
            shapes, index = self._shapes, np.zeros(len(crops), np.int64)
            self._check(crops, shapes[0])
        order = np.argsort(index, kind="stable")
        ends = np.searchsorted(index[order], np.arange(len(shapes) + 1))
        for number, shape in enumerate(shapes):
            if ends[number] < ends[number + 1]:
                yield shape, order[ends[number] : ends[number + 1]]

    def kept(self) -> list[Crops] | None:
        """See `Batcher`. First what waits, then what repeats are taken from, which is much where sizes are."""
        waiting = [] if self._waiting is None else [self._waiting]
        return waiting + [crops for first in self._first.values() for crops in first]

    def go_on(self, kept: list[Crops]) -> None:
        """See `Batcher`."""
        self._waiting = kept[0] if kept else None
        self._remember([self.formed(crops) for crops in kept[1:]])

    def formed(self, crops: Crops) -> MicroBatch:
        """See `Batcher`."""
        shapes = [shape for shape, _ in self._classes(crops)]
        if len(shapes) != 1 or len(crops) > shapes[0].images:
            raise ValueError("its micro-batches are not of one size class")
        return MicroBatch.of(shapes[0], self._patch, crops)

    @staticmethod
    def _check(crops: Crops, shape: BatchShape) -> None:
        if not isinstance(shape, Shape):
            return
        over = (crops.out_height > shape.height) | (crops.out_width > shape.width)
        if over.any():
            at = int(over.argmax())
            raise ArgumentError(
                f"manifest row {crops.row[at]} has {crops.out_height[at]} x {crops.out_width[at]} pixels, above"
                f" side={shape.height}: raise it, stream a level, or use resized"
            )

    def _remember(self, micros: list[MicroBatch]) -> None:
        for micro in micros:
            first = self._first.setdefault(micro.shape, [])
            if len(first) < self._per_step:
                first.append(micro.crops)

    def finish(self, waiting: list[MicroBatch]) -> list[MicroBatch]:
        """See `Batcher`. Groups stay whole, so that all ranks see one class at a time to the end."""
        last, crops = list(waiting), self._waiting
        self._waiting = None
        if crops is None:
            return last
        for shape, members in self._classes(crops):
            mine = crops.take(members)
            if self._remainder == "drop":
                self.dropped.append(mine)
                continue
            self._first.setdefault(shape, [mine])
            last += [
                MicroBatch.of(shape, self._patch, mine.take(slice(i, None, self._group))) for i in range(self._group)
            ]
        if self._remainder == "drop":
            whole = len(last) // self._per_step * self._per_step
            self.dropped += [micro.crops for micro in last[whole:]]
            return last[:whole]
        completed = self._repeated if self._remainder == "repeat" else self._spread
        steps = [last[i : i + self._per_step] for i in range(0, len(last), self._per_step)]
        return [micro for step in steps for micro in completed(step)]

    def _spread(self, step: list[MicroBatch]) -> list[MicroBatch]:
        """Make a whole step of these images, those of a class over all its micro-batches.

        What the step lacks, a whole number of groups, goes to the class with the most images: none is empty as long as
        there are enough.
        """
        parts: dict[BatchShape, list[Crops]] = {}
        for micro in step:
            parts.setdefault(micro.shape, []).append(micro.crops)
        counts = {shape: len(part) for shape, part in parts.items()}
        crops = {shape: Crops.join(part) for shape, part in parts.items()}
        counts[max(crops, key=lambda shape: len(crops[shape]))] += self._per_step - len(step)
        return [
            MicroBatch.of(shape, self._patch, crops[shape].take(slice(i, None, count)))
            for shape, count in counts.items()
            for i in range(count)
        ]

    def _repeated(self, step: list[MicroBatch]) -> list[MicroBatch]:
        """Make a whole step of these images and, in the slots left, images that the epoch had before."""
        none = MicroBatch.of(step[-1].shape, self._patch, step[-1].crops.take(slice(0)))
        return [self._completed(micro) for micro in step + [none] * (self._per_step - len(step))]

    def _completed(self, micro: MicroBatch) -> MicroBatch:
        """Fill up a micro-batch with images of the epoch's beginning, in turn; they get other seeds."""
        shape, had = micro.shape, len(micro.crops)
        lacking = shape.images - had
        if not lacking:
            return micro
        donor, begin = Crops.join(self._first[shape]), self._repeats.get(shape, 0)
        self._repeats[shape] = begin + lacking
        turn = np.arange(begin, begin + lacking)
        again = donor.take(turn % len(donor))
        again = replace(again, seed=mix(0, again.seed + turn.astype(np.uint64)))
        repeated = np.arange(shape.images) >= had
        return MicroBatch(shape, self._patch, Crops.join([micro.crops, again]), repeated)


class PackedBatcher(Batcher):
    """Fills packs in order: the oldest image first, then whatever fits.

    Parameters
    ----------
    tokens, images : int
        Tokens and images that a pack holds at most.
    window : int
        Images looked ahead at.
    patch : int
        Side of a patch in pixels.
    per_step : int
        Micro-batches of a global step.
    remainder : {"fill", "drop"}
        What becomes of the last packs.
    longest : int, optional
        A bound on the tokens of an image; default `tokens`.
    """

    def __init__(
        self,
        tokens: int,
        images: int,
        window: int,
        patch: int,
        per_step: int,
        remainder: Remainder,
        longest: int | None = None,
    ) -> None:
        super().__init__(images, per_step)
        self._shape = Pack(tokens, images, min(tokens, longest or tokens))
        self._window, self._patch, self._remainder = window, patch, remainder
        self._waiting: Crops | None = None

    def feed(self, crops: Crops) -> list[MicroBatch]:
        """See `Batcher`."""
        return self._pack(crops, self._window)

    def _pack(self, crops: Crops, ahead: int) -> list[MicroBatch]:
        """Fill packs as long as `ahead` images, besides those of the pack, can be looked at."""
        if self._waiting is not None:
            crops = Crops.join([self._waiting, crops])
        sizes = crops.tokens.tolist()
        self._check(crops, sizes)
        queue = list(range(min(self._window, len(sizes))))
        following = len(queue)
        packs: list[list[int]] = []
        while queue:
            before = list(queue), following
            pack, following = self._fill(queue, sizes, following)
            if ahead and following >= len(sizes):
                queue = before[0]  # the look-ahead ran dry: more may come
                break
            packs.append(pack)
        rest = sorted(queue) + list(range(before[1], len(sizes))) if queue else []
        self._waiting = crops.take(np.array(rest, np.int64))
        return [MicroBatch.of(self._shape, self._patch, crops.take(np.array(pack))) for pack in packs]

    def kept(self) -> list[Crops] | None:
        """See `Batcher`."""
        return [] if self._waiting is None else [self._waiting]

    def go_on(self, kept: list[Crops]) -> None:
        """See `Batcher`."""
        self._waiting = kept[0] if kept else None

    def formed(self, crops: Crops) -> MicroBatch:
        """See `Batcher`."""
        return MicroBatch.of(self._shape, self._patch, crops)

    def _fill(self, queue: list[int], sizes: list[int], following: int) -> tuple[list[int], int]:
        """Take one pack out of the queue and top it up; returns also the next image that is not in the queue."""
        room, pack = self._shape.tokens, list[int]()
        at = 0
        while at < len(queue) and len(pack) < self._shape.images:
            if sizes[queue[at]] > room:
                # The oldest does not fit any more: what fits best of those behind it.
                fitting = [(sizes[i], -k) for k, i in enumerate(queue) if sizes[i] <= room]
                if not fitting:
                    break
                at = -max(fitting)[1]
            taken = queue.pop(at)
            at = 0
            room -= sizes[taken]
            pack.append(taken)
            if following < len(sizes):
                queue.append(following)
                following += 1
        return pack, following

    def _check(self, crops: Crops, sizes: list[int]) -> None:
        if sizes and (largest := max(sizes)) > self._shape.tokens:
            at = sizes.index(largest)
            raise ArgumentError(
                f"manifest row {crops.row[at]} has {largest:,} tokens, above tokens={self._shape.tokens:,}:"
                " raise it, or stream a level"
            )
        # A GPU's attention would leave out what lies beyond, without a word.
        assert not sizes or largest <= self._shape.longest, (
            f"an image has {largest} tokens, above {self._shape.longest}"
        )

    def finish(self, waiting: list[MicroBatch]) -> list[MicroBatch]:
        """See `Batcher`. The last step's images are spread over all its packs, so that no rank runs empty."""
        last = list(waiting)
        if self._waiting is not None:
            last += self._pack(self._waiting.take(slice(0)), 0)
        over = len(last) % self._per_step
        if not over:
            return last
        whole, part = last[: len(last) - over], [micro.crops for micro in last[len(last) - over :]]
        if self._remainder == "drop":
            self.dropped += part
            return whole
        return whole + [MicroBatch.of(self._shape, self._patch, crops) for crops in self._spread(part)]

    def _spread(self, packs: list[Crops]) -> list[Crops]:
        """Make a whole step of these packs' images: largest first into the emptiest, else by halving packs."""
        crops, count = Crops.join(packs), self._per_step
        loads, members = [0] * count, [list[int]() for _ in range(count)]
        for i in np.argsort(-crops.tokens, kind="stable").tolist():
            emptiest = loads.index(min(loads))
            loads[emptiest] += int(crops.tokens[i])
            members[emptiest].append(i)
        if max(loads) <= self._shape.tokens and max(map(len, members)) <= self._shape.images:
            return [crops.take(np.sort(np.array(m, np.int64))) for m in members]
        packs = list(packs)
        while len(packs) < count:
            fullest = max(range(len(packs)), key=lambda i: len(packs[i]))
            packs.append(packs[fullest].take(slice(1, None, 2)))
            packs[fullest] = packs[fullest].take(slice(0, None, 2))
        return packs

"""The strategies of `token_overhead`: images, ways to batch them, and what a model runs for a batch of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import published
from shardkit.dataset.bin_choice import optimise, separable
from shardkit.dataset.bins import Bin, Bins
from shardkit.dataset.rounding import ceil_div
from shardkit.plan import Batching, Binned, EpochPlan, Exact, Fixed, MicroBatch, Pack, Packed, Samples, Shape
from trainer.models.sequences import shortened

Ints = npt.NDArray[np.int64]
Ran = tuple[object, Ints]  # shape of a micro-batch, tokens of each sequence that the model runs for it
BATCH, SHARD = 16, 300  # images
FREE, BUCKETS, PACKS = (16, 36, 64, 128), (16, 36), (8192, 16384, 24576, 65536)
RANKS = (8, 32)
GOAL, DBB, LARGEST = "packed, 24,576 tokens", "DBB 6 x 6", "random batches, each padded to its largest"


@dataclass(frozen=True)
class Images:
    """What is batched.

    Attributes
    ----------
    source
        What they are, in words.
    samples
        As a plan takes them.
    own
        int64, tokens of each image at its own size.
    side
        Side in pixels that no image exceeds.
    """

    source: str
    samples: Samples
    own: Ints
    side: int


@dataclass(frozen=True)
class Strategy:
    """A way to batch images.

    Attributes
    ----------
    name
        As it is shown.
    batching
        The nearest one of shardkit's.
    samples
        Images it is given.
    ran
        What the model runs for a micro-batch of it.
    in_shardkit
        Whether shardkit batches so.
    per_step
        Micro-batches of a step in the plan whose tokens are counted.
    """

    name: str
    batching: Batching
    samples: Samples
    ran: Callable[[MicroBatch], Ran]
    in_shardkit: bool = True
    per_step: int = 1

    def plan(self, seed: int, per_step: int) -> EpochPlan:
        """Return the plan of one epoch, full batches only."""
        return EpochPlan(self.samples, seed, 0, replace(self.batching, per_step=per_step, remainder="drop"))


def published_images(n: int, patch: int, seed: int) -> Images:
    """Draw n images in random order: which shard an image lies in says nothing of its size."""
    height, width = published.sizes(n, seed)
    box = published.content_boxes(height, width, seed)
    starts = np.append(np.arange(0, n, SHARD), n)
    samples = Samples("published", starts, height, width, Bins((square(published.SIDE, patch),), patch), box=box)
    return Images("images of published sizes", samples, _tokens(samples, patch), published.SIDE)


def of_dataset(url: str, patch: int) -> Images:
    """Return the images of a dataset."""
    from shardkit.loader.manifest_index import ManifestIndex

    catalog = ManifestIndex(url)
    samples = catalog.samples(split=None)
    catalog.close()
    side = int(max(samples.height.max(), samples.width.max()))
    return Images(f"images of a dataset, {samples.digest[:12]}", samples, _tokens(samples, patch), side)


def _tokens(samples: Samples, patch: int) -> Ints:
    rows, cols = (ceil_div(side.astype(np.int64), patch) for side in (samples.height, samples.width))
    return rows * cols


def square(side: int, patch: int) -> Bin:
    """Return the smallest square bin of whole patches that holds this side."""
    whole = ceil_div(side, patch) * patch
    return Bin(whole, whole)


def strategies(given: Images, patch: int) -> Iterator[Strategy]:
    """Yield all strategies; bins are fitted to these images."""
    samples, side = given.samples, square(given.side, patch).height
    height, width = (ceil_div(sides.astype(np.int64), patch) * patch for sides in (samples.height, samples.width))

    def binned(name: str, bins: str, group: int | None = 1, per_step: int = 1) -> Strategy:
        batching = Binned(patch=patch, bins=bins, batch_size=BATCH, group=group)
        return Strategy(name, batching, samples, _padded, per_step=per_step)

    fixed = Fixed(patch=patch, side=side, batch_size=BATCH)
    yield Strategy("one image at a time", Exact(patch=patch), samples, _padded)
    grids = np.unique(np.stack([height, width], 1), axis=0).tolist()
    yield binned("a bin per patch grid", _named({Bin(*grid) for grid in grids}))
    yield Strategy(f"fixed, {side} x {side}", fixed, samples, _padded)
    yield Strategy(LARGEST, fixed, samples, _to_largest, in_shardkit=False)
    yield binned(DBB, "thesis")
    yield binned(f"{DBB}, one bin a step", "thesis", None, RANKS[0])
    yield binned("optimal separable 6 x 6", _named(separable(samples.height, samples.width, 6, 6, patch).bins))
    for k in FREE:
        yield binned(f"{k} free bins", _named(optimise(samples.height, samples.width, k, patch, given.side).bins))
    yield from _buckets(given, patch)
    for tokens in PACKS:
        yield Strategy(f"packed, {tokens:,} tokens", Packed(patch=patch, tokens=tokens), samples, _packed)
    cropped = Packed(patch=patch, tokens=PACKS[2], content=True)
    yield Strategy(f"{GOAL}, content box", cropped, samples, _packed)


def _buckets(given: Images, patch: int) -> Iterator[Strategy]:
    """Yield buckets by length: bins of images as columns of their patches, of which the best grid is exact."""
    columns = replace(given.samples, height=given.own * patch, width=np.full(len(given.own), patch), box=None)
    every = ceil_div(int(given.own.max()), 4096)  # tokens between possible lengths: bounds the fit's memory to 0.3 GB
    for k in BUCKETS:
        fitted = separable(columns.height, columns.width, k, 1, patch * every)
        bins = _named({Bin(b.height, patch) for b in fitted.bins})
        batching = Binned(patch=patch, bins=bins, batch_size=BATCH, group=1)
        yield Strategy(f"{k} length buckets", batching, columns, _padded, in_shardkit=False)


def _named(bins: set[Bin] | tuple[Bin, ...]) -> str:
    """Return bins as `Binned` takes them."""
    return "+".join(b.name for b in sorted(bins))


def _padded(micro: MicroBatch) -> Ran:
    """Run a dense batch, at its shape's size."""
    assert isinstance(micro.shape, Shape)
    return micro.shape, np.full(micro.shape.images, micro.padded_tokens // micro.shape.images)


def _to_largest(micro: MicroBatch) -> Ran:
    """Run the same images, padded to the largest height and width among them only."""
    sides = micro.crops.out_height, micro.crops.out_width
    rows, cols = (ceil_div(int(side.max()), micro.patch) for side in sides)
    return (rows, cols), np.full(len(micro.crops), rows * cols)


def _packed(micro: MicroBatch) -> Ran:
    """Run a pack: its images, and its filler as the trainer cuts it."""
    assert isinstance(micro.shape, Pack)
    ends = torch.from_numpy(np.append(micro.cu_seqlens, micro.shape.tokens))
    weight = torch.from_numpy(np.append(np.ones(len(micro.crops)), 0))
    lengths: Ints = shortened(ends, weight, micro.shape.tokens).diff().numpy()
    return micro.shape, lengths[lengths > 0]

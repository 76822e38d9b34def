"""The kinds of batching: six records of how samples become micro-batches, and their text.

`Packed(tokens=12288, patch=48)` is `packed:patch=48,tokens=12288` in a command, in a loader's state and in a message.
"""

from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from shardkit.dataset.bin_choice import parse, read_json
from shardkit.dataset.bins import Bins
from shardkit.dataset.rounding import ceil_div, halved
from shardkit.errors import ArgumentError
from shardkit.plan.base import Batching
from shardkit.plan.batchers import Batcher, DenseBatcher, PackedBatcher
from shardkit.plan.multi_view import MultiView
from shardkit.plan.resized import Resized
from shardkit.plan.samples import Ints, Samples
from shardkit.plan.shapes import Shape
from shardkit.plan.sizes import most_tokens, uncropped

_NONE_GIVEN = (
    "Loader needs batching, which says how images become batches: packed (tokens of whole images in a row), binned"
    " (padded to their bin), resized (to side x side), fixed (padded to side x side), exact (one by one) or multiview"
    " (several crops of each, resized), e.g."
    ' Loader(url, batching="packed:tokens=24576,patch=48")'
)
_TOKENS_PER_IMAGE = 256  # bounds the images of a pack where max_images is not given
_FEWEST_IMAGES = 32
_ROUND = 128  # tokens: what a bound is rounded up to, so that it stays as it is when images are added


@dataclass(frozen=True)
class Fixed(Batching):
    """`batch_size` images a micro-batch, each padded to one square; larger images are refused.

    Attributes
    ----------
    side : int
        Pixels of the square's side, a multiple of `patch`.
    batch_size : int
        Images of a micro-batch.

    Other Parameters
    ----------------
    patch, per_step, content, level, crop, ratio, flip, remainder
        See `Batching`.
    """

    side: int
    batch_size: int = 1

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`. Images above the side are refused, when they come up."""
        self.require("side", self.side % self.patch == 0, f"a multiple of patch={self.patch}")
        return DenseBatcher([Shape(self.batch_size, self.side, self.side)], self.patch, self.per_step, self.remainder)

    @property
    def size_option(self) -> str:
        """See `Batching`."""
        return "side"

    def size_needed(self, height: Ints, width: Ints) -> Ints:
        """See `Batching`. Pixels, in whole patches."""
        return ceil_div(np.maximum(height, width), self.patch) * self.patch


@dataclass(frozen=True)
class Exact(Batching):
    """One image a micro-batch, padded to whole patches: no image is padded to another's size.

    Other Parameters
    ----------------
    patch, per_step, content, level, crop, ratio, flip, remainder
        See `Batching`.
    """

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`."""
        return DenseBatcher(None, self.patch, self.per_step, self.remainder)


@dataclass(frozen=True)
class Binned(Batching):
    """Images padded to their bin, one bin a micro-batch.

    Attributes
    ----------
    bins : str
        "dataset" for those of the shards, "thesis", "auto:K" (K bins, optimised for these samples), a JSON file, or
        `HHHHxWWWW` names joined by `+`.
    batch_size : int, optional
        Images of a micro-batch. Give either this or `tokens`.
    tokens : int, optional
        Tokens that a micro-batch holds at most: it has as many images as have no more, at least one.
    group : int, optional
        Consecutive micro-batches of one bin, a divisor of `per_step`; default `per_step`. World sizes up to it see the
        same bin on all ranks at a time. Less than `per_step` mixes bins within a step.

    Other Parameters
    ----------------
    patch, per_step, content, level, crop, ratio, flip, remainder
        See `Batching`.
    """

    bins: str = "dataset"
    batch_size: int | None = None
    tokens: int | None = None
    group: int | None = None

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`."""
        if (self.batch_size is None) == (self.tokens is None):
            raise ArgumentError("binned needs either batch_size or tokens, one of the two")
        self.require("bins", isinstance(self.bins, str) and "," not in self.bins, "a name or a path without a comma")
        group = self.group or self.per_step
        self.require("group", self.per_step % group == 0, f"a divisor of per_step={self.per_step}")
        bins = self._bins(samples)
        areas = [b.height * b.width // self.patch**2 for b in bins.bins]
        sizes = [self.batch_size or max(1, (self.tokens or 0) // area) for area in areas]
        shapes = [Shape(n, b.height, b.width) for n, b in zip(sizes, bins.bins, strict=True)]
        return DenseBatcher(shapes, self.patch, self.per_step, self.remainder, group, bins)

    def settled(self) -> Batching:
        """See `Batching`. Spells out the bins of a JSON file."""
        if not self.bins.endswith(".json"):
            return self
        try:
            named = Bins.from_json(read_json(Path(self.bins)), self.patch)
        except ArgumentError as error:
            raise ArgumentError(f"bins '{self.bins}' cannot be used: {error}") from error
        return replace(self, bins="+".join(b.name for b in named.bins))

    def _bins(self, samples: Samples) -> Bins:
        """Find the bins that `bins` names, in whole patches of crops at this level."""
        level, patch, text = int(self.level), self.patch, self.bins
        if text == "dataset":
            sides = [
                [ceil_div(halved(s, level), patch) * patch for s in (b.height, b.width)] for b in samples.bins.bins
            ]
            return Bins.from_json(sides, patch)
        named = [part.split("x") for part in text.split("+")]
        if all(side.isdecimal() for pair in named for side in pair):
            return Bins.from_json([[int(side) for side in pair] for pair in named], patch)
        height, width = uncropped(samples, self.content, level)
        return parse(text, height, width, patch, int(max(height.max(), width.max())))


@dataclass(frozen=True)
class Packed(Batching):
    """Whole images one after another in a sequence of patches; no image is split or dropped.

    Attributes
    ----------
    tokens : int
        Patches of the sequence.
    max_images : int, optional
        Images that a pack holds at most; default tokens // 256, at least 32.
    window : int
        Images looked ahead at for one that fits.

    Other Parameters
    ----------------
    patch, per_step, content, level, crop, ratio, flip, remainder
        See `Batching`.
    """

    tokens: int = 24576
    max_images: int | None = None
    window: int = 64

    @property
    def capacity(self) -> int:
        """Images that a pack holds at most."""
        return self.max_images or max(_FEWEST_IMAGES, self.tokens // _TOKENS_PER_IMAGE)

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`. An image of more tokens than a pack is refused when it comes up."""
        if self.remainder == "repeat":
            raise ArgumentError("packed fills its last packs with padding: use remainder=fill or drop")
        longest = ceil_div(most_tokens(samples, self.augmentation), _ROUND) * _ROUND
        return PackedBatcher(
            self.tokens, self.capacity, self.window, self.patch, self.per_step, self.remainder, longest
        )

    @property
    def size_option(self) -> str:
        """See `Batching`."""
        return "tokens"

    def size_needed(self, height: Ints, width: Ints) -> Ints:
        """See `Batching`. Tokens."""
        return ceil_div(height, self.patch) * ceil_div(width, self.patch)


KINDS: dict[str, type[Batching]] = {
    kind.__name__.lower(): kind for kind in (Fixed, Exact, Binned, Packed, Resized, MultiView)
}
"""Kinds of batching by the word that their text begins with."""


def as_batching(given: Batching | str | None) -> Batching:
    """Read what a caller gives: a batching or its text. Bins of a file, which may change later, are spelled out.

    Raises
    ------
    ArgumentError
        For an unknown text, and where nothing is given.
    """
    if given is None:
        raise ArgumentError(_NONE_GIVEN)
    return (from_text(given) if isinstance(given, str) else given).settled()


def from_text(text: str) -> Batching:
    """Read a batching from its text, as commands and states have it.

    Parameters
    ----------
    text : str
        `kind:name=value,...`, such as "packed:tokens=24576,patch=48"; a tuple's numbers are parted by a slash.

    Raises
    ------
    ArgumentError
        For an unknown kind, option or value.
    """
    kind, _, rest = text.strip().partition(":")
    if kind not in KINDS:
        raise ArgumentError(f"batching {text!r} is unknown: start with one of {', '.join(KINDS)}")
    known = {f.name for f in fields(KINDS[kind])}
    arguments: dict[str, Any] = {}
    for word in filter(None, rest.split(",")):
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise ArgumentError(f"batching {text!r}: {word!r} is none of {kind}'s name=value pairs: {sorted(known)}")
        arguments[name] = KINDS[kind].read(name, value)
    needed = [f.name for f in fields(KINDS[kind]) if f.default is MISSING and f.default_factory is MISSING]
    if lacking := [name for name in needed if name not in arguments]:
        raise ArgumentError(f"batching {text!r} lacks a value of {', '.join(lacking)}: see docs/batches.md")
    try:
        return KINDS[kind](**arguments)
    except TypeError:
        raise ArgumentError(f"batching {text!r} has a value of the wrong type: see docs/batches.md") from None

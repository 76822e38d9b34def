"""How samples become micro-batches: five ways, each a record that can be written as text and read back.

`Packed(tokens=12288, patch=48)` is `packed:patch=48,tokens=12288` in a command, in a loader's state and in a message.
"""

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shardkit.dataset.bin_choice import parse, read_json
from shardkit.dataset.bins import Bins
from shardkit.errors import ArgumentError
from shardkit.plan.batchers import Batcher, DenseBatcher, PackedBatcher, Remainder, Shape
from shardkit.plan.crops import Augmentation, Level, at_level
from shardkit.plan.samples import Samples

_PER_IMAGE = 256  # tokens; bounds the images of a pack where max_images is not given
_FEWEST = 32
_CHUNK = 1 << 20  # samples looked at together


@dataclass(frozen=True, kw_only=True)
class Batching(ABC):
    """What all of them share.

    patch: side of a patch in pixels; outputs are padded to whole patches.
    per_step: micro-batches of a global step, on all ranks together; world sizes must divide it.
    content: show the content box only. level: halvings of every image; "auto", with `Resized`, the most that still
    cover the output. crop: least and greatest area share of a random crop, drawn from the plan's seed, with an aspect
    ratio in `ratio`; None for none. flip: chance of a left-right mirror image.
    remainder: what fills the epoch's last batches: nothing but padding (fill), samples again (repeat), or drop them.
    """

    patch: int = 16
    per_step: int = 8
    content: bool = False
    level: Level = 0
    crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    remainder: Remainder = "fill"

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type in (int, int | None) and not (value is None and f.default is None):
                self._require(f.name, _whole(value, 1), "a whole number of at least 1")
        crop, pair = (1.0, 1.0) if self.crop is None else self.crop, "a tuple of two"
        for name, sound, wanted in (
            ("content", type(self.content) is bool, "true or false"),
            ("level", self.level == "auto" or _whole(self.level, 0), "auto, or 0 or more"),
            ("crop", _ascending(crop) and crop[1] <= 1, f"{pair} area shares, least first, above 0 and up to 1"),
            ("ratio", _ascending(self.ratio), f"{pair} width / height ratios, least first, above 0"),
            ("flip", _number(self.flip) and 0 <= self.flip <= 1, "a chance between 0 and 1"),
            ("remainder", self.remainder in ("fill", "repeat", "drop"), "fill, repeat or drop"),
        ):
            self._require(name, sound, wanted)
        if self.level == "auto" and self.augmentation.side is None:
            raise ArgumentError("level=auto needs an output size to cover: use resized, or name a level")

    def _require(self, name: str, sound: bool, wanted: str) -> None:
        if not sound:
            raise ArgumentError(f"{name}={getattr(self, name)} of {type(self).__name__} must be {wanted}")

    @property
    def augmentation(self) -> Augmentation:
        """How images become crops."""
        return Augmentation(self.patch, self.content, self.level, self.crop, self.ratio, self.flip)

    @abstractmethod
    def batcher(self, samples: Samples) -> Batcher:
        """A fresh batcher of micro-batches. Raises ArgumentError where these samples cannot be batched so."""

    def __str__(self) -> str:
        return text_of(self)


@dataclass(frozen=True)
class Fixed(Batching):
    """`batch_size` images a micro-batch, each padded to side x side pixels."""

    side: int
    batch_size: int = 1

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`. Images above the side are refused, when they come up."""
        self._require("side", self.side % self.patch == 0, f"a multiple of patch={self.patch}")
        return DenseBatcher([Shape(self.batch_size, self.side, self.side)], self.patch, self.per_step, self.remainder)


@dataclass(frozen=True)
class Exact(Batching):
    """One image a micro-batch, padded to whole patches: no image is padded to another's size."""

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`."""
        return DenseBatcher(None, self.patch, self.per_step, self.remainder)


@dataclass(frozen=True)
class Binned(Batching):
    """Images padded to their bin, one bin a micro-batch.

    bins: "dataset" for those of the shards, "thesis", "auto:K" (optimised for these samples), a JSON file, or
    `HHHHxWWWW` names joined by `+`. batch_size: images a micro-batch, or tokens: as many images as have no more than
    these tokens, at least one. group: consecutive micro-batches of one bin; world sizes up to it see the same bin on
    all ranks at a time. Less than per_step mixes bins within a step; None is per_step.
    """

    bins: str = "dataset"
    batch_size: int | None = None
    tokens: int | None = None
    group: int | None = None

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`."""
        if (self.batch_size is None) == (self.tokens is None):
            raise ArgumentError("binned needs either batch_size or tokens, one of the two")
        self._require("bins", isinstance(self.bins, str) and "," not in self.bins, "a name or a path without a comma")
        group = self.group or self.per_step
        self._require("group", self.per_step % group == 0, f"a divisor of per_step={self.per_step}")
        bins = _bins(self, samples)
        areas = [b.height * b.width // self.patch**2 for b in bins.bins]
        sizes = [self.batch_size or max(1, (self.tokens or 0) // area) for area in areas]
        shapes = [Shape(n, b.height, b.width) for n, b in zip(sizes, bins.bins, strict=True)]
        return DenseBatcher(shapes, self.patch, self.per_step, self.remainder, group, bins)


@dataclass(frozen=True)
class Packed(Batching):
    """Whole images one after another in a sequence of `tokens` patches; no image is split or dropped.

    max_images: images a pack holds at most; default tokens // 256, at least 32. window: images looked ahead at for one
    that fits.
    """

    tokens: int = 24576
    max_images: int | None = None
    window: int = 64

    @property
    def slots(self) -> int:
        """Images a pack holds at most."""
        return self.max_images or max(_FEWEST, self.tokens // _PER_IMAGE)

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`. An image of more tokens than a pack is refused when it comes up."""
        if self.remainder == "repeat":
            raise ArgumentError("packed fills its last packs with padding: use remainder=fill or drop")
        return PackedBatcher(self.tokens, self.slots, self.window, self.patch, self.per_step, self.remainder)


@dataclass(frozen=True)
class Resized(Batching):
    """`batch_size` images a micro-batch, each resized to side x side pixels.

    fit: what of an image is shown where no random `crop` is asked for: the central square (crop), all of it in its
    own proportions with padding (pad).
    """

    side: int
    batch_size: int = 1
    fit: Literal["crop", "pad"] = "crop"

    @property
    def augmentation(self) -> Augmentation:
        """How images become crops."""
        base = (self.patch, self.content, self.level, self.crop, self.ratio, self.flip)
        return Augmentation(*base, side=self.side, fit=self.fit)

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`."""
        self._require("side", self.side % self.patch == 0, f"a multiple of patch={self.patch}")
        self._require("fit", self.fit in ("crop", "pad"), "crop or pad")
        return DenseBatcher([Shape(self.batch_size, self.side, self.side)], self.patch, self.per_step, self.remainder)


KINDS: dict[str, type[Batching]] = {kind.__name__.lower(): kind for kind in (Fixed, Exact, Binned, Packed, Resized)}


def text_of(batching: Batching) -> str:
    """`kind:name=value,...` with what differs from the defaults, in the order of the fields."""
    words = []
    for f in fields(batching):
        value = getattr(batching, f.name)
        if f.default is MISSING or value != f.default:
            words.append(f"{f.name}={'/'.join(map(str, value)) if isinstance(value, tuple) else value}")
    return f"{type(batching).__name__.lower()}:{','.join(words)}".rstrip(":")


def from_text(text: str) -> Batching:
    """The inverse of `text_of`; a tuple's numbers are parted by a slash. Raises ArgumentError, saying what is off."""
    kind, _, rest = text.strip().partition(":")
    if kind not in KINDS:
        raise ArgumentError(f"batching {text!r} is unknown: start with one of {', '.join(KINDS)}")
    known = {f.name for f in fields(KINDS[kind])}
    arguments: dict[str, Any] = {}
    for word in filter(None, rest.split(",")):
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise ArgumentError(f"batching {text!r}: {word!r} is none of {kind}'s name=value pairs: {sorted(known)}")
        arguments[name] = _value(value)
    try:
        return KINDS[kind](**arguments)
    except TypeError:
        raise ArgumentError(
            f"batching {text!r} lacks a value or has one of the wrong type: see docs/batches.md"
        ) from None


def check_sizes(batching: Batching, samples: Samples, key_of: Callable[[int], str]) -> None:
    """Raises ArgumentError for images that no micro-batch can hold, instead of when they come up; one look at all.

    Names the largest by the key of its manifest row, and what would hold it. Random crops may make them fit, and are
    left to the plan.
    """
    if batching.crop is not None or not isinstance(batching, (Fixed, Packed)):
        return
    high, wide = _uncropped(samples, batching.content, int(batching.level))
    patch = batching.patch
    if isinstance(batching, Fixed):
        name, limit, needed = "side", batching.side, -(-np.maximum(high, wide).astype(np.int64) // patch) * patch
    else:
        name, limit = "tokens", batching.tokens
        needed = -(-high.astype(np.int64) // patch) * -(-wide.astype(np.int64) // patch)
    at = int(needed.argmax())
    if needed[at] > limit:
        key = key_of(int(samples.row(np.array([at]))[0]))
        over, more = int((needed > limit).sum()), ", a larger patch" if name == "tokens" else ""
        raise ArgumentError(
            f"{over:,} of {len(samples):,} images do not fit {name}={limit}, the largest being {key} with"
            f" {high[at]} x {wide[at]} pixels: give {name}={needed[at]}{more} or a higher level, or use resized"
        )


def settled(batching: Batching) -> Batching:
    """The same with its bins spelled out where they come from a file, which may change later."""
    if not isinstance(batching, Binned) or not batching.bins.endswith(".json"):
        return batching
    try:
        named = Bins.from_json(read_json(Path(batching.bins)), batching.patch)
    except ArgumentError as error:
        raise ArgumentError(f"bins '{batching.bins}' cannot be used: {error}") from error
    return replace(batching, bins="+".join(b.name for b in named.bins))


def _value(text: str) -> Any:
    if "/" in text and not text.endswith(".json"):
        return tuple(_value(part) for part in text.split("/"))
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def _ascending(pair: Any) -> bool:
    """Whether it is two numbers above 0, least first."""
    return isinstance(pair, tuple) and len(pair) == 2 and all(map(_number, pair)) and 0 < pair[0] <= pair[1]


def _bins(batching: Binned, samples: Samples) -> Bins:
    """`Binned.bins`, made of whole patches of crops at the batching's level."""
    level, patch, text = int(batching.level), batching.patch, batching.bins
    if text == "dataset":
        return Bins.from_json(
            [[_at_level(side, level, patch) for side in (b.height, b.width)] for b in samples.bins.bins], patch
        )
    sides = [part.split("x") for part in text.split("+")]
    if all(side.isdecimal() for pair in sides for side in pair):
        return Bins.from_json([[int(side) for side in pair] for pair in sides], patch)
    high, wide = _uncropped(samples, batching.content, level)
    return parse(text, high, wide, patch, int(max(high.max(), wide.max())))


def _uncropped(samples: Samples, content: bool, level: int) -> npt.NDArray[np.integer]:
    """(2, n) heights and widths of the samples' crops where nothing is cropped, in the type of `samples.height`."""
    parts = []
    for start in range(0, len(samples), _CHUNK):
        index = np.arange(start, min(start + _CHUNK, len(samples)))
        _, _, high, wide = at_level(samples.regions(index, content), level)
        parts.append(np.stack([high, wide]).astype(samples.height.dtype))
    return np.concatenate(parts, 1)


def _at_level(side: int, level: int, patch: int) -> int:
    """A bin's side for halved images, in whole patches."""
    halved = -(-side >> level)
    return -(-halved // patch) * patch

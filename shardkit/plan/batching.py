"""How samples become micro-batches: five recipes, each a record that can be written as text and read back.

`Packed(tokens=24576, patch=48)` is `packed:tokens=24576,patch=48` in a command, in a loader's state and in a message.
"""

import ast
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

import numpy as np

from shardkit.bins import Bins, parse
from shardkit.errors import ArgumentError
from shardkit.plan.forming import DenseFormer, Former, PackedFormer, Remainder, Shape
from shardkit.plan.samples import Samples
from shardkit.plan.views import Level, Recipe

_PER_IMAGE = 256  # tokens; bounds the images of a pack where max_images is not given


@dataclass(frozen=True, kw_only=True)
class Batching(ABC):
    """What all recipes share.

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
        low, up = self.crop or (1.0, 1.0)
        for name, sound, wanted in (
            ("patch", self.patch >= 1, "at least 1 pixel"),
            ("per_step", self.per_step >= 1, "at least 1 micro-batch"),
            ("level", self.level == "auto" or (type(self.level) is int and self.level >= 0), "auto, or 0 or more"),
            ("crop", 0 < low <= up <= 1, "two area shares, least first, above 0 and up to 1"),
            ("ratio", 0 < self.ratio[0] <= self.ratio[1], "two width / height ratios, least first"),
            ("flip", 0 <= self.flip <= 1, "a chance between 0 and 1"),
            ("remainder", self.remainder in ("fill", "repeat", "drop"), "fill, repeat or drop"),
        ):
            self._require(name, sound, wanted)
        if self.level == "auto" and self.recipe.side is None:
            raise ArgumentError("level=auto needs an output size to cover: use resized, or name a level")

    def _require(self, name: str, sound: bool, wanted: str) -> None:
        if not sound:
            raise ArgumentError(f"{name}={getattr(self, name)} of {type(self).__name__} must be {wanted}")

    @property
    def recipe(self) -> Recipe:
        """How images become views."""
        return Recipe(self.patch, self.content, self.level, self.crop, self.ratio, self.flip)

    @abstractmethod
    def former(self, samples: Samples) -> Former:
        """A fresh former of micro-batches. Raises ArgumentError where these samples cannot be batched so."""

    def __str__(self) -> str:
        return text_of(self)


@dataclass(frozen=True)
class Fixed(Batching):
    """`batch_size` images a micro-batch, each padded to side x side pixels."""

    side: int
    batch_size: int = 1

    def former(self, samples: Samples) -> Former:
        """See `Batching`. Images above the side are refused, when they come up."""
        self._require("side", self.side >= 1 and self.side % self.patch == 0, f"a multiple of patch={self.patch}")
        self._require("batch_size", self.batch_size >= 1, "at least 1")
        return DenseFormer([Shape(self.batch_size, self.side, self.side)], self.patch, 1, self.remainder)


@dataclass(frozen=True)
class Exact(Batching):
    """One image a micro-batch, padded to whole patches: no image is padded to another's size."""

    def former(self, samples: Samples) -> Former:
        """See `Batching`."""
        return DenseFormer(None, self.patch, 1, self.remainder)


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

    def former(self, samples: Samples) -> Former:
        """See `Batching`."""
        if (self.batch_size is None) == (self.tokens is None):
            raise ArgumentError("binned needs either batch_size or tokens, one of the two")
        self._require("batch_size", (self.batch_size or 1) >= 1, "at least 1")
        self._require("tokens", (self.tokens or 1) >= 1, "at least 1")
        group = self.per_step if self.group is None else self.group
        self._require("group", group >= 1 and self.per_step % group == 0, f"a divisor of per_step={self.per_step}")
        bins = _bins(self, samples)
        areas = [b.height * b.width // self.patch**2 for b in bins.bins]
        sizes = [self.batch_size or max(1, (self.tokens or 0) // area) for area in areas]
        shapes = [Shape(n, b.height, b.width) for n, b in zip(sizes, bins.bins, strict=True)]
        return DenseFormer(shapes, self.patch, group, self.remainder, bins)


@dataclass(frozen=True)
class Packed(Batching):
    """Whole images one after another in a sequence of `tokens` patches; no image is split or dropped.

    max_images: images a pack holds at most; default tokens // 256. window: images looked ahead at for one that fits.
    """

    tokens: int = 24576
    max_images: int | None = None
    window: int = 64

    @property
    def slots(self) -> int:
        """Images a pack holds at most."""
        return self.max_images or max(1, self.tokens // _PER_IMAGE)

    def former(self, samples: Samples) -> Former:
        """See `Batching`. An image of more tokens than a pack is refused when it comes up."""
        for name, value in (("tokens", self.tokens), ("max_images", self.slots), ("window", self.window)):
            self._require(name, value >= 1, "at least 1")
        if self.remainder == "repeat":
            raise ArgumentError("packed fills its last packs with padding: use remainder=fill or drop")
        return PackedFormer(self.tokens, self.slots, self.window, self.patch, self.remainder)


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
    def recipe(self) -> Recipe:
        """How images become views."""
        base = (self.patch, self.content, self.level, self.crop, self.ratio, self.flip)
        return Recipe(*base, side=self.side, fit=self.fit)

    def former(self, samples: Samples) -> Former:
        """See `Batching`."""
        self._require("side", self.side >= 1 and self.side % self.patch == 0, f"a multiple of patch={self.patch}")
        self._require("batch_size", self.batch_size >= 1, "at least 1")
        self._require("fit", self.fit in ("crop", "pad"), "crop or pad")
        return DenseFormer([Shape(self.batch_size, self.side, self.side)], self.patch, 1, self.remainder)


KINDS: dict[str, type[Batching]] = {kind.__name__.lower(): kind for kind in (Fixed, Exact, Binned, Packed, Resized)}


def text_of(batching: Batching) -> str:
    """`kind:name=value,...` with what differs from the defaults, in the order of the fields."""
    words = []
    for f in fields(batching):
        value = getattr(batching, f.name)
        if f.default is MISSING or value != f.default:
            words.append(f"{f.name}={'/'.join(map(repr, value)) if isinstance(value, tuple) else value}")
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
        raise ArgumentError(f"batching {text!r} lacks a value or has one of the wrong type: see the README") from None


def _value(text: str) -> Any:
    if "/" in text and not text.endswith(".json"):
        return tuple(_value(part) for part in text.split("/"))
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text


def _bins(batching: Binned, samples: Samples) -> Bins:
    """`Binned.bins`, made of whole patches of views at the batching's level."""
    level, patch, text = int(batching.level), batching.patch, batching.bins
    if text == "dataset":
        return Bins.from_json(
            [[_at_level(side, level, patch) for side in (b.height, b.width)] for b in samples.bins.bins], patch
        )
    if all(part.replace("x", "").isdigit() for part in text.split("+")):
        return Bins.from_json([[int(side) for side in part.split("x")] for part in text.split("+")], patch)
    high, wide = samples.height, samples.width
    if batching.content and samples.box is not None:
        high, wide = samples.box[:, 2], samples.box[:, 3]
    high, wide = (-(-side.astype(np.int64) >> level) for side in (high, wide))
    return parse(text, high, wide, patch, int(max(high.max(), wide.max())))


def _at_level(side: int, level: int, patch: int) -> int:
    """A bin's side for halved images, in whole patches."""
    halved = -(-side >> level)
    return -(-halved // patch) * patch

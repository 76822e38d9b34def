"""What a batching is: a record of how samples become micro-batches, that can be written as text and read back."""

from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from shardkit.errors import ArgumentError
from shardkit.plan import values
from shardkit.plan.batchers import Batcher, Remainder
from shardkit.plan.crops import Augmentation, Level
from shardkit.plan.samples import Ints, Samples


@dataclass(frozen=True, kw_only=True)
class Batching(ABC):
    """How samples become micro-batches: what all kinds share.

    A new kind is a frozen dataclass that derives from this one. Its fields are its options, and its class name in lower
    case begins its text: `Packed(tokens=12288, patch=48)` is `packed:patch=48,tokens=12288`. Its `batcher` makes
    micro-batches of a `BatchShape`; a new shape also says how its tensors are made, in `shardkit.loader.batch.Batch`.
    `shardkit.plan.batching.KINDS` lists the kinds that text may name, and `shardkit.loader.collate.BATCHES` the shapes.
    `shardkit.testing.batchings.assert_batching` checks all that is said of them.

    Attributes
    ----------
    patch : int
        Side of a patch in pixels; outputs are padded to whole patches.
    per_step : int
        Micro-batches of a global step, on all ranks together; world sizes must divide it.
    content : bool
        Whether only the content box is shown.
    level : int or "auto"
        Halvings of every image; "auto", with `Resized` and `MultiView`, the most that still cover the output.
    crop : tuple of float, optional
        Least and greatest area share of a random crop, drawn from the plan's seed; None for no crop.
    ratio : tuple of float
        Least and greatest width / height of a random crop.
    flip : float
        Chance of a left-right mirror image.
    remainder : {"fill", "repeat", "drop"}
        What becomes of the epoch's last batches: they are filled with padding or with samples of before, or dropped.

    Raises
    ------
    ArgumentError
        For values that no batching has.
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
        """Check the fields."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type in (int, int | None) and not (value is None and f.default is None):
                self.require(f.name, values.whole(value, 1), "a whole number of at least 1")
        crop, pair = (1.0, 1.0) if self.crop is None else self.crop, "a tuple of two"
        for name, sound, wanted in (
            ("content", type(self.content) is bool, "true or false"),
            ("level", self.level == "auto" or values.whole(self.level, 0), "auto, or 0 or more"),
            ("crop", values.ascending(crop) and crop[1] <= 1, f"{pair} area shares, least first, above 0 and up to 1"),
            ("ratio", values.ascending(self.ratio), f"{pair} width / height ratios, least first, above 0"),
            ("flip", values.share(self.flip), "a chance between 0 and 1"),
            ("remainder", self.remainder in ("fill", "repeat", "drop"), "fill, repeat or drop"),
        ):
            self.require(name, sound, wanted)
        if self.level == "auto" and self.augmentation.side is None:
            raise ArgumentError("level=auto needs an output size to cover: use resized, or name a level")

    def require(self, name: str, sound: bool, wanted: str) -> None:
        """Refuse a field that is not sound.

        Raises
        ------
        ArgumentError
            Says what it must be.
        """
        if not sound:
            raise ArgumentError(f"{name}={getattr(self, name)} of {type(self).__name__} must be {wanted}")

    @property
    def augmentation(self) -> Augmentation:
        """How images become crops."""
        return Augmentation(self.patch, self.content, self.level, self.crop, self.ratio, self.flip)

    @abstractmethod
    def batcher(self, samples: Samples) -> Batcher:
        """Make a fresh batcher of micro-batches.

        Parameters
        ----------
        samples : Samples
            All that there are to plan for.

        Raises
        ------
        ArgumentError
            Where these samples cannot be batched so.
        """

    @property
    def size_option(self) -> str | None:
        """Name of the option that bounds how large an image may be; None where any image fits."""
        return None

    def size_needed(self, height: Ints, width: Ints) -> Ints:
        """Return what `size_option` would have to be for each of these crops.

        Parameters
        ----------
        height, width : ndarray of int64, (n,)
            Pixels of the crops.
        """
        raise NotImplementedError(f"{type(self).__name__} has no size_option")

    def settled(self) -> "Batching":
        """Return the same with what it takes from files spelled out: files may change, and a state names it."""
        return self

    def plain(self) -> "Batching":
        """Return a batching that shows each image once, whole, as programs that measure something want it.

        It has no random crop and no mirror images, and fills its last batches with padding.
        """
        return replace(self, crop=None, flip=0.0, remainder="fill")

    @classmethod
    def read(cls, name: str, text: str) -> Any:
        """Read the value of a field from what `str` wrote of it."""
        return values.read(text)

    def __str__(self) -> str:
        """Write it as text; see `text_of`."""
        return text_of(self)


def text_of(batching: Batching) -> str:
    """Write a batching as `kind:name=value,...`: what differs from the defaults, in the order of the fields."""
    words = []
    for f in fields(batching):
        value = getattr(batching, f.name)
        if f.default is MISSING or value != f.default:
            words.append(f"{f.name}={values.written(value)}")
    return f"{type(batching).__name__.lower()}:{','.join(words)}".rstrip(":")

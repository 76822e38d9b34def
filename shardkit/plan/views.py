"""Several views of a sample: how many, how large, which part of it, and how its grey levels change."""

from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from shardkit.errors import ArgumentError
from shardkit.plan import values
from shardkit.plan.shuffle import Words, key_of, uniform

_APART = 0xD1342543DE82EF95  # parts the seeds of views; see `apart`


@dataclass(frozen=True, slots=True)
class View:
    """`n` random crops of a sample, each resized to one square: a field of `MultiView`.

    Grey levels change as torchvision's transforms do, in this order: brightness and contrast (one of them first, by
    chance), blur, solarisation. Saturation and hue are those of colours: grey images have none.

    Attributes
    ----------
    side : int
        Pixels of the square's side, a multiple of `patch`.
    crop : tuple of float
        Least and greatest area share of a crop.
    n : int
        Number of such views of a sample.
    ratio : tuple of float
        Least and greatest width / height of a crop.
    flip : float
        Chance of a left-right mirror image.
    jitter : float
        Chance that brightness and contrast change.
    brightness, contrast : float
        By how much: factors are drawn from 1 - x to 1 + x.
    blur : float
        Chance of a Gaussian blur.
    sigma : tuple of float
        Least and greatest standard deviation of the blur, in pixels of the square.
    solarise : float
        Chance that grey levels from the middle of the range on are inverted.
    """

    side: int
    crop: tuple[float, float] = (1.0, 1.0)
    n: int = 1
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields."""
        for name in ("side", "n"):
            self._require(name, values.whole(getattr(self, name), 1), "a whole number of at least 1")
        for name in ("flip", "jitter", "brightness", "contrast", "blur", "solarise"):
            self._require(name, values.share(getattr(self, name)), "a number from 0 to 1")
        for name in ("crop", "ratio", "sigma"):
            sound = values.ascending(pair := getattr(self, name)) and (name != "crop" or pair[1] <= 1)
            self._require(name, sound, f"two numbers above 0{' and up to 1' * (name == 'crop')}, least first")

    def _require(self, name: str, sound: bool, wanted: str) -> None:
        if not sound:
            raise ArgumentError(f"{name}={getattr(self, name)} of a View must be {wanted}")

    @property
    def changes_greys(self) -> bool:
        """Whether grey levels may change at all."""
        return self.changes_range or self.blur > 0

    @property
    def changes_range(self) -> bool:
        """Whether grey levels change in a way that needs to know black and white: a blur does not."""
        return self.jitter > 0 or self.solarise > 0

    @classmethod
    def read(cls, text: str) -> "View":
        """Read what `str` wrote, such as `224:n=2:crop=0.4/1.0`.

        Raises
        ------
        ArgumentError
            For an unknown name or a value that cannot be.
        """
        side, *words = text.split(":")
        known = [f.name for f in fields(cls) if f.name != "side"]
        pairs: dict[str, Any] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or name not in known:
                raise ArgumentError(f"view {text!r}: {word!r} is none of a view's name=value pairs: {sorted(known)}")
            pairs[name] = values.read(value)
        return cls(values.read(side), **pairs)

    def __str__(self) -> str:
        """Write it as `side:name=value:...`: what differs from the defaults, in the order of the fields."""
        words = [str(self.side)]
        for f in fields(self):
            value = getattr(self, f.name)
            if f.default is not MISSING and value != f.default:
                words.append(f"{f.name}={values.written(value)}")
        return ":".join(words)


def apart(number: int) -> int:
    """Return what is added to a sample's seed for the seed of its view `number`, from 0: a signed 64-bit number.

    Sums of 64 bits drop what is carried out of them, signed or not. What a trainer draws of seeds, such as masks, noise
    and stochastic depth, adds multiples of SplitMix64's 0x9E3779B97F4A7C15 to them: with that number here, too, a view
    would have the draws of another one, a place further on. Multiples of this one are far from all small ones of it.
    """
    return ((number * _APART + (1 << 63)) % (1 << 64)) - (1 << 63)


def view_seed(seed: Words, number: int) -> Words:
    """Return the seeds of view `number` of samples, by theirs. That of view 0 is the sample's own."""
    return seed + np.uint64(apart(number) % (1 << 64))


@dataclass(frozen=True, slots=True)
class Greys:
    """How the grey levels of n images change, each array (n,).

    Attributes
    ----------
    brightness, contrast : ndarray of float64
        Factors; 1 where there is no change.
    contrast_first : ndarray of bool
        Whether contrast changes before brightness.
    sigma : ndarray of float64
        Standard deviation of the blur in pixels; 0 for none.
    solarise : ndarray of bool
        Whether grey levels from the middle of the range on are inverted.
    """

    brightness: npt.NDArray[np.float64]
    contrast: npt.NDArray[np.float64]
    contrast_first: npt.NDArray[np.bool_]
    sigma: npt.NDArray[np.float64]
    solarise: npt.NDArray[np.bool_]


def greys(view: View, seed: Words) -> Greys:
    """Draw how the grey levels of views change.

    Parameters
    ----------
    view : View
        What kind of view they are.
    seed : ndarray of uint64, (n,)
        Seed of each, see `view_seed`.
    """

    def drawn(purpose: str) -> npt.NDArray[np.float64]:
        return uniform(key_of("shardkit views", purpose), seed)

    jittered = drawn("jitter") < view.jitter
    factors = (1 + (2 * drawn(name) - 1) * getattr(view, name) for name in ("brightness", "contrast"))
    brightness, contrast = (np.where(jittered, factor, 1.0) for factor in factors)
    low, high = view.sigma
    sigma = np.where(drawn("blur") < view.blur, low + (high - low) * drawn("sigma"), 0.0)
    return Greys(brightness, contrast, drawn("order") < 0.5, sigma, drawn("solarise") < view.solarise)

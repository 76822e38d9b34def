"""Several views of a sample: how many, how large, which part of it, and how its grey levels change."""

from dataclasses import dataclass


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

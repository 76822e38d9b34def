"""Turning about the centre, and scaling each axis."""

from random import Random

from torch import Tensor

from trainer.augment.resample import about_centre, resample, rotation


def draw(random: Random, scales: tuple[float, float], degrees: float) -> tuple[float, float, float]:
    """Return the scale of rows and of columns, and an angle from -degrees to degrees."""
    return random.uniform(*scales), random.uniform(*scales), random.uniform(-degrees, degrees)


def affine(image: Tensor, scale_rows: float, scale_cols: float, degrees: float) -> Tensor:
    """Turn an image counter-clockwise, then scale its axes; what was outside gets the image's least value.

    Parameters
    ----------
    image
        float32 (1, rows, cols).
    scale_rows, scale_cols
        Above 1, what is shown gets larger.
    degrees
        Angle.
    """
    _, rows, cols = image.shape
    (a, b), (d, e) = rotation(degrees)
    back = (a / scale_rows, b / scale_cols), (d / scale_rows, e / scale_cols)
    return resample(image, about_centre(back, rows, cols), float(image.min()))

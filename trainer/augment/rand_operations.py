"""RandAugment's operations for float images whose grey levels are laid on the scale of 8 bits, 0 to 255.

An operation gives Pillow's result on whole numbers, to rounding, and goes on between them: 16 bits keep their steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.augment.resample import about_centre, resample, rotation

WHITE = 255.0
_STEPS = 256  # for each grey level of 8 bits: those of 16 bits, nearly
_SLACK = 0.002  # of an 8-bit level, half a level of 16 bits: what float32 may leave below a threshold


def auto_contrast(image: Tensor) -> Tensor:
    """Stretch the least value to black and the greatest to white."""
    low, high = image.aminmax()
    return (image - low) * (WHITE / (high - low)) if high > low else image


def equalize(image: Tensor) -> Tensor:
    """Give each value the share of pixels below it, so that all grey levels are as frequent."""
    level = (image * _STEPS).round_().long()
    counts = torch.bincount(level.flatten(), minlength=int(WHITE) * _STEPS + 1)
    below = counts.cumsum(0) - counts
    most = below[level.max()]
    return (below * (WHITE / most)).to(image.dtype)[level] if most > 0 else image


def invert(image: Tensor) -> Tensor:
    """Turn black into white."""
    return WHITE - image


def posterize(image: Tensor, bits: float) -> Tensor:
    """Keep the first bits of eight; 0 leaves black."""
    step = 2.0 ** (8 - bits)
    return (image + _SLACK).div_(step).floor_().mul_(step)


def solarize(image: Tensor, threshold: float) -> Tensor:
    """Invert what is not below a threshold."""
    return torch.where(image < threshold - _SLACK, image, WHITE - image)


def solarize_add(image: Tensor, more: float) -> Tensor:
    """Make brighter what is darker than 128."""
    return torch.where(image < 128 - _SLACK, image + more, image)


def contrast(image: Tensor, factor: float) -> Tensor:
    """Multiply what differs from the mean."""
    mean = image.mean(dtype=torch.float64).to(image.dtype)
    return torch.lerp(mean, image, factor)


def color(image: Tensor, factor: float) -> Tensor:
    """Multiply what differs from grey: in a grey image, nothing."""
    return image


def brightness(image: Tensor, factor: float) -> Tensor:
    """Multiply all."""
    return image * factor


def sharpness(image: Tensor, factor: float) -> Tensor:
    """Multiply what differs from the neighbours; edges stay."""
    _, rows, cols = image.shape
    if rows < 3 or cols < 3:
        return image
    down = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    middle = image[:, 1:-1, 1:-1]
    smooth = (down[..., :-2] + down[..., 1:-1] + down[..., 2:]).add_(middle, alpha=4).div_(13)
    out = image.clone()
    out[:, 1:-1, 1:-1] = torch.lerp(smooth, middle, factor)
    return out


def rotate(image: Tensor, degrees: float, fill: float) -> Tensor:
    """Turn about the centre, counter-clockwise."""
    return resample(image, about_centre(rotation(degrees), *image.shape[1:]), fill)


def shear_x(image: Tensor, factor: float, fill: float) -> Tensor:
    """Move rows to the left, the more the lower."""
    return resample(image, ((1, 0, 0), (factor, 1, 0)), fill)


def shear_y(image: Tensor, factor: float, fill: float) -> Tensor:
    """Move columns up, the more the farther right."""
    return resample(image, ((1, factor, 0), (0, 1, 0)), fill)


def translate_x(image: Tensor, share: float, fill: float) -> Tensor:
    """Move to the left by a share of the width."""
    return resample(image, ((1, 0, 0), (0, 1, share * image.shape[2])), fill)


def translate_y(image: Tensor, share: float, fill: float) -> Tensor:
    """Move up by a share of the height."""
    return resample(image, ((1, 0, share * image.shape[1]), (0, 1, 0)), fill)


PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
}
LEVELLED: dict[str, Callable[[Tensor, float], Tensor]] = {
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
}
MOVING: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "Rotate": rotate,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
}


def apply(name: str, image: Tensor, argument: float, fill: float) -> Tensor:
    """Run an operation, and cut off what leaves the grey levels.

    Parameters
    ----------
    name
        Of the operation.
    image
        float32 (1, rows, cols), 0 to 255.
    argument
        What `rand.argument` makes of a magnitude.
    fill
        Grey level of what comes from outside of the image.
    """
    if name in PLAIN:
        out = PLAIN[name](image)
    elif name in LEVELLED:
        out = LEVELLED[name](image, argument)
    else:
        out = MOVING[name](image, argument, fill)
    return out.clamp(0.0, WHITE)

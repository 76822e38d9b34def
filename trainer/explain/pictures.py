"""Pictures of maps: the image, the map over it in a perceptually uniform scale, boxes of the labels and of the map."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from trainer.explain.boxes import Box
from trainer.explain.explaining import Explained, Picture
from trainer.explain.maps import Frame, Map

LABEL, FOUND = "#ffffff", "#ff5fa2"
"""Colours of boxes: what the labels say, and what the map finds. Neither is in the scale."""
_SIDE, _QUALITY = 320, 84
_OPACITY, _DIMMED = 0.5, 0.75  # of a map; and grey levels below it, so that colours are those of the scale
_CONTRAST: Final = 3
"""White is an error of a third of the image's range, or more, as on the page of a run."""

Colours = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture as a data URI, with a word on what it shows."""

    title: str
    source: str


def drawn(one: Explained, found: Map, labels: Sequence[Box], component: Box | None) -> list[Drawn]:
    """Draw an image, what a masked autoencoder made of it, and a map over it.

    Grey levels span the image's own range, as the model was given it.

    Parameters
    ----------
    one
        The image.
    found
        One of its maps.
    labels
        Boxes of the labels.
    component
        The map's box, if there is any.
    """
    low, high = float(one.picture.min()), float(one.picture.max())
    image = _grey(one.picture, low, high)
    cells = [("image", _boxes(_sized(image), one.frame, [(box, LABEL) for box in labels]))]
    if one.made is not None and one.errors is not None:
        cells.append(("reconstruction", _sized(_grey(one.made, low, high))))
        cells.append((f"error x {_CONTRAST}", _sized(_grey(one.errors, 0.0, (high - low) / _CONTRAST))))
    boxes = [*((box, LABEL) for box in labels), *([(component, FOUND)] if component is not None else [])]
    cells.append(("map", _boxes(_sized(_over(image, one, found)), one.frame, boxes)))
    return [Drawn(title, _uri(picture)) for title, picture in cells]


@lru_cache
def scale() -> Colours:
    """Return the colours of 256 values from least to greatest, viridis: uint8 (256, 3)."""
    from matplotlib import colormaps

    return np.asarray(colormaps["viridis"](np.arange(256), bytes=True)[:, :3], np.uint8)


def legend() -> str:
    """Return the scale as CSS."""
    colours = [scale()[at] for at in range(0, 256, 15)]
    return "linear-gradient(90deg," + ",".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours) + ")"


def _grey(picture: Picture, low: float, high: float) -> Image.Image:
    scaled = (picture - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)).convert("RGB")


def _over(image: Image.Image, one: Explained, found: Map) -> Image.Image:
    """Blend a map into a picture of its image."""
    frame = one.frame
    wide, high = (np.diff(lines)[0] / step for lines, step in ((found.xs, frame.across), (found.ys, frame.down)))
    values = Image.fromarray(found.values.astype(np.float32))
    part = (0.0, 0.0, frame.width / float(wide), frame.height / float(high))
    fitted = np.asarray(values.resize(image.size, Image.Resampling.BILINEAR, box=part))
    coloured = Image.fromarray(scale()[(fitted.clip(0, 1) * 255).round().astype(np.uint8)])
    return Image.blend(image.point(lambda grey: round(grey * _DIMMED)), coloured, _OPACITY)


def _sized(picture: Image.Image) -> Image.Image:
    factor = _SIDE / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC)


def _boxes(picture: Image.Image, frame: Frame, boxes: Sequence[tuple[Box, str]]) -> Image.Image:
    """Draw boxes, which are in pixels of level 0, over a picture of what lies in `frame`."""
    pen = ImageDraw.Draw(picture)
    x, y = picture.width / (frame.width * frame.across), picture.height / (frame.height * frame.down)
    for box, colour in boxes:
        left, top = (box.left - frame.left) * x, (box.top - frame.top) * y
        right, bottom = left + box.width * x - 1, top + box.height * y - 1
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline="#000000", width=4)
        pen.rectangle((left + 1, top + 1, max(left, right) - 1, max(top, bottom) - 1), outline=colour, width=2)
    return picture


def _uri(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Samples as pictures to look at: grey levels stretched to 8 bits, small, with boxes; and several on one sheet."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from shardkit.codecs.base import Pixels
from shardkit.dataset import contents
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.rounding import halved
from shardkit.dataset.sample_row import SampleRow
from shardkit.errors import IntegrityError
from shardkit.storage import Store

Grey = npt.NDArray[np.uint8]

_BOX = (240, 180, 41)
_COLUMNS, _GAP, _LEAST = 4, 12, 200  # of a sheet: pictures in a row, pixels between them and of one's width at least
_LETTERS, _LINE = 13, 17  # pixels of a letter's height, and of a line's
_NAMED = 320  # pixels of a picture's width from which boxes have their labels in it
_INK, _PAPER = (27, 36, 48), (255, 255, 255)


def window(pixels: Pixels, low: int, high: int) -> Grey:
    """Stretch grey levels `low` to `high` to 0 to 255.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        An image.
    low, high : int
        Grey levels that become black and white.

    Returns
    -------
    ndarray of uint8, (height, width)
        The picture.
    """
    scale = np.float32(255 / max(1, high - low))
    grey: Grey = np.clip((pixels.astype(np.float32) - np.float32(low)) * scale, 0, 255).astype(np.uint8)
    return grey


def small(store: Store, row: SampleRow, description: DatasetDescription, side: int) -> Pixels:
    """Read the smallest level of a sample that is large enough to look at.

    Parameters
    ----------
    store, row, description
        As for `shardkit.dataset.contents.image`.
    side : int
        Pixels that the longer side should have at least.

    Returns
    -------
    ndarray of uint16
        The pixels at that level.

    Raises
    ------
    IntegrityError
        The stored bytes are not the image's.
    StorageError
        They cannot be read.
    """
    level = contents.smallest_level(row, side)
    pixels = contents.image(store, row, description, level)
    if pixels.shape != tuple(halved(row[name], level) for name in ("height", "width")):
        raise IntegrityError(f"{row['key']} has other dimensions than the manifest says: run verify")
    return pixels


def fitted(grey: Grey, side: int) -> Image.Image:
    """Return a picture whose longer side has at most `side` pixels, by area means."""
    picture = Image.fromarray(grey)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return picture


@dataclass(frozen=True, slots=True)
class LabelBox:
    """A rectangle of a labels table, in pixels of the whole image.

    Attributes
    ----------
    table, label : str
        The labels table, and what is marked.
    top, left, height, width : float
        Where.
    """

    table: str
    label: str
    top: float
    left: float
    height: float
    width: float


def with_boxes(picture: Image.Image, boxes: Iterable[LabelBox], height: int, width: int) -> Image.Image:
    """Draw boxes of an image of `height` x `width` pixels on a picture of it, with their labels.

    Parameters
    ----------
    picture : PIL.Image.Image
        The picture, of any size.
    boxes : iterable of LabelBox
        What is drawn.
    height, width : int
        Sides of the whole image.

    Returns
    -------
    PIL.Image.Image
        The picture, in colour where there are boxes.
    """
    boxes = tuple(boxes)
    if not boxes:
        return picture
    drawn = picture.convert("RGB")
    draw, (x, y) = ImageDraw.Draw(drawn), (drawn.width / width, drawn.height / height)
    for box in boxes:
        left, top = box.left * x, box.top * y
        right, bottom = (box.left + box.width) * x, (box.top + box.height) * y
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=_BOX, width=max(1, drawn.width // 256))
        if drawn.width >= _NAMED:
            place = (left, max(0, top - _LETTERS - 6))
            draw.rectangle(draw.textbbox((place[0] + 3, place[1] + 2), f"{box.label} ", font=_font()), fill=_INK)
            draw.text((place[0] + 3, place[1] + 2), box.label, fill=_BOX, font=_font())
    return drawn


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture with words below it, a line each."""

    picture: Image.Image
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pictures beside each other. A notebook shows it; `png` is the same for everything else.

    Attributes
    ----------
    tiles : sequence of Tile
        The pictures.
    """

    tiles: Sequence[Tile]

    def png(self) -> bytes:
        """Return all pictures and their words as one PNG."""
        across = min(_COLUMNS, len(self.tiles))
        wide = max(_LEAST, *(tile.picture.width for tile in self.tiles))
        lines = [[part for line in tile.lines for part in _wrapped(line, wide)] for tile in self.tiles]
        rows = [range(at, min(at + across, len(self.tiles))) for at in range(0, len(self.tiles), across)]
        heights = [max(self.tiles[i].picture.height + _LINE * len(lines[i]) for i in row) + 6 + _GAP for row in rows]
        sheet = Image.new("RGB", (across * (wide + _GAP) + _GAP, sum(heights) + _GAP), _PAPER)
        draw, top = ImageDraw.Draw(sheet), _GAP
        for row, height in zip(rows, heights, strict=True):
            for at in row:
                tile, left = self.tiles[at], _GAP + (at - row.start) * (wide + _GAP)
                sheet.paste(tile.picture, (left, top))
                for number, line in enumerate(lines[at]):
                    place = (left, top + tile.picture.height + 5 + number * _LINE)
                    draw.text(place, line, fill=_INK, font=_font())
            top += height
        return encoded(sheet)

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_html_(self) -> str:
        figures = "".join(
            f'<figure style="margin:0 12px 12px 0;max-width:{tile.picture.width}px">'
            f'<img style="max-width:100%" alt="radiograph: {escape(", ".join(tile.lines))}" src="{_uri(tile.picture)}">'
            f'<figcaption style="font-size:12px">{"<br>".join(map(escape, tile.lines))}</figcaption></figure>'
            for tile in self.tiles
        )
        return f'<div style="display:flex;flex-wrap:wrap">{figures}</div>'


def encoded(picture: Image.Image) -> bytes:
    """Return a picture as PNG."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _uri(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(encoded(picture)).decode()


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_LETTERS)


def _wrapped(line: str, wide: int) -> list[str]:
    """Return a line as lines of at most `wide` pixels, cut between words."""
    found, font = [""], _font()
    for word in line.split(" "):
        longer = f"{found[-1]} {word}".strip()
        if found[-1] and font.getlength(longer) > wide:
            found.append(word)
        else:
            found[-1] = longer
    return found

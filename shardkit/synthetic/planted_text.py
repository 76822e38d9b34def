"""Text drawn into the pixels of a radiograph, with its truth: what a detector of burned-in text is measured by."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint16]

FONTS = {
    name: f"{file}.ttf"
    for name, file in {
        "sans": "DejaVuSans",
        "bold": "DejaVuSans-Bold",
        "mono": "DejaVuSansMono",
        "serif": "DejaVuSerif",
        "italic": "DejaVuSans-Oblique",
        "times": "STIXGeneral",
    }.items()
}
"""Name -> file among Matplotlib's, which any machine with shardkit has. Other scripts need a file of their own."""

KINDS = ("name", "date", "number", "words")
INITIALS = "initials"
_FAMILY = (
    "Muller",
    "OKONKWO",
    "Smith",
    "Nguyen",
    "Garcia Lopez",
    "Ivanova",
    "Schmidt-Berg",
    "Rossi",
    "Tanaka",
    "Dubois",
)
_GIVEN = ("Anna", "JOHN", "Maria", "Peter", "Li", "Fatima", "Ole", "Ruth", "William", "Yuki")
_WORDS = (
    "Ward 7B",
    "St. Mary Hospital",
    "Dr. Hansen",
    "DOB: see file",
    "born in Oslo",
    "Radiology Dept",
    "Emergency Room",
    "Tech: JKL",
)
SCRIPTS = {
    "greek": ("Παπαδόπουλος", "Νίκος Γεωργίου", "Ελένη 1961"),
    "cyrillic": ("Иванова Анна", "Петров С.П.", "Больница 4"),
    "hebrew": ("כהן שרה", "משה לוי"),
    "arabic": ("محمد علي", "فاطمة حسن"),
    "chinese": ("王小明 男", "北京医院 李华", "张伟 1961年"),
    "japanese": ("田中ゆき 様", "山田太郎 男性"),
    "korean": ("김철수", "박지성 남"),
}


@dataclass(frozen=True)
class Planted:
    """The truth about a drawn text.

    Parameters
    ----------
    top, left, height, width : int
        Box of its ink inside of the image, in pixels.
    text : str
        What it says.
    shown : float
        Share of its ink's box that lies inside the image, 0 to 1.
    contrast : float
        Least distance of its grey level from all but a twentieth of the background, a share of `span_of` the image.
    """

    top: int
    left: int
    height: int
    width: int
    text: str
    shown: float
    contrast: float


def phrase(kind: str, rng: np.random.Generator) -> str:
    """Return made-up text of a kind: one of `KINDS`, two or three "initials", or a name of `SCRIPTS`."""
    if kind in SCRIPTS:
        return str(rng.choice(SCRIPTS[kind]))
    if kind == "name":
        family, given = str(rng.choice(_FAMILY)), str(rng.choice(_GIVEN))
        return f"{family}, {given}" if rng.random() < 0.5 else f"{given} {family}"
    day, month, year = int(rng.integers(1, 29)), int(rng.integers(1, 13)), int(rng.integers(1930, 2024))
    if kind == "date":
        forms = (
            f"{day:02}.{month:02}.{year}",
            f"{year}-{month:02}-{day:02}",
            f"{month}/{day}/{year}",
            f"{year}{month:02}{day:02}",
        )
        return str(rng.choice(forms))
    if kind == "number":
        return str(
            rng.choice(
                (f"{rng.integers(10**7, 10**8)}", f"MRN {rng.integers(10**5, 10**6)}", f"A{rng.integers(10**5, 10**6)}")
            )
        )
    if kind == "words":
        return str(rng.choice(_WORDS))
    if kind == INITIALS:
        return "".join(rng.choice(list("ABCDEFGHJKLMNPRSTVW"), int(rng.integers(2, 4))))
    raise ValueError(f"There is no text of kind {kind!r}; kinds are {', '.join((*KINDS, INITIALS, *SCRIPTS))}.")


def drawn(text: str, font: str | Path, size: int) -> npt.NDArray[np.float32]:
    """Return the ink of a text, float32 of 0 to 1, (height, width), cut to what is not zero.

    Parameters
    ----------
    text : str
        One line.
    font : str or Path
        A name of `FONTS`, "default" for Pillow's own, or the path of a font file.
    size : int
        Pixels of the font's em; its capitals have some 0.73 of them.

    Raises
    ------
    ValueError
        When nothing was drawn.
    """
    if font == "default":
        face = ImageFont.load_default(size)
    else:
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        face = ImageFont.truetype(str(folder / FONTS[font] if isinstance(font, str) and font in FONTS else font), size)
    left, top, right, bottom = (round(x) for x in face.getbbox(text))
    sheet = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(sheet).text((4 - left, 4 - top), text, fill=255, font=face)
    box = sheet.getbbox()
    if box is None:
        raise ValueError(f"The font {font} drew nothing for a text of {len(text)} characters.")
    return np.asarray(sheet.crop(box), np.float32) / np.float32(255)


def skewed(ink: npt.NDArray[np.float32], degrees: float) -> npt.NDArray[np.float32]:
    """Return ink turned counter-clockwise by some degrees, as on a film that lay askew, cut to what is not zero."""
    sheet = Image.fromarray(np.rint(ink * 255).astype(np.uint8))
    turned = sheet.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    return np.asarray(turned.crop(turned.getbbox()), np.float32) / np.float32(255)


def compressed(pixels: Pixels, bits: int, quality: int) -> Pixels:
    """Return an image of 8 bits and more after JPEG compression of its 8 highest bits, at a quality of 1 to 100."""
    file, low = BytesIO(), bits - 8
    Image.fromarray((pixels >> low).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(np.uint16) << np.uint16(low)


def span_of(pixels: Pixels) -> float:
    """Return the span of an image's grey levels, from its 1st to its 99th percentile: what contrasts are shares of."""
    low, high = np.percentile(pixels[::4, ::4], (1, 99))
    return max(float(high - low), 1.0)


def plant(
    pixels: Pixels,
    bits: int,
    ink: npt.NDArray[np.float32],
    text: str,
    at: tuple[int, int],
    *,
    contrast: float = 1.0,
    dark: bool = False,
    turns: int = 0,
    plate: bool = False,
) -> tuple[Pixels, Planted]:
    """Draw ink over an image in one grey level, which is cut to the range; the truth says what contrast is left.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image, which is not changed.
    bits : int
        Its depth; grey levels end at 2**bits - 1.
    ink : ndarray of float32, (height, width)
        As `drawn` returns it.
    text : str
        What it says, for the truth.
    at : (int, int)
        Row and column of the ink's corner, after its turn; it may lie outside, and the text is clipped.
    contrast : float
        Distance from the background at its 95th percentile, or, of dark text, its 5th: a share of `span_of` the image.
    dark : bool
        Darker than the background.
    turns : int
        Quarter turns, counter-clockwise.
    plate : bool
        Draw it on a black box, or, if dark, a white one, which is the background that its contrast is from.

    Returns
    -------
    pixels : ndarray of uint16, (height, width)
        The image with text.
    truth : Planted
        Where it is.
    """
    ink = np.rot90(ink, turns)
    height, width = ink.shape
    top, left = max(at[0], 0), max(at[1], 0)
    bottom, right = min(at[0] + height, pixels.shape[0]), min(at[1] + width, pixels.shape[1])
    if bottom <= top or right <= left:
        raise ValueError("The text lies outside the image.")
    cover = ink[top - at[0] : bottom - at[0], left - at[1] : right - at[1]]
    painted, span, most = pixels.copy(), span_of(pixels), (1 << bits) - 1
    if plate:
        margin = max(2, min(ink.shape) // 4)
        painted[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin] = most if dark else 0
    under = painted[top:bottom, left:right].astype(np.float32)
    behind = float(np.percentile(under, 5 if dark else 95))
    level = min(max(behind + contrast * (-span if dark else span), 0.0), float(most))
    painted[top:bottom, left:right] = np.rint(under * (1 - cover) + level * cover).astype(np.uint16)
    rows, columns = np.flatnonzero(cover.max(1) > 0.3), np.flatnonzero(cover.max(0) > 0.3)
    shown = cover.size / ink.size
    if not rows.size or not columns.size:
        raise ValueError("Of the text nothing but its edge lies inside the image.")
    return painted, Planted(
        top + int(rows[0]),
        left + int(columns[0]),
        int(rows[-1] - rows[0] + 1),
        int(columns[-1] - columns[0] + 1),
        text,
        shown,
        max((behind - level if dark else level - behind) / span, 0.0),
    )

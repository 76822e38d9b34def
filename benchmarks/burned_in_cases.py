"""Images with planted text, over a grid of what text may be like; what is found of it, and what is left of it."""

from __future__ import annotations

import csv
import difflib
import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from shardkit.burned_in.findings import Finding
from shardkit.synthetic.planted_text import (
    FONTS,
    INITIALS,
    KINDS,
    SCRIPTS,
    Planted,
    compressed,
    drawn,
    phrase,
    plant,
    skewed,
)
from shardkit.synthetic.radiographs import radiograph

Pixels = npt.NDArray[np.uint16]

SIZES = (12, 14, 16, 20, 28, 40, 64, 96)
CONTRASTS = (0.5, 0.65, 1.0)
PLACES = ("inside", "edge", "clipped")
SHOWN = 0.5  # of a line's ink that lies inside the image; of less nobody can read much
LOOKS = ("plain", "plate", "jpeg", "skewed", "lines", "negative")
"""plate: on a black or white box. jpeg: compressed after drawing, quality 70 to 95. skewed: by up to 3 degrees. lines:
three below each other. negative: drawn into an image that is stored as MONOCHROME1, and inverted with it."""
REGIONS = ("knee", "hand", "chest", "skull", "lumbar spine", "shoulder")
OF_DEJAVU = ("greek", "cyrillic", "hebrew", "arabic")
"""Scripts that a font of Matplotlib has; the others need a font file."""


Verdict = Literal["text", "marker", "no text"]
"""What a person saw in an image: text that is none of the permitted words, such words alone, or neither."""


@dataclass(frozen=True)
class Carrier:
    """An image to plant text in: its name, pixels, depth, and, of a file, its SHA-256."""

    name: str
    pixels: Pixels
    bits: int
    digest: str = ""


@dataclass(frozen=True)
class Case:
    """One planted text: its cell of the grid, the truth of each of its lines, and the image."""

    cell: dict[str, object]
    truth: tuple[Planted, ...]
    pixels: Pixels
    bits: int


def synthetic(seed: int, height: int = 2000, width: int = 1600) -> list[Carrier]:
    """Return a synthetic radiograph of each region, of 12 bits."""
    rng = np.random.default_rng(seed)
    return [Carrier(f"synthetic {region}", radiograph(height, width, 12, rng, region), 12) for region in REGIONS]


def images(folder: Path) -> Iterator[Carrier]:
    """Yield the 8-bit PNG files below a folder."""
    for path in sorted(folder.rglob("*.png")):
        data = path.read_bytes()
        pixels = np.asarray(Image.open(BytesIO(data)).convert("L")).astype(np.uint16)
        name = path.relative_to(folder).as_posix()
        yield Carrier(name, np.ascontiguousarray(pixels), 8, hashlib.sha256(data).hexdigest())


def seen_in(path: Path) -> dict[str, Verdict]:
    """Read what a person saw in files: a CSV of `file`, a name or a SHA-256, and `verdict`.

    Raises
    ------
    ValueError
        For other columns, other verdicts, and a file that is named twice.
    """
    verdicts: dict[str, Verdict] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if set(rows.fieldnames or ()) != {"file", "verdict"}:
            raise ValueError(f"{path}: its columns have to be file and verdict.")
        for row in rows:
            if row["verdict"] not in get_args(Verdict):
                raise ValueError(f"{path}, line {rows.line_num}: a verdict is one of {', '.join(get_args(Verdict))}.")
            if row["file"] in verdicts:
                raise ValueError(f"{path}, line {rows.line_num}: the file is there twice.")
            verdicts[row["file"]] = cast(Verdict, row["verdict"])
    return verdicts


def cases(carriers: Sequence[Carrier], count: int, seed: int, font: Path | None) -> Iterator[Case]:
    """Yield planted texts of random cells, each in one of the carriers; where the range lacks contrast, anew."""
    rng = np.random.default_rng(seed)
    scripts = [INITIALS, *(name for name in SCRIPTS if font or name in OF_DEJAVU)]
    made = 0
    while made < count:
        carrier = carriers[int(rng.integers(len(carriers)))]
        case = _case(carrier, rng, LOOKS[made % len(LOOKS)], scripts, font)
        if case is not None:
            made += 1
            yield case


def _case(carrier: Carrier, rng: np.random.Generator, look: str, scripts: list[str], font: Path | None) -> Case | None:
    kind = str(rng.choice(KINDS)) if rng.random() < 0.8 else str(rng.choice(scripts))
    latin = str(rng.choice([*FONTS, "default"]))
    face: str | Path = latin if kind in (*KINDS, INITIALS) else "sans" if kind in OF_DEJAVU or font is None else font
    size, contrast = int(rng.choice(SIZES)), float(rng.choice(CONTRASTS))
    dark, turns, place = bool(rng.random() < 0.4), int(rng.integers(4)), str(rng.choice(PLACES))
    texts = [phrase(kind, rng) for _ in range(3 if look == "lines" else 1)]
    inks = [drawn(text, face, size) for text in texts]
    if look == "skewed":
        inks = [skewed(ink, float(rng.uniform(-3, 3))) for ink in inks]
    apart = round(size * rng.uniform(1.1, 1.6))  # from line to line
    whole = max(ink.shape[0] for ink in inks) + apart * (len(inks) - 1), max(ink.shape[1] for ink in inks)
    height, width = whole if turns % 2 == 0 else whole[::-1]
    rows, columns = carrier.pixels.shape
    if height >= rows - 4 or width >= columns - 4:
        return None
    at = _place(place, (rows - height, columns - width), (height, width), rng)
    most = np.uint16((1 << carrier.bits) - 1)
    pixels, truth = most - carrier.pixels if look == "negative" else carrier.pixels, []
    for number, (text, ink) in enumerate(zip(texts, inks, strict=True)):
        corner = _corner(at, whole, (number * apart, 0), ink.shape, turns)
        try:
            pixels, line = plant(
                pixels,
                carrier.bits,
                ink,
                text,
                corner,
                contrast=contrast,
                dark=dark,
                turns=turns,
                plate=look == "plate",
            )
        except ValueError:  # a line of several lies outside
            continue
        if line.contrast < 0.999 * contrast:
            return None
        truth += [line] if line.shown >= SHOWN else []
    if not truth:
        return None
    if look == "negative":
        pixels, dark = most - pixels, not dark
    if look == "jpeg":
        pixels = compressed(pixels, carrier.bits, int(rng.integers(70, 96)))
    cell: dict[str, object] = {
        "size": size,
        "contrast": contrast,
        "tone": "dark" if dark else "light",
        "turns": turns,
        "place": place,
        "look": look,
        "kind": kind,
        "font": face if isinstance(face, str) else face.stem,
        "carrier": "synthetic" if carrier.name.startswith("synthetic") else "real",
    }
    return Case(cell, tuple(truth), pixels, carrier.bits)


def _corner(
    at: tuple[int, int], whole: tuple[int, int], offset: tuple[int, int], ink: tuple[int, ...], turns: int
) -> tuple[int, int]:
    """Return the corner of a line after turning a block of lines, whose corner then is `at`, by quarters."""
    (top, left), (height, width) = offset, ink
    down, right = whole[0] - top - height, whole[1] - left - width
    turned = ((top, left), (right, top), (down, right), (left, down))[turns % 4]
    return at[0] + turned[0], at[1] + turned[1]


def _place(place: str, room: tuple[int, int], box: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Return the corner of a text: anywhere, one or two pixels from an edge, or with 10 to 40 % beyond it."""
    free = [int(rng.integers(1, side)) for side in room]
    if place != "inside":
        axis, far = int(rng.integers(2)), bool(rng.integers(2))
        beyond = int(rng.uniform(0.1, 0.4) * box[axis]) if place == "clipped" else -2
        free[axis] = room[axis] + beyond if far else -beyond
    return free[0], free[1]


def covered(truth: Sequence[Planted], findings: Sequence[Finding]) -> float:
    """Return the share of a text's box that lies in findings which would be blanked; the least of several lines."""
    return min(_covered(line, findings) for line in truth)


def _covered(truth: Planted, findings: Sequence[Finding]) -> float:
    inside = np.zeros((truth.height, truth.width), np.bool_)
    for f in findings:
        if f.kind != "marker":
            top, left = max(f.top - truth.top, 0), max(f.left - truth.left, 0)
            inside[top : max(f.top + f.height - truth.top, 0), left : max(f.left + f.width - truth.left, 0)] = True
    return float(inside.mean())


def read_back(pixels: Pixels, truth: Planted, turns: int) -> int:
    """Return how many characters of a text Tesseract reads where it was, in runs of two or more.

    Raises
    ------
    FileNotFoundError
        Without the program `tesseract`.
    """
    program = shutil.which("tesseract")
    if program is None:
        raise FileNotFoundError("What is left after blanking is read by Tesseract: apt-get install tesseract-ocr.")
    margin = 20
    top, left = max(truth.top - margin, 0), max(truth.left - margin, 0)
    part = pixels[top : truth.top + truth.height + margin, left : truth.left + truth.width + margin].astype(np.float32)
    part = np.rot90(part, -turns)
    low, high = float(part.min()), float(part.max())
    grey = Image.fromarray(((part - low) / max(high - low, 1) * 255).astype(np.uint8))
    factor = 3 if min(truth.height, truth.width) < 40 else 1
    grey = grey.resize((grey.width * factor, grey.height * factor), Image.Resampling.BICUBIC)
    file = BytesIO()
    grey.save(file, "PNG")
    done = subprocess.run(
        [program, "-", "-", "--psm", "7"],
        input=file.getvalue(),
        capture_output=True,
        check=True,
        env={"OMP_THREAD_LIMIT": "1"},
    )
    blocks = difflib.SequenceMatcher(None, truth.text, done.stdout.decode(), autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks if block.size >= 2)

"""Stage two, for candidates only: what a text recogniser makes of them. It needs the extra `ocr`.

The recogniser is PP-OCRv6 (Apache-2.0), whose file is inside the wheel of `rapidocr`. It is run by ONNX Runtime without
the rest of that package, which would start a thread for each core, and fetch models that it does not find.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shardkit.burned_in.boxes import Box
from shardkit.errors import ArgumentError

Pixels = npt.NDArray[np.uint16]

_HEIGHT = 48  # pixels of a line, as the recogniser wants it
_WIDEST = 1600
_MODEL = "PP-OCRv6_rec_small.onnx"


@dataclass(frozen=True)
class Reading:
    """What was read; it is never written anywhere.

    Parameters
    ----------
    text : str
        The line.
    confidence : float
        Mean of the characters' probabilities, 0 to 1; 0 where nothing was read.
    begin, end : float
        Where its characters lie along the line, 0 to 1 from the box's left, or top where it is not upright.
    turned : bool
        It stands on its head, or, where its box is not upright, reads from below.
    """

    text: str
    confidence: float
    begin: float = 0.0
    end: float = 1.0
    turned: bool = False


def read(pixels: Pixels, box: Box, turned: bool | None = None) -> Reading:
    """Read a candidate along its line, in both senses; the better is returned.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image.
    box : Box
        The candidate.
    turned : bool, optional
        The sense that is known, as of a part of a line that was read: many letters are others on their head.

    Raises
    ------
    ArgumentError
        Without the extra, or when its wheel has another model.
    """
    line = _line(pixels, box)
    senses = (False, True) if turned is None else (turned,)
    session, characters = _recogniser()
    batch = np.stack([line[::-1, ::-1] if back else line for back in senses]).astype(np.float32) / 127.5 - 1
    batch = np.ascontiguousarray(np.broadcast_to(batch[:, None], (len(senses), 3, *line.shape)))
    (chances,) = session.run(None, {session.get_inputs()[0].name: batch})
    found = [_decoded(each, characters) for each in chances]
    found = [
        replace(read, begin=1 - read.end, end=1 - read.begin, turned=True) if back else read
        for back, read in zip(senses, found, strict=True)
    ]
    return max(found, key=lambda read: read.confidence * min(len(read.text), 4))


def _line(pixels: Pixels, box: Box) -> npt.NDArray[np.uint8]:
    """Return the candidate with a margin as a line of 48 pixels, dark letters on light."""
    margin = max(2, min(box.height, box.width) // 6)
    top, left = max(box.top - margin, 0), max(box.left - margin, 0)
    part = pixels[top : box.top + box.height + margin, left : box.left + box.width + margin].astype(np.float32)
    if not box.upright:
        part = np.rot90(part)
    low, high = np.percentile(part, (1, 99))
    part = np.clip((part - low) / max(high - low, 1), 0, 1) * 255
    width = min(max(round(part.shape[1] * _HEIGHT / part.shape[0]), _HEIGHT), _WIDEST)
    grey = Image.fromarray((255 - part if box.light else part).astype(np.uint8))
    return np.asarray(grey.resize((width, _HEIGHT), Image.Resampling.BILINEAR))


@cache
def _recogniser() -> tuple[Any, list[str]]:
    """Return the session, on one thread, and the characters of its classes; class 0 is none."""
    try:
        import onnxruntime

        wheel = metadata.distribution("rapidocr")
    except (ImportError, metadata.PackageNotFoundError) as error:
        raise ArgumentError("Reading text in images needs the extra ocr: pip install 'shardkit[ocr]'.") from error
    path = wheel.locate_file(f"rapidocr/models/{_MODEL}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    except Exception as error:  # ONNX Runtime has exceptions of its own for each state
        raise ArgumentError(f"{path}: the recogniser cannot be loaded; install rapidocr 3.10 again. {error}") from error
    return session, ["", *names, " "]


def _decoded(chances: npt.NDArray[np.float32], characters: list[str]) -> Reading:
    """Take the best class of each place, and drop repeats and none."""
    best = chances.argmax(1)
    kept = (best != 0) & np.concatenate(([True], best[1:] != best[:-1]))
    if not kept.any():
        return Reading("", 0.0)
    text = "".join(characters[n] if n < len(characters) else "" for n in best[kept])
    places = np.flatnonzero(best != 0)
    begin, end = float(places[0]) / len(best), float(places[-1] + 1) / len(best)
    return Reading(text.strip(), float(chances.max(1)[kept].mean()), begin, end)

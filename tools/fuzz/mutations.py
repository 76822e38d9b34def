"""Mutants: what goes wrong with a file, drawn at random; each a pure function of (seed, index)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom.uid as uids

from tools.fuzz.damage import ON_FILE, ON_PIXELS
from tools.fuzz.draft import Unfit, draft_of, written
from tools.fuzz.headers import FRAMING, HEADER
from tools.fuzz.markers import ON_MARKERS
from tools.fuzz.seeds import POOL, Seed, real, synthetic

Rng = np.random.Generator
_REAL_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file.

    Attributes
    ----------
    index
        Its number in the run.
    codec, seed
        Codec and name of the sound file that it was.
    what
        What was done to it, in order.
    data
        Its bytes.
    """

    index: int
    codec: str
    seed: str
    what: tuple[str, ...]
    data: bytes


def mutant(seed: int, index: int, folder: Path | None = None) -> Mutant:
    """Make a mutant of a run, the same whatever else is made.

    Parameters
    ----------
    seed, index
        Of the run, and of the mutant.
    folder
        A folder of real files, which join in.
    """
    rng = np.random.default_rng((seed, index))
    number, share = int(rng.integers(POOL)), rng.random()
    found = real(folder) if folder is not None else ()
    source = found[int(rng.integers(len(found)))]() if found and share < _REAL_SHARE else synthetic(number)
    for _ in range(20):
        try:
            return _mutant(source, index, rng)
        except Unfit:
            continue
    raise AssertionError(f"no mutation goes with {source.name}")


def _mutant(source: Seed, index: int, rng: Rng) -> Mutant:
    draft = draft_of(source)
    on_file: list[Callable[[bytes, Rng], tuple[str, bytes]]] = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.75, 0.2, 0.05]))):
        family = rng.choice(["pixels", "markers", "header", "framing", "file"], p=[0.38, 0.22, 0.18, 0.1, 0.12])
        if family == "file":
            on_file.append(ON_FILE[int(rng.integers(len(ON_FILE)))])
        elif family == "header":
            draft.done.append(HEADER[int(rng.integers(len(HEADER)))](draft, rng))
        elif family == "framing":
            draft.done.append(FRAMING[int(rng.integers(len(FRAMING)))](draft, rng))
        elif family == "markers" and not draft.native and str(source.syntax) != uids.RLELossless:
            change = ON_MARKERS[int(rng.integers(len(ON_MARKERS)))](draft.pixels, rng)
            if change is None:
                raise Unfit
            draft.done.append(change[0])
            draft.pixels = change[1]
        else:
            what, draft.pixels = ON_PIXELS[int(rng.integers(len(ON_PIXELS)))](draft.pixels, rng)
            draft.done.append(what)
    data = written(draft)
    for change_file in on_file:
        what, data = change_file(data, rng)
        draft.done.append(what)
    return Mutant(index, source.codec, source.name, tuple(draft.done), data)

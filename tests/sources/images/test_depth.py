"""Which bits count in 16-bit words: stated, or by evidence; a dark image is not made bright on a guess."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shardkit.sources.facts import FactsRow
from shardkit.synthetic.image_files import chunk, png


def reaching(top: int, times: int = 1) -> npt.NDArray[np.uint16]:
    """Return an image whose largest value is `top`, so many times."""
    values = np.random.default_rng(top).integers(0, max(1, top // 2), (64, 70)).astype(np.uint16)
    values[0, :times] = top
    return values


@pytest.mark.parametrize(
    ("top", "times", "bits", "flags"),
    [
        (4095, 40, 12, ("bits_by_evidence",)),
        (4095, 1, 12, ("bits_by_evidence",)),
        (3700, 1, 12, ("bits_by_evidence",)),
        (1023, 40, 10, ("bits_by_evidence",)),
        (16383, 2, 14, ("bits_by_evidence",)),
        (1023, 1, 16, ("bits_unsure",)),  # one pixel is no end of scale
        (1000, 40, 16, ("bits_unsure",)),
        (3300, 9, 16, ("bits_unsure",)),
        (300, 9, 16, ("bits_unsure",)),
        (2047, 40, 16, ("bits_unsure",)),  # no detector has 11 bits
        (16000, 9, 16, ("bits_unsure",)),
        (20000, 9, 16, ()),
        (65535, 9, 16, ()),
    ],
)
def test_bits_by_evidence(look: Any, top: int, times: int, bits: int, flags: tuple[str, ...]) -> None:
    values = reaching(top, times)
    told, found = look(png(values, 16))
    assert np.array_equal(found.pixels, values)
    assert (told.bits, found.bits, found.flags) == (16, bits, flags)


@pytest.mark.parametrize("top", [200, 3000, 4095])
def test_stated_bits_count_before_any_evidence(look: Any, top: int) -> None:
    values = reaching(top, 5)
    told, found = look(png(values, 16), facts=FactsRow(bits=12))
    assert (told.bits, found.bits, found.flags) == (12, 12, ())
    assert np.array_equal(found.pixels, values)
    _, found = look(png(values, 16, 0, chunk(b"sBIT", b"\x0c")))
    assert (found.bits, found.flags) == (12, ())
    _, found = look(png(values, 16), facts=FactsRow(bits=16))
    assert (found.bits, found.flags) == (16, ())


def test_values_above_the_stated_bits_raise_them_and_are_flagged_never_wrapped(look: Any) -> None:
    values = reaching(9000, 5)
    _, found = look(png(values, 16), facts=FactsRow(bits=12))
    assert np.array_equal(found.pixels, values)
    assert (found.bits, found.flags) == (14, ("values_exceed_bits",))


def test_a_table_cannot_state_more_bits_than_a_file_has(look: Any, chest: Any) -> None:
    told, found = look(png(chest(), 8), facts=FactsRow(bits=12))
    assert (told.bits, found.bits) == (8, 8)

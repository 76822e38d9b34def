"""Damaged files through a whole build: every file one verdict, and what is written is what other decoders read."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.fuzz import oracle
from tools.fuzz.campaign import Report, campaign, kinds
from tools.fuzz.draft import draft_of, written
from tools.fuzz.mutations import mutant
from tools.fuzz.rules import uniform
from tools.fuzz.seeds import SYNTAXES, synthetic

_FOLDER = Path(__file__).resolve().parents[4] / "shared" / "data" / "dicom"
REAL = _FOLDER if _FOLDER.is_dir() else None
CODECS = list(SYNTAXES)


def lines(report: Report) -> str:
    """Figures and findings, for whoever reads a failure; `python -m tools.fuzz` makes any of them again."""
    found = [str(one) for _, some in kinds(report.findings) for one in some[:5]]
    return "\n".join([report.table(), *found])


def check(report: Report, files: int) -> None:
    assert not report.findings, lines(report)
    totals = {codec: counts.total() for codec, counts in report.counts.items()}
    assert sum(totals.values()) == files
    assert set(totals) == set(CODECS)
    correct = sum(counts["equal"] + counts["within 1"] + counts["one agrees"] for counts in report.counts.values())
    assert correct > files // 5, lines(report)  # or the test would prove nothing


@pytest.mark.deep
def test_of_damaged_files_only_what_another_decoder_reads_is_written() -> None:
    check(campaign(seed=11, count=96), 96)


@pytest.mark.deep
@pytest.mark.parametrize("seed", [12, 14])  # of 13 one is a file that no other decoder takes: pixels as VR UN
def test_of_a_thousand_damaged_files_only_what_another_decoder_reads_is_written(seed: int) -> None:
    check(campaign(seed, 1000, REAL), 1000)


@pytest.mark.parametrize("codec", CODECS)
def test_sound_files_of_every_transfer_syntax_are_written_as_another_decoder_reads_them(judge: Any, codec: str) -> None:
    for number in range(CODECS.index(codec), 7 * len(CODECS), len(CODECS)):
        seed = synthetic(number)
        outcome = judge(data := written(draft_of(seed)))
        # Of a hundred pixels a side some look like a line of letters, which costs nothing but a look.
        flags = outcome.converted and tuple(f for f in outcome.converted.flags if f != "burned_in_suspect")
        assert (outcome.verdict, flags) == ("written", ()), f"{number} {seed.name}: {outcome.reason} {outcome.message}"
        pixels = np.load(BytesIO(outcome.converted.encoded.image))
        said = oracle.opinions(data, pixels, outcome.converted.facts["bits"], either_sense=False, deeper=False)
        assert {"equal", "within 1"} & {one.verdict for one in said}, f"{number} {seed.name}: {said}"


@pytest.mark.parametrize("codec", CODECS)
def test_the_oracle_objects_to_one_wrong_pixel_to_an_inverted_image_and_to_another_depth(codec: str) -> None:
    seed = synthetic(CODECS.index(codec))
    data = written(draft_of(seed))
    header = seed.dataset
    reading = next(one for one in oracle.readings(data) if one.decoder == "gdcm")
    assert reading.values is not None
    right, bits, near = uniform(reading.values, header, int(header.BitsStored), header.PixelRepresentation == 1)
    right = right.astype(np.uint16)
    wrong = right.copy()
    at = np.argwhere(~near)[7]
    wrong[tuple(at)] ^= 1 << (bits - 2)

    def said(pixels: np.ndarray, depth: int, either_sense: bool = False) -> str:
        opinions = oracle.opinions(data, pixels, depth, either_sense, False, ("gdcm",))
        return opinions[0].verdict

    inverse = np.uint16((1 << bits) - 1) - right
    assert said(right, bits) == "equal"
    assert said(wrong, bits) == said(inverse, bits) == said(right, bits - 1) == said(right[:, 1:], bits) == "differs"
    assert said(inverse, bits, either_sense=True) == "equal"


def test_a_mutant_depends_on_its_seed_and_index_alone() -> None:
    alone = mutant(3, 40)
    row = [mutant(3, index) for index in range(36, 44)]
    assert row[4] == alone
    assert len({one.data for one in row}) == len(row)
    assert mutant(4, 40).data != alone.data

"""What is read decides what a candidate is: text, a marker that stays, or nothing; without reading, its letters do."""

from __future__ import annotations

from dataclasses import fields
from importlib import metadata

import numpy as np
import numpy.typing as npt
import pytest

from shardkit.burned_in import detection, reading
from shardkit.burned_in.boxes import Box
from shardkit.burned_in.detection import find
from shardkit.burned_in.findings import Finding
from shardkit.burned_in.markers import is_marker
from shardkit.burned_in.reading import Reading
from shardkit.errors import ArgumentError
from shardkit.extras import has_ocr
from shardkit.synthetic.planted_text import drawn, plant
from shardkit.synthetic.radiographs import radiograph

Pixels = npt.NDArray[np.uint16]


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return radiograph(700, 620, 12, np.random.default_rng(3), "chest") // 2 + np.uint16(1000)


def with_text(picture: Pixels, text: str, size: int = 20, turns: int = 0) -> Pixels:
    return plant(picture, 12, drawn(text, "sans", size), text, (300, 150), contrast=0.7, turns=turns)[0]


def reads(monkeypatch: pytest.MonkeyPatch, *answers: Reading) -> None:
    """Let the recogniser answer these, the last one for ever."""
    left = list(answers)
    monkeypatch.setattr(reading, "read", lambda *asked: left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Reading("DOE JANE 1963", 0.99), "text"),
        (Reading("Bettaufnahme L", 0.9), "marker"),
        (Reading("weight bearing", 0.7), "marker"),
        (Reading("JKL", 0.85), "text"),  # initials of a radiographer
    ],
)
def test_a_candidate_is_what_is_read(
    picture: Pixels, monkeypatch: pytest.MonkeyPatch, answer: Reading, kind: str
) -> None:
    reads(monkeypatch, answer)
    assert [f.kind for f in find(with_text(picture, "QWXZK PLM"), 12, read=True)] == [kind]


def test_few_characters_have_to_be_read_surely(picture: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    few = with_text(picture, "HAB")  # three letters are no evidence by themselves
    reads(monkeypatch, Reading("XX", 0.79))
    assert find(few, 12, read=True) == []
    reads(monkeypatch, Reading("X", 0.99))
    assert find(few, 12, read=True) == []
    reads(monkeypatch, Reading("HAB", 0.81))
    assert [f.kind for f in find(few, 12, read=True)] == ["text"]


def test_what_looks_like_text_and_is_not_read_is_unreadable(picture: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    reads(monkeypatch, Reading("", 0.0))
    long = with_text(picture, "QWXZKPLMNB")
    assert [f.kind for f in find(long, 12, read=True)] == ["unreadable"]
    assert [f.kind for f in find(long, 12, read=False)] == ["unreadable"]
    assert find(with_text(picture, "HAB"), 12, read=True) == []


def test_part_of_a_marker_is_a_marker_when_the_rest_is_read_with_it(
    picture: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = with_text(picture, "QWXZKPLM")
    reads(monkeypatch, Reading("able", 0.9), Reading("PORTABLE", 0.9, 0.2, 0.8))
    assert [f.kind for f in find(pixels, 12, read=True)] == ["marker"]
    reads(monkeypatch, Reading("able", 0.9), Reading("able Smith", 0.9, 0.2, 0.8))
    found = find(pixels, 12, read=True)
    assert [f.kind for f in found] == ["text"]
    (alone,) = find(pixels, 12, read=False)
    assert found[0].width > alone.width, "the box takes in what was read beside it"


SIDE_BY_SIDE = [  # the words between wide gaps, and which of them stay
    (("L", "MKS"), (True, False)),
    (("JKL", "R"), (False, True)),
    (("PORTABLE", "Smith 12"), (True, False)),
    (("AP", "KW 12", "ERECT"), (True, False, True)),
]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize(("words", "stay"), SIDE_BY_SIDE)
def test_a_marker_beside_other_text_stays_and_the_text_does_not(
    picture: Pixels, words: tuple[str, ...], stay: tuple[bool, ...], turns: int
) -> None:
    """Needs the extra `ocr`."""
    inks = [drawn(word, "bold", 20) for word in words]
    tall = max(ink.shape[0] for ink in inks)
    parts = [np.pad(ink, ((tall - ink.shape[0], 0), (0, 28))) for ink in inks]
    line = np.concatenate(parts, 1)
    pixels, _ = plant(picture, 12, line, "", (120, 110), contrast=0.7, turns=turns)
    found = [f for f in find(pixels, 12, read=True) if f.kind != "marker"]
    covers = np.zeros(picture.shape, np.bool_)
    for f in found:
        covers[f.top : f.top + f.height, f.left : f.left + f.width] = True
    height, width = line.shape if turns % 2 == 0 else line.shape[::-1]
    seen = np.rot90(covers[120 : 120 + height, 110 : 110 + width], -turns)
    starts = np.cumsum([0, *(part.shape[1] for part in parts)])
    shares = [seen[:, at : at + ink.shape[1]].mean() for at, ink in zip(starts, inks, strict=False)]
    assert [share < 0.2 for share in shares] == list(stay), shares
    assert [share > 0.7 for share in shares] == [not each for each in stay], shares


def test_two_lone_letters_beside_a_text_may_be_initials(picture: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "pieces", lambda pixels, box: [box, box, box])
    whole = (Reading("L M AP", 0.9), Reading("L M AP", 0.9))  # the line, and its surroundings
    pixels = with_text(picture, "QWXZKPLM")
    reads(monkeypatch, *whole, Reading("L", 0.99), Reading("MKS", 0.99), Reading("AP", 0.99))
    assert [f.kind for f in find(pixels, 12, read=True)] == ["marker", "text", "marker"]
    reads(monkeypatch, *whole, Reading("L", 0.99), Reading("M", 0.99), Reading("AP", 0.99))
    assert [f.kind for f in find(pixels, 12, read=True)] == ["text", "marker"]


def test_text_beyond_a_marker_is_found_too() -> None:
    """Needs the extra `ocr`."""
    pixels = np.full((200, 600), 1000, np.uint16)
    for text, left in (("PORTABLE", 60), ("MK", 205)):
        pixels, _ = plant(pixels, 12, drawn(text, "sans", 20), text, (90, left), contrast=1000)
    kinds = {(f.kind, f.left > 190) for f in find(pixels, 12, read=True)}
    assert kinds == {("marker", False), ("text", True)}


def test_no_finding_and_no_box_holds_text() -> None:
    assert {f.name for f in fields(Finding)} == {"top", "left", "height", "width", "kind", "confidence"}
    assert not any("str" in str(f.type) for f in fields(Box))


@pytest.mark.parametrize("region", ["chest", "hand", "knee"])
def test_radiographs_without_text_are_never_read(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pixels: Pixels, box: Box, turned: bool | None = None) -> Reading:
        raise AssertionError("read")

    monkeypatch.setattr(reading, "read", refuse)
    assert find(radiograph(800, 700, 12, np.random.default_rng(8), region), 12, read=True) == []


def test_at_most_some_candidates_are_read(picture: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Box] = []
    box = Box(0, 0, 20, 200, True, True, 3, 0.2)
    monkeypatch.setattr(detection, "candidates", lambda pixels, bits: [box] * 50)

    def read(pixels: Pixels, box: Box, turned: bool | None = None) -> Reading:
        asked.append(box)
        return Reading("", 0.0)

    monkeypatch.setattr(reading, "read", read)
    assert find(picture, 12, read=True) == []
    assert len(asked) == detection.MOST


@pytest.mark.parametrize("extreme", [False, True])
def test_what_was_seen_in_one_grey_level_alone_is_nothing_unless_it_is_read(
    picture: Pixels, monkeypatch: pytest.MonkeyPatch, extreme: bool
) -> None:
    box = Box(300, 150, 20, 160, True, True, 12, 0.9, extreme)
    monkeypatch.setattr(detection, "candidates", lambda pixels, bits: [box])
    assert bool(find(picture, 12, read=False)) is not extreme
    reads(monkeypatch, Reading("DOE JANE", 0.95))
    assert [f.kind for f in find(picture, 12, read=True)] == ["text"]


def test_without_the_extra_reading_says_what_to_install(picture: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(metadata, "distribution", absent)
    reading._recogniser.cache_clear()
    assert not has_ocr()
    with pytest.raises(ArgumentError, match=r"pip install 'shardkit\[ocr\]'"):
        find(with_text(picture, "DOE JANE"), 12, read=True)
    assert [f.kind for f in find(with_text(picture, "DOE JANE 1963"), 12)] == ["unreadable"]


@pytest.mark.parametrize(
    "text",
    [
        "L",
        "r",
        "AP",
        "PA Portable",
        "WEIGHT-BEARING",
        "Bettaufnahme",
        "Rettaufnahme",
        "liegendL",
        "Ap Sitting On Wheelchair.",
    ],
)
def test_words_of_how_an_image_was_taken_are_markers(text: str) -> None:
    assert is_marker(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " .",
        "JKL",
        "L R",
        "Li Long",
        "Nobile",
        "Cross",
        "L JKL",
        "L 1234",
        "Smith",
        "PORTER",
        "Auf Station 7",
        "AP 12.03.1961",
        "Ward",
        "Lapp",
        "PORT4BLE",
    ],
)
def test_anything_else_is_not(text: str) -> None:
    assert not is_marker(text)


def test_two_letters_alone_are_read_surely_from_the_front_or_from_behind(
    picture: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = with_text(picture, "HS", 32)
    unsure, nothing = Reading("HS", 0.89), Reading("", 0.0)
    for answers, kinds in (
        ((Reading("HS", 0.91),), ["text"]),
        ((Reading("AP", 0.95),), ["marker"]),
        ((unsure, Reading("ZH", 0.91)), ["text"]),
        ((unsure, unsure), []),
        ((unsure, Reading("9A", 0.5)), []),
        ((unsure, Reading("AP", 0.99)), []),  # a marker from behind stays, and need not be named
        ((Reading("00", 0.99), nothing), []),  # rings
        ((Reading("H", 0.99), nothing), []),
        ((Reading("HSKLM", 0.99), nothing), []),
    ):
        reads(monkeypatch, *answers)
        assert [f.kind for f in find(few, 12, read=True)] == kinds, answers
    assert find(few, 12, read=False) == []


def test_letters_of_lead_are_found_though_the_image_is_mirrored(picture: Pixels) -> None:
    ink = drawn("RF", "bold", 36)
    for mirrored in (ink, ink[:, ::-1]):
        pixels, truth = plant(picture, 12, mirrored, "RF", (300, 150), contrast=0.9)
        (found,) = find(pixels, 12)
        assert found.kind == "text"
        assert abs(found.left - truth.left) <= 4
        assert abs(found.width - truth.width) <= 8

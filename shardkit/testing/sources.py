"""The contract of sources of images, as a check for any: what it tells of an image is what decoding gives.

def test_my_source(tmp_path):
    ...  # write some images to tmp_path, sound and broken ones
    assert_image_source(MySource(FileTree(str(tmp_path))))
"""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from shardkit.errors import Verdict
from shardkit.sources.base import Decoded, ImageFacts, ImageSource, Invert
from shardkit.sources.entries import Entry
from shardkit.triage import DROPS, QUARANTINES

T = TypeVar("T")


def assert_image_source(source: ImageSource, least: int = 1) -> None:
    """Check that a source does all that `shardkit.sources.base` says, with the files that it has.

    It lists the same names twice, sorted; an image's header tells what decoding gives; equal bytes give equal images;
    files that are cut short or damaged end in a verdict with a known code and words that do not repeat the file's name.

    Parameters
    ----------
    source : ImageSource
        A source of small files: each is decoded some twenty times.
    least : int
        Images that must be found.

    Raises
    ------
    AssertionError
        Says what is wrong.
    """
    source = pickle.loads(pickle.dumps(source))  # as worker processes get it
    entries = [one for entry in source.list() for one in _split(source, entry)]
    assert entries == [one for entry in source.list() for one in _split(source, entry)], (
        "it lists other entries the second time"
    )
    paths = [entry.path for entry in entries]
    assert paths == sorted(set(paths)), "its entries are not sorted by path, or one is listed twice"
    images = 0
    for entry in (one for one in entries if one.kind == "file"):
        data = source.read(entry)
        facts = _judged(lambda entry=entry: source.inspect(entry), entry)  # type: ignore[misc]
        loaded = _judged(lambda entry=entry, data=data: source.load(entry, data), entry)  # type: ignore[misc]
        if facts is None or loaded is None:
            assert (facts is None) == (loaded is None), (
                f"{_name(entry)}: its header and its bytes get different verdicts"
            )
            continue
        assert loaded.facts == facts, f"{_name(entry)}: its bytes tell other facts than its header alone"
        images += _decodes(source, entry, data, facts)
        _assert_damage_gets_verdicts(source, entry, data)
    assert images >= least, f"{images} of {len(entries)} entries are images, and {least} must be"


def _split(source: ImageSource, entry: Entry) -> list[Entry]:
    """Return the images of a file, or the file where it gets a verdict before it is known which they are."""
    found = _judged(lambda: source.split(entry), entry) if entry.kind == "file" else None
    return [entry] if found is None else list(found)


def _name(entry: Entry) -> str:
    return entry.path.decode("utf-8", "backslashreplace")


def _judged(call: Callable[[], T], entry: Entry) -> T | None:
    """Return what a call returns, None where it ends in a sound verdict."""
    try:
        return call()
    except Verdict as verdict:
        _assert_sound(verdict, _name(entry))
        return None
    except Exception as error:
        raise AssertionError(f"{_name(entry)}: {type(error).__name__}, not a verdict") from error


def _assert_sound(verdict: Verdict, name: str) -> None:
    codes, stem = DROPS if verdict.verdict == "dropped" else QUARANTINES, name.rpartition("/")[2]
    assert verdict.reason in codes, f"{name}: {verdict.verdict} with the unknown code {verdict.reason}"
    assert verdict.message, f"{name}: a verdict without words"
    assert len(stem) < 5 or stem not in verdict.message, f"{name}: its verdict repeats the file's name"


def _decodes(source: ImageSource, entry: Entry, data: bytes, facts: ImageFacts) -> bool:
    """Whether the image decodes, checked as far as it does."""
    found = _judged(lambda: _decode(source, entry, data, "full"), entry)
    if found is None:
        return False
    what, pixels = _name(entry), found.pixels
    assert pixels.dtype == np.uint16, f"{what}: pixels are {pixels.dtype}, not uint16"
    wanted = (facts.height, facts.width)
    assert pixels.shape == wanted, f"{what}: {pixels.shape} pixels, and its header tells {wanted}"
    assert 1 <= found.bits <= 16, f"{what}: {found.bits} bits"
    assert int(pixels.max(initial=0)) < 1 << found.bits, f"{what}: a value above its {found.bits} bits"
    assert 0 <= found.padding <= 1, f"{what}: {found.padding} is no share of padding"
    assert found.decoder, f"{what}: does not say what decoded it"
    again, other = _decode(source, entry, bytes(data), "full"), _decode(source, entry, data, "imagemax")
    assert np.array_equal(again.pixels, pixels), f"{what}: decoded twice, it is two images"
    assert other.inverted == found.inverted, f"{what}: the way to invert decides whether it is inverted"
    if not found.inverted:
        assert np.array_equal(other.pixels, pixels), f"{what}: not inverted, but the way to invert changes it"
    return True


def _decode(source: ImageSource, entry: Entry, data: bytes, invert: Invert) -> Decoded:
    return source.load(entry, data).decode(invert)


def _assert_damage_gets_verdicts(source: ImageSource, entry: Entry, data: bytes) -> None:
    for what, damaged in _damages(data):
        changed = replace(entry, size=len(damaged))
        try:
            _judged(lambda c=changed, d=damaged: _decode(source, c, d, "full"), entry)  # type: ignore[misc]
        except AssertionError as error:
            raise AssertionError(f"{error} ({what})") from error


def _damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    for kept in (0, 1, len(data) // 4, len(data) // 2, len(data) - 1):
        yield f"cut to {kept} of {len(data)} bytes", data[:kept]
    yield "overwritten", b"\x5a" * len(data)
    chance = np.random.default_rng(2)
    for at in chance.integers(0, max(1, min(len(data), 1024)), 8).tolist():
        yield f"byte {at} damaged", data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]

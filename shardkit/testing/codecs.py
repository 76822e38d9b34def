"""The contract of codecs, as a check for any: what it says of an image is the image, and bad bytes are named as such.

def test_my_codec():
    assert_codec(my_codec)
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from shardkit.codecs.base import Codec, CodestreamCodec, Pixels
from shardkit.codecs.placement import Placement
from shardkit.errors import ArgumentError, IntegrityError

_SIZES = ((1, 1), (1, 97), (65, 2), (150, 131))
_DEPTHS = (1, 8, 12, 16)


def assert_codec(codec: Codec) -> None:
    """Check that a codec does all that `shardkit.codecs.base` says.

    Images of one pixel to some thousands, of 1 to 16 bits, smooth, noisy and of extremes, come back exactly; prefixes
    give the smaller images that all bytes give; bytes of another image and damaged ones end in IntegrityError.

    Parameters
    ----------
    codec : Codec
        The module.

    Raises
    ------
    AssertionError
        It does not; the message says what is wrong.
    """
    for number, pixels in enumerate(pictures()):
        bits, placement = _DEPTHS[number % len(_DEPTHS)], _placement(pixels)
        what = f"{codec.NAME}, {pixels.shape[0]} x {pixels.shape[1]} pixels of {bits} bits"
        data = _encoded(codec, pixels, bits, placement, what)
        _assert_levels(codec, data, bits, placement, what)
        _assert_claims(codec, data, placement, what)
        if isinstance(codec, CodestreamCodec):
            _assert_codestream(codec, data, placement, what)
    _assert_damage_is_named(codec, data, bits, placement, what)


def pictures() -> Iterator[Pixels]:
    """Give images of sizes, kinds and depths that codecs have stumbled over, of 1, 8, 12 and 16 bits in turn."""
    rng = np.random.default_rng(0)
    for height, width in _SIZES:
        rows, cols = np.indices((height, width))
        for kind in (
            rng.integers(0, 1 << 16, (height, width)),
            rows * 373 + cols * 149,
            (rows + cols // 2) % 2 * 65535,
        ):
            for bits in _DEPTHS:
                yield (kind % (1 << 16) >> (16 - bits)).astype(np.uint16)


def _placement(pixels: Pixels) -> Placement:
    height, width = pixels.shape
    return Placement(height, width, height + 5, width + 3)


def _encoded(codec: Codec, pixels: Pixels, bits: int, placement: Placement, what: str) -> bytes:
    data = codec.encode(pixels, placement)
    assert isinstance(data, bytes), f"{what}: encode gave {type(data).__name__}, not bytes"
    assert codec.encode(pixels.copy(), placement) == data, f"{what}: equal pixels became different bytes"
    turned = np.asfortranarray(pixels[::-1])[::-1]
    assert codec.encode(turned, placement) == data, f"{what}: another memory layout became different bytes"
    back = codec.decode(data, 0, bits, placement)
    assert back.dtype == np.uint16, f"{what}: decode gave {back.dtype}, not uint16"
    assert np.array_equal(back, pixels), f"{what}: did not come back exactly"
    if codec.NEEDS_PLACEMENT:
        _assert_raises(ArgumentError, lambda: codec.decode(data, 0, bits), f"{what}, decoded without a placement")
    else:
        assert np.array_equal(codec.decode(data, 0, bits), pixels), f"{what}: is another image without its placement"
    return data


def _assert_levels(codec: Codec, data: bytes, bits: int, placement: Placement, what: str) -> None:
    lengths, (fewest, most) = codec.prefixes(data), codec.LEVELS_IN_STREAM
    assert fewest <= len(lengths) - 1 <= most, f"{what}: {len(lengths) - 1} levels, and {fewest} to {most} are told"
    assert lengths[0] == len(data), f"{what}: its first prefix is not all of it"
    assert lengths == sorted(lengths, reverse=True), f"{what}: a prefix is longer than that of a larger image"
    for level, length in enumerate(lengths):
        small, of = codec.decode(data[:length], level, bits, placement), placement.at(level)
        assert small.shape == (of.height, of.width), f"{what}: level {level} has {small.shape}, not rounded-up halves"
        assert int(small.max()) < 1 << bits, f"{what}: level {level} leaves the image's range"
        assert np.array_equal(small, codec.decode(data, level, bits, placement)), (
            f"{what}: prefix {level} is another image"
        )
    if not codec.NEEDS_PLACEMENT:
        beyond = len(lengths)
        _assert_raises((ArgumentError, IntegrityError), lambda: codec.decode(data, beyond, bits), f"{what}, no level")


def _assert_claims(codec: Codec, data: bytes, placement: Placement, what: str) -> None:
    codec.check(data, placement)
    for other in (
        replace(placement, height=placement.height + 1, rows=placement.rows + 1),
        replace(placement, width=placement.width + 1, cols=placement.cols + 1),
    ):
        said = f"{what}, taken for an image of {other.height} x {other.width}"
        _assert_raises(IntegrityError, lambda other=other: codec.check(data, other), said)  # type: ignore[misc]
        _assert_raises(IntegrityError, lambda other=other: codec.decode(data, 0, 16, other), said)  # type: ignore[misc]


def _assert_codestream(codec: CodestreamCodec, data: bytes, placement: Placement, what: str) -> None:
    lengths = codec.prefixes(data)
    found = codec.fault(data, placement.height, placement.width, lengths)
    assert found is None, f"{what}: is no {codec.SYNTAX_NAME}: {found}"
    other = codec.fault(data, placement.height + 1, placement.width, lengths)
    assert other is not None, f"{what}: passes for {codec.SYNTAX_NAME} of another image"
    assert codec.enough(placement.height, placement.width, len(lengths) - 1), f"{what}: has too few levels"
    for level, length in enumerate(lengths):
        whole, of = codec.standalone(data[:length], level), placement.at(level)
        assert codec.decode(whole).shape == (of.height, of.width), f"{what}: level {level} does not stand alone"


def _assert_damage_is_named(codec: Codec, data: bytes, bits: int, placement: Placement, what: str) -> None:
    for kept in (0, 1, len(data) // 4, len(data) // 2, 3 * len(data) // 4):
        said = f"{what}, cut to {kept} of {len(data)} bytes"
        _assert_raises(IntegrityError, lambda kept=kept: codec.decode(data[:kept], 0, bits, placement), said)  # type: ignore[misc]
    _assert_raises(
        IntegrityError, lambda: codec.decode(b"\x5a" * len(data), 0, bits, placement), f"{what}, overwritten"
    )
    rng = np.random.default_rng(1)
    for at in [*range(min(24, len(data))), *rng.integers(0, len(data), 40).tolist()]:
        damaged = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        try:  # whether it shows depends on the codec: readers hold hashes against bytes first
            shape = codec.decode(damaged, 0, bits, placement).shape
        except IntegrityError:
            continue
        except Exception as error:
            raise AssertionError(f"{what}, damaged at byte {at}: {type(error).__name__}, not IntegrityError") from error
        assert shape == (placement.height, placement.width), f"{what}, damaged at byte {at}: an image of another size"


def _assert_raises(kinds: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object], what: str) -> None:
    wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    try:
        call()
    except kinds:
        return
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}, not {wanted}") from error
    raise AssertionError(f"{what}: no {wanted}")

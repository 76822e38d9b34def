"""Thumbnails, hashes and statistics to the last bit, and borders."""

from __future__ import annotations

import numpy as np
import pytest

from shardkit import content


def test_a_thumbnail_is_the_area_mean_stretched_to_its_range() -> None:
    small = np.arange(64 * 96, dtype=np.float32).reshape(64, 96)
    got = content.thumbnail(small)
    means = small.reshape(32, 2, 32, 3).mean((1, 3))
    want = np.rint((means - means.min()) * 255 / (means.max() - means.min()))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, want)
    assert (got.min(), got.max()) == (0, 255)
    assert content.thumbnail(np.full((64, 64), 7, np.float32)).max() == 0


def test_sides_that_are_no_multiple_of_32_are_cut_into_parts_as_even_as_can_be() -> None:
    small = np.repeat(np.arange(33, dtype=np.float32)[:, None], 32, axis=1)
    rows = content._resize(small)[:, 0]
    np.testing.assert_array_equal(rows, [*range(31), 31.5])


def test_a_thumbnail_of_less_than_32_pixels_repeats_the_nearest() -> None:
    small = np.array([[0, 1, 3]], np.float32)
    got = content.thumbnail(small)
    np.testing.assert_array_equal(got, np.tile(np.repeat([0, 85, 255], [11, 10, 11]), (32, 1)))


def test_a_hash_has_the_bits_that_it_always_had() -> None:
    rows, cols = np.mgrid[:32, :32]
    thumb = ((rows * rows * 3 + cols * 7 + (rows // 5) * (cols // 3) * 11) % 256).astype(np.uint8)
    found = content.perceptual_hash(thumb)
    assert found == 2751059512562520631
    assert 20 <= found.bit_count() <= 32  # above the median: at most half


# ---- content


def test_contrast_leaves_out_a_hundredth_at_either_end() -> None:
    assert content._span(np.arange(1000, dtype=np.float32)) == 979
    assert content._span(np.arange(99, dtype=np.float32)) == 98
    assert content._span(np.arange(100, dtype=np.float32)) == 97
    assert content._span(np.zeros(0, np.float32)) == 0


def test_a_picture_of_one_grey_level_has_no_content_and_loses_nothing() -> None:
    found = content.find_content(np.full((70, 50), 9, np.uint16))
    assert (found.box, found.area) == (content.Box(0, 0, 70, 50), 0.0)
    assert (found.structure, found.contrast) == (1.0, 0.0)
    assert found.mask.shape == (70, 50)
    assert found.mask.all()


def test_grey_level_zero_inside_is_content_unless_it_is_padding() -> None:
    pixels = np.random.default_rng(0).integers(1000, 3000, (90, 90)).astype(np.uint16)
    pixels[30:60, 30:60] = 0
    found = content.find_content(pixels)
    assert found.mask.all()
    assert found.area == 1
    padded = content.find_content(pixels, padded=True)
    assert not padded.mask[29:61, 29:61].any()
    assert padded.area == 1 - 900 / 8100


@pytest.mark.parametrize("turns", range(4), ids=["top", "left", "bottom", "right"])
@pytest.mark.parametrize("thick", [2, 9])
def test_a_border_on_one_side_alone_is_cut(turns: int, thick: int) -> None:
    pixels = np.random.default_rng(0).integers(1000, 3000, (200, 200)).astype(np.uint16)
    pixels[:thick] = 0
    found = content.find_content(np.rot90(pixels, turns)).box
    long, rest = 200, 200 - thick
    assert found == [
        content.Box(thick, 0, rest, long), content.Box(0, thick, long, rest),
        content.Box(0, 0, rest, long), content.Box(0, 0, long, rest),
    ][turns]  # fmt: skip


def test_a_noisy_border_is_cut_around_a_field_of_few_grey_levels_far_above_it() -> None:
    """Once the border is known a little, what is left shows how far its levels may lie apart."""
    rng = np.random.default_rng(1)
    pixels = 300 + np.abs(rng.normal(0, 3, (120, 120)))
    pixels[30:90, 30:90] = 30000 + rng.integers(0, 20, (60, 60))
    assert content.find_content(pixels.astype(np.uint16)).box == content.Box(30, 30, 60, 60)


def test_grown_and_opened_masks_are_those_of_scipy() -> None:
    from scipy import ndimage

    mask = np.random.default_rng(0).random((60, 50)) < 0.8
    square = np.ones((3, 3), bool)
    np.testing.assert_array_equal(content._grown(mask), ndimage.binary_dilation(mask, square))
    np.testing.assert_array_equal(
        content._grown(mask, edge=True), ndimage.binary_dilation(mask, square, border_value=1)
    )
    np.testing.assert_array_equal(content._opened(mask), ndimage.binary_opening(mask, square))


def test_means_of_three_by_three_go_on_beyond_the_edge() -> None:
    from scipy import ndimage

    values = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    np.testing.assert_allclose(content._averaged(values), ndimage.uniform_filter(values, 3, mode="nearest"), rtol=1e-5)


def test_levels_of_an_edge_are_its_two_commonest_that_fill_a_tenth() -> None:
    edge = np.array([5] * 50 + [5.5] * 4 + [90] * 30 + [200] * 16, np.float32)
    assert content._levels(edge, 1.0) == [5, 90]
    assert content._levels(edge[84:], 1.0) == [200]
    few = np.concatenate([np.full(9, 7), np.arange(100, 191) * 10]).astype(np.float32)
    assert content._levels(few, 1.0) == []
    few[9] = 7
    assert content._levels(few, 1.0) == [7]
    assert content._levels(np.zeros(0, np.float32), 1.0) == []


def test_statistics_are_those_of_all_blocks_of_the_mask() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (1030, 1600)).astype(np.uint16)
    mask = rng.random(content.reduce(pixels, content.ANALYSIS).shape) < 0.7
    side = -(-1600 // content.ANALYSIS)
    of = [np.minimum(np.arange(n) // side, blocks - 1) for n, blocks in zip(pixels.shape, mask.shape, strict=True)]
    wanted = pixels[mask[np.ix_(*of)]]
    found = content.statistics(pixels, mask)
    assert found.mean == pytest.approx(wanted.mean(), rel=1e-12)
    assert found.std == pytest.approx(wanted.std(), rel=1e-9)
    assert (found.min, found.max) == (wanted.min(), wanted.max())


def test_grey_level_zero_counts_unless_it_is_padding_beside_others() -> None:
    pixels = np.array([[0, 0, 0, 5, 7]], np.uint16)
    mask = np.ones(pixels.shape, bool)
    assert content.statistics(pixels, mask).min == 0
    padded = content.statistics(pixels, mask, padded=True)
    assert (padded.min, padded.max, padded.mean, padded.std) == (5, 7, 6.0, 1.0)
    assert content.statistics(pixels * 0, mask, padded=True).max == 0

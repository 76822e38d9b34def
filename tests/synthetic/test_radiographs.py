"""The synthetic radiographs have the published sizes and compress like real ones."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from shardkit.synthetic.phantom.anatomy import REGION_DRAWERS
from shardkit.synthetic.radiographs import REGIONS, radiograph, synth_sizes


def test_sizes_reproduce_the_published_quartiles_and_token_count() -> None:
    heights, widths, region = synth_sizes(200_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.percentile(heights, [25, 50, 75]), [1543, 2002, 2438], rtol=0.02)
    np.testing.assert_allclose(np.percentile(widths, [25, 50, 75]), [1117, 1417, 1852], rtol=0.02)
    tokens = -(-heights // 48) * -(-widths // 48)
    assert tokens.mean() == pytest.approx(1434, rel=0.01)
    assert region.min() >= 0
    assert region.max() == len(REGIONS) - 1
    assert max(heights.max(), widths.max()) <= 3072


@pytest.mark.deep
def test_lossless_ratios_spread_as_in_real_radiographs() -> None:
    heights, widths, region = synth_sizes(24, np.random.default_rng(1))
    ratios = []
    for i, (h, w, k) in enumerate(zip(heights, widths, region, strict=True)):
        image = radiograph(int(h), int(w), (10, 12, 14, 15)[i % 4], np.random.default_rng(i), REGIONS[k])
        ratios.append(image.nbytes / len(imagecodecs.htj2k_encode(image, reversible=True)))
    assert 1.4 < min(ratios) < 2.2
    assert 3.6 < max(ratios) < 6.0
    assert 2.2 < float(np.median(ratios)) < 3.6


@pytest.mark.parametrize("region", sorted(REGION_DRAWERS))
def test_every_region_draws_within_its_bits_and_repeatably(region: str) -> None:
    for bits, shape in ((8, (64, 64)), (12, (301, 200)), (15, (150, 420))):
        image = radiograph(*shape, bits, np.random.default_rng(7), region)
        assert image.shape == shape
        assert image.dtype == np.uint16
        assert image.max() < 2**bits
        assert image.std() > 0.05 * 2**bits, "there is something to see"
        np.testing.assert_array_equal(image, radiograph(*shape, bits, np.random.default_rng(7), region))


def test_bone_is_brighter_than_flesh_and_flesh_than_air() -> None:
    for seed in range(5):
        image = radiograph(800, 560, 12, np.random.default_rng(seed), "knee").astype(float)
        shaft, edge = image[560:640, 240:320].mean(), image[100:700, :20].mean()
        assert shaft > 1.5 * edge


def test_unknown_region_and_depth_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown region 'tail'"):
        radiograph(64, 64, 12, np.random.default_rng(0), "tail")
    with pytest.raises(ValueError, match="bits must be one of"):
        radiograph(64, 64, 11, np.random.default_rng(0))

"""What a loader hands out is the dataset's pixels: every level, layout, decoder and source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shardkit import Binned, Exact, Fixed, Loader, Packed, PackedBatch, Resized
from shardkit.build.transcode import Target, transcode
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.plan.crops import crops
from shardkit.plan.shuffle import key_of

LEVELS = range(6)
EVERYTHING: dict[str, Any] = {"split": None, "normalise": "none", "device": "cpu"}


@pytest.fixture(scope="module")
def real_url(request: pytest.FixtureRequest, real_dataset: Path, form: str, in_bucket: Any) -> str:
    return str(real_dataset) if request.param == "folder" else in_bucket(real_dataset, f"real-{form}")


@pytest.fixture(scope="module")
def converted(real_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real radiographs in Zarr shards."""
    out = tmp_path_factory.mktemp("converted") / "zarr"
    transcode(str(real_dataset), Target(str(out), "zarr", "blosc", 2, 8 << 20), 2)
    return out


@pytest.mark.formats
@pytest.mark.parametrize("real_url", ["folder", pytest.param("bucket", marks=pytest.mark.deep)], indirect=True)
def test_every_level_of_every_real_radiograph_is_exact_packed_and_binned(
    real_url: str, real_dataset: Path, decoder: Any, images_of: Any, pixels_of: Any
) -> None:
    for level in LEVELS:
        wanted = pixels_of(real_dataset, level)
        for batching in (
            Packed(tokens=32768, patch=16, level=level, per_step=1),
            Binned(batch_size=2, patch=16, level=level, per_step=2),
        ):
            found = images_of(Loader(real_url, batching=batching, decoder=decoder, **EVERYTHING))
            assert sorted(found) == sorted(wanted), "a sample is missing"
            for row, pixels in wanted.items():
                np.testing.assert_array_equal(found[row], pixels, err_msg=f"row {row}, level {level}, {batching}")


@pytest.mark.formats("webdataset")
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("batching", [Packed(tokens=32768, patch=16, per_step=1), Exact(patch=16, per_step=1)], ids=str)
def test_batches_of_both_formats_show_equal_pixels(
    real_dataset: Path, converted: Path, batching: Any, level: int, images_of: Any
) -> None:
    """By key: a plan follows from the manifest, and two manifests differ in where images lie."""

    def images(url: Path) -> dict[str, Any]:
        keys = ManifestIndex(str(url)).columns("key")["key"].to_pylist()
        found = images_of(Loader(url, batching=replace(batching, level=level), **EVERYTHING))
        return {keys[row]: image for row, image in found.items()}

    ours, theirs = images(real_dataset), images(converted)
    assert len(ours) == ManifestIndex(str(real_dataset)).rows
    assert ours.keys() == theirs.keys()
    for key, image in ours.items():
        np.testing.assert_array_equal(theirs[key], image, err_msg=key)


@pytest.mark.formats
def test_only_the_prefix_of_a_level_is_read(real_dataset: Path) -> None:
    catalog = ManifestIndex(str(real_dataset))
    for level in LEVELS:
        loader = Loader(real_dataset, batching=Packed(tokens=32768, patch=16, level=level, per_step=1), **EVERYTHING)
        for _ in loader:
            pass
        wanted = sum(catalog.detail(row).prefix(level) for row in range(catalog.rows))
        # Small neighbours are read in one go, with what lies between them.
        assert wanted <= loader.stats()["read_bytes"] <= 1.2 * wanted + 100_000


@pytest.mark.parametrize("batching", [Fixed(2560, patch=16, per_step=2), Exact(patch=16, per_step=3)], ids=str)
def test_fixed_and_exact_batches_hold_the_same_pixels(
    real_dataset: Path, batching: Any, images_of: Any, pixels_of: Any
) -> None:
    found, wanted = images_of(Loader(real_dataset, batching=batching, **EVERYTHING)), pixels_of(real_dataset, 0)
    assert sorted(found) == sorted(wanted)
    for row, pixels in wanted.items():
        np.testing.assert_array_equal(found[row], pixels)


@pytest.mark.formats
def test_content_boxes_crops_and_flips_are_cut_out_of_the_same_pixels(
    real_dataset: Path, decoder: Any, images_of: Any, pixels_of: Any
) -> None:
    batching = Packed(tokens=32768, patch=16, level=1, content=True, crop=(0.3, 0.9), flip=0.5, per_step=1)
    loader = Loader(real_dataset, batching=batching, seed=5, decoder=decoder, **EVERYTHING)
    samples = loader.plan.samples
    shown = crops(
        samples,
        np.arange(len(samples)),
        batching.augmentation,
        key_of(key_of("shardkit plan", samples.digest, 5, 0), "views"),
    )
    found, whole = images_of(loader), pixels_of(real_dataset, 1)
    assert 0 < shown.flip.sum() < len(samples)
    for i, row in enumerate(shown.row.tolist()):
        top, left = int(shown.top[i]), int(shown.left[i])
        part = whole[row][top : top + int(shown.height[i]), left : left + int(shown.width[i])]
        np.testing.assert_array_equal(found[row], part[:, ::-1] if shown.flip[i] else part)


@pytest.mark.formats
def test_resized_images_are_the_antialiased_image_and_auto_levels_hardly_change_them(
    real_dataset: Path, decoder: Any, images_of: Any, pixels_of: Any
) -> None:
    from PIL import Image

    catalog, arguments = ManifestIndex(str(real_dataset)), {**EVERYTHING, "normalise": "fullscale", "decoder": decoder}
    found = {
        level: images_of(
            Loader(real_dataset, batching=Resized(128, batch_size=4, level=level, per_step=1), **arguments)
        )
        for level in (0, "auto")
    }
    radiographs = 0
    for row, pixels in pixels_of(real_dataset, 0).items():
        side = min(pixels.shape)
        top, left = ((size - side) // 2 for size in pixels.shape)
        square = Image.fromarray(pixels[top : top + side, left : left + side].astype(np.float32))
        full = (1 << int(catalog.detail(row).number("bits"))) - 1
        wanted = np.asarray(square.resize((128, 128), Image.Resampling.BILINEAR)) / full
        assert np.abs(found[0][row] - wanted).mean() < 0.002, "Pillow's filter is DALI's"
        # A level is another low-pass before the same filter, and in the same place: not half a pixel off.
        if side >= 1024:
            assert np.abs(found["auto"][row] - wanted).mean() < 0.008, row
            assert np.corrcoef(found["auto"][row].ravel(), wanted.ravel())[0, 1] > 0.995, row
            radiographs += 1
    assert radiographs >= 10


def test_resizing_with_padding_keeps_proportions(real_dataset: Path) -> None:
    batching = Resized(128, batch_size=4, fit="pad", level="auto", per_step=1)
    catalog = ManifestIndex(str(real_dataset))
    for batch in Loader(real_dataset, batching=batching, **EVERYTHING):
        for row, (height, width) in zip(batch.rows.tolist(), batch["sizes"].tolist(), strict=True):
            if row >= 0:
                assert max(height, width) == 128
                ratio = catalog.detail(row).number("height") / catalog.detail(row).number("width")
                assert height / width == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize("mode", ["percentile", "minmax", "fullscale", "zscore", (0.4, 0.2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_normalisation_is_the_formula_of_its_name(
    real_dataset: Path, mode: Any, dtype: torch.dtype, images_of: Any, pixels_of: Any
) -> None:
    batching = Binned(batch_size=4, patch=16, level=2, per_step=1)
    loader = Loader(real_dataset, batching=batching, split=None, normalise=mode, dtype=dtype, device="cpu")
    found, whole, catalog = images_of(loader), pixels_of(real_dataset, 2), ManifestIndex(str(real_dataset))
    for row, pixels in whole.items():
        number = catalog.detail(row).number
        top = (1 << int(number("bits"))) - 1
        low, high = {
            "percentile": (number("p0_5"), number("p99_5")),
            "minmax": (number("min"), number("max")),
            "fullscale": (0.0, float(top)),
            "zscore": (number("mean"), number("mean") + number("std")),
            (0.4, 0.2): (0.4 * top, 0.6 * top),
        }[mode]
        wanted = (pixels.astype(np.float64) - low) / max(high - low, 1e-6)
        if mode in ("percentile", "minmax", "fullscale"):
            wanted = np.clip(wanted, 0, 1)
        tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
        np.testing.assert_allclose(found[row], wanted, rtol=tolerance, atol=tolerance)


def test_a_packed_batch_says_where_every_token_belongs(dataset_folder: Path) -> None:
    sizes = set()
    for batch in Loader(dataset_folder, batching=Packed(tokens=256, patch=16, max_images=9, per_step=1), **EVERYTHING):
        assert isinstance(batch, PackedBatch)
        tokens, sequences = batch.patches.shape[0], len(batch.hw)
        sizes.add((tokens, batch.patches.shape[1], sequences, len(batch.cu_seqlens)))
        cu, images = batch.cu_seqlens.tolist(), int((batch.rows >= 0).sum())
        assert (cu[0], cu[-1]) == (0, tokens)
        assert cu == sorted(cu)
        assert batch.cu_seqlens.dtype == batch.image.dtype == batch.yx.dtype == torch.int32
        for number in range(sequences):
            own = slice(cu[number], cu[number + 1])
            assert (batch.image[own] == number).all()
            if number >= images:
                assert (float(batch.weight[number]), int(batch.rows[number])) == (0, -1)
                assert batch.hw[number].tolist() == [0, 0]
                continue
            high, wide = (-(-side // 16) for side in batch.hw[number].tolist())
            assert cu[number + 1] - cu[number] == high * wide
            grid = [[y, x] for y in range(high) for x in range(wide)]
            assert batch.yx[own].tolist() == grid
        assert cu[images + 1 :] == [tokens] * (sequences - images)
    assert sizes == {(256, 256, 10, 11)}

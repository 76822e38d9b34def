"""DALI on the CPU gives the pixels of our decoder for every level's standalone stream."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np

from shardkit.codecs import htj2k
from shardkit.sources.dicom.grayscale import to_uniform

REAL = ("fuji_hip_RG2_JPLL.dcm", "fuji_tibia_RG3_RLE.dcm", "konica_chest_8bit_M1_jpeg_2446x2010.dcm")


def test_dali_openjpeg_and_our_decoder_agree_at_every_level(decoded: Any, dali_pixels: Any) -> None:
    rows, cols = np.indices((203, 301))
    images = [
        (((rows + cols) % 2) * 65535).astype(np.uint16),
        (((rows // 2 + cols // 2) % 2) * 65535).astype(np.uint16),
        (((rows // 5 + cols // 3) % 2) * 4095).astype(np.uint16),
        np.random.default_rng(0).integers(0, 1 << 14, (2050, 2049)).astype(np.uint16),  # has a level more
    ]
    depths = [16, 16, 12, 14]
    for name in REAL:
        ours = decoded(f"radiographs/{name}")
        image = to_uniform(ours.samples, ours.facts, ours.header.dataset)
        images.append(image.pixels)
        depths.append(image.bits)
    encoded = [htj2k.encode(image) for image in images]
    cases = [(i, level) for i in range(len(images)) for level in range(len(htj2k.prefixes(encoded[i])))]
    streams = [htj2k.standalone(encoded[i][: htj2k.prefixes(encoded[i])[level]], level) for i, level in cases]
    for (i, level), stream, seen in zip(cases, streams, dali_pixels(streams), strict=True):
        top = (1 << depths[i]) - 1
        want = htj2k.decode(encoded[i], level, depths[i])
        np.testing.assert_array_equal(np.minimum(seen, top), want, err_msg=f"DALI, image {i}, level {level}")
        openjpeg = np.minimum(imagecodecs.jpeg2k_decode(stream), top)
        np.testing.assert_array_equal(openjpeg, want, err_msg=f"OpenJPEG, image {i}, level {level}")
        if level == 0:
            np.testing.assert_array_equal(want, images[i])

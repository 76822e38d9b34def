"""The real labelled images: each is what Pillow decodes, and of NIH's those with four channels are flagged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shardkit.sources import image_source


@pytest.mark.parametrize(
    ("folder", "images", "colour"), [("nih/images", 120, 3), ("hannover/png", 243, 0), ("nih256/images", 857, 0)]
)
def test_every_image_is_what_pillow_decodes(labelled: Path, folder: str, images: int, colour: int) -> None:
    source = image_source(str(labelled / folder), image_files=True)
    flags: Counter[str] = Counter()
    seen = 0
    for entry in source.list():
        facts = source.inspect(entry)
        found = source.load(entry, source.read(entry)).decode("full")
        with Image.open(labelled / folder / entry.path.decode()) as file:
            assert (file.height, file.width) == (facts.height, facts.width)
            shown = np.asarray(file)
        assert np.array_equal(found.pixels, shown if shown.ndim == 2 else shown[..., 0])
        assert found.bits == 8
        flags.update(found.flags)
        seen += 1
    assert (seen, dict(flags)) == (images, {"equal_channels": colour} if colour else {})

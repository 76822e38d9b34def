"""One image, prepared as a Loader does it, without a dataset: for programs that use what was trained with one."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import torch

from shardkit import content
from shardkit.codecs import htj2k
from shardkit.codecs.base import LEVELS
from shardkit.codecs.placement import Placement
from shardkit.content import Pixels
from shardkit.dataset import manifest
from shardkit.dataset.bins import Bin, Bins
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError
from shardkit.formats import webdataset
from shardkit.loader.graph_input import Normalise, prepared
from shardkit.loader.painting import paint
from shardkit.loader.sample_index import Detail, Details
from shardkit.plan import Batching, EpochPlan, Packed, Resized, from_text
from shardkit.plan.samples import Samples


def prepare(
    pixels: Pixels, bits: int, *, batching: Batching | str, normalise: Normalise = "percentile", padded: bool = False
) -> torch.Tensor:
    """Prepare an image as a Loader of these options does, without random crop and flip.

    Parameters
    ----------
    pixels : ndarray of uint16, (rows, cols)
        MONOCHROME2, as a dataset stores it: grey levels 0 to 2**bits - 1.
    bits : int
        Bit depth.
    batching : Batching or str
        As of `shardkit.Loader`. What decides an image counts: resized or not, patch, level, content. Of `MultiView` it
        is the central square, resized to the largest view.
    normalise : str or tuple of float
        As of `shardkit.Loader`.
    padded : bool
        Whether grey level 0 is padding, as where DICOM names a padding value, and does not count in the normalisation.

    Returns
    -------
    Tensor of float32, (1, rows, cols)
        Padded to whole patches.

    Raises
    ------
    ArgumentError
        For pixels or options that cannot be used.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint16 or not pixels.size or not 1 <= bits <= 16:
        raise ArgumentError("pixels must be a (rows, cols) array of uint16 and bits 1 to 16, as a dataset stores them")
    if int(pixels.max()) >> bits:
        raise ArgumentError(f"pixels have grey levels above those of bits={bits}: give the bit depth that they have")
    of, (rows, cols) = from_text(batching) if isinstance(batching, str) else batching, pixels.shape
    found = content.find_content(pixels, content.reduce(pixels, content.ANALYSIS), padded=padded)
    box = asdict(found.box)
    samples = Samples(
        digest="0" * 64,
        starts=np.array([0, 1]),
        height=np.array([rows]),
        width=np.array([cols]),
        bins=Bins((Bin(ceil_div(rows, of.patch) * of.patch, ceil_div(cols, of.patch) * of.patch),), of.patch),
        levels=LEVELS,
        box=np.array([[box[side] for side in ("top", "left", "height", "width")]]),
    )
    alone = _alone(of, rows, cols)
    micro = EpochPlan(samples, 0, 0, alone)[0][0]
    level = int(micro.crops.level[0])
    small = htj2k.decode(htj2k.encode(pixels), level, bits, Placement(rows, cols, rows, cols)) if level else pixels
    facts = asdict(content.statistics(pixels, found.mask, padded=padded))
    ready = prepared(small, micro, 0, _detail(facts), bits, normalise)
    image = torch.empty(1, *ready.pad)
    paint(image[0], ready, resize=alone.augmentation.side is not None)
    return image


def _alone(of: Batching, rows: int, cols: int) -> Batching:
    """Make a batching whose only image is this one."""
    if (side := of.augmentation.side) is not None:
        fit = of.augmentation.fit
        return Resized(side=side, fit=fit, patch=of.patch, level=of.level, content=of.content, per_step=1)
    tokens = ceil_div(rows, of.patch) * ceil_div(cols, of.patch)
    return Packed(tokens=tokens, patch=of.patch, level=of.level, content=of.content, per_step=1)


def _detail(facts: dict[str, float]) -> Detail:
    """Give statistics the precision that a manifest keeps."""
    numbers = {name: np.array([pa.scalar(v, manifest.SCHEMA.field(name).type).as_py()]) for name, v in facts.items()}
    none = np.zeros((1, 1), np.int64)
    return Detail(Details(webdataset, "", 0, numbers, none, none, none.astype(np.uint8), pa.array([""])), 0)

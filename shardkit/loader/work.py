"""A micro-batch on its way through the loader's threads."""

import asyncio
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from shardkit.errors import ShardkitError
from shardkit.loader.batch import Batch, BatchItem, BatchPosition
from shardkit.loader.graph_input import Prepared
from shardkit.loader.sample_index import Detail
from shardkit.loader.stats import Shares
from shardkit.plan.crops import Crops
from shardkit.plan.shapes import MicroBatch

Ready = list[Prepared | ShardkitError]
"""What became of each crop of a micro-batch."""


@dataclass
class Work:
    """A micro-batch that was asked for.

    Attributes
    ----------
    position, micro : BatchPosition, MicroBatch
        Where it stands in the plan, and what that says.
    views : list of Crops
        What `micro.views()` gives.
    details : list of Detail
        What the manifest says of each crop's sample.
    gate : asyncio.Event
        Opens when its images may be decoded.
    size : int
        Encoded bytes.
    decodes : deque of int
        A crop's index, whenever it is decoded; threads append.
    batch : Batch, optional
        The batch that images are painted into as they are decoded, on a CPU where nothing changes them after that.
    rooms : list of Tensor
        On a CPU, where each image is painted: of the first view of all crops, then of the second.
    future : Future, optional
        The images, when they are decoded.
    """

    position: BatchPosition
    micro: MicroBatch
    views: list[Crops]
    details: list[Detail]
    gate: asyncio.Event
    size: int
    decodes: deque[int] = field(default_factory=deque)
    batch: Batch | None = None
    rooms: list[Tensor] = field(default_factory=list)
    future: "Future[Ready] | None" = None

    @property
    def planned(self) -> list[BatchItem | None]:
        """What each crop shows if all of them can be read."""
        return [BatchItem(at, row) for at, row in enumerate(self.micro.crops.row.tolist())]

    def shares(self) -> Shares:
        """Share out the micro-batch's pixels among the bins that its images are stored in."""
        pixels: dict[str, float] = {}
        for detail, tokens in zip(self.details, self.micro.crops.tokens.tolist(), strict=True):
            pixels[detail.bin] = pixels.get(detail.bin, 0) + tokens
        total = sum(pixels.values())
        return {name: count / total for name, count in pixels.items()}


def chosen(ready: Ready, shown: list[BatchItem | None]) -> list[Prepared]:
    """Return the images of those items that are not None."""
    images = [ready[item.crop] for item in shown if item is not None]
    return [image for image in images if isinstance(image, Prepared)]

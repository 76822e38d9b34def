"""Which samples make which step: pure functions of the manifest, NumPy only, no I/O."""

from shardkit.plan.base import Batching
from shardkit.plan.batching import Binned, Exact, Fixed, Packed, from_text
from shardkit.plan.crops import Crops
from shardkit.plan.epoch import EpochPlan, EpochStats
from shardkit.plan.multi_view import MultiView, ViewsShape
from shardkit.plan.resized import Resized
from shardkit.plan.samples import Samples
from shardkit.plan.shapes import BatchShape, MicroBatch, Pack, Shape
from shardkit.plan.views import View

__all__ = [
    "BatchShape",
    "Batching",
    "Binned",
    "Crops",
    "EpochPlan",
    "EpochStats",
    "Exact",
    "Fixed",
    "MicroBatch",
    "MultiView",
    "Pack",
    "Packed",
    "Resized",
    "Samples",
    "Shape",
    "View",
    "ViewsShape",
    "from_text",
]

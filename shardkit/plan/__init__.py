"""Which samples make which step: pure functions of the manifest, NumPy only, no I/O."""

from shardkit.plan.batchers import MicroBatch, Pack, Shape
from shardkit.plan.batching import Batching, Binned, Exact, Fixed, Packed, Resized, from_text
from shardkit.plan.crops import Crops
from shardkit.plan.epoch import EpochPlan, EpochStats
from shardkit.plan.samples import Samples

__all__ = [
    "Batching",
    "Binned",
    "Crops",
    "EpochPlan",
    "EpochStats",
    "Exact",
    "Fixed",
    "MicroBatch",
    "Pack",
    "Packed",
    "Resized",
    "Samples",
    "Shape",
    "from_text",
]

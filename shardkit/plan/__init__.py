"""Which samples make which step: pure functions of the manifest, NumPy only, no I/O."""

from shardkit.plan.batchers import MicroBatch, Pack, Shape
from shardkit.plan.batching import Batching, Binned, Exact, Fixed, Packed, Resized, from_text
from shardkit.plan.crops import Views
from shardkit.plan.epoch import Account, EpochPlan
from shardkit.plan.samples import Samples

__all__ = [
    "Account",
    "Batching",
    "Binned",
    "EpochPlan",
    "Exact",
    "Fixed",
    "MicroBatch",
    "Pack",
    "Packed",
    "Resized",
    "Samples",
    "Shape",
    "Views",
    "from_text",
]

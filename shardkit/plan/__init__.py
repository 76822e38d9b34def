"""Which samples make which step: pure functions of the manifest, NumPy only, no I/O."""

from shardkit.plan.batching import Batching, Binned, Exact, Fixed, Packed, Resized, from_text
from shardkit.plan.epoch import Account, EpochPlan
from shardkit.plan.forming import MicroBatch, Pack, Shape
from shardkit.plan.samples import Samples
from shardkit.plan.views import Views

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

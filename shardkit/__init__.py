"""Stream hospital radiographs to GPUs: DICOM exports become resolution-binned, lossless, verified shards."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from shardkit.loader.batch import Batch, BatchPosition
    from shardkit.loader.binned import BinnedBatch
    from shardkit.loader.collate import PackedBatch
    from shardkit.loader.loader import Loader
    from shardkit.loader.multi_view import MultiViewBatch
    from shardkit.loader.preparing import prepare
    from shardkit.loader.torch_dataset import TorchDataset
    from shardkit.looking.dataset import Dataset
    from shardkit.plan import Batching, Binned, EpochPlan, Exact, Fixed, MultiView, Packed, Resized, View, from_text

_HOMES = {
    "Batch": "loader.batch",
    "BatchPosition": "loader.batch",
    "BinnedBatch": "loader.binned",
    "Dataset": "looking.dataset",
    "PackedBatch": "loader.collate",
    "Loader": "loader.loader",
    "MultiViewBatch": "loader.multi_view",
    "TorchDataset": "loader.torch_dataset",
    "prepare": "loader.preparing",
    **dict.fromkeys(
        ("Batching", "Binned", "EpochPlan", "Exact", "Fixed", "MultiView", "Packed", "Resized", "View", "from_text"),
        "plan",
    ),
}
__all__ = [
    "Batch",
    "BatchPosition",
    "Batching",
    "Binned",
    "BinnedBatch",
    "Dataset",
    "EpochPlan",
    "Exact",
    "Fixed",
    "Loader",
    "MultiView",
    "MultiViewBatch",
    "Packed",
    "PackedBatch",
    "Resized",
    "TorchDataset",
    "View",
    "from_text",
    "prepare",
]


def __getattr__(name: str) -> Any:
    """Public names on first use: a build needs no torch, and `shardkit --help` should not wait for it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shardkit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"shardkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

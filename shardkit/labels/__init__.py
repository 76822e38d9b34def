"""Labels: named tables beside the shards, a row per labelled sample, joined by key; shards never change for them."""

from shardkit.labels.base import Kind, Labels, LabelsDescription, LabelTable, Level
from shardkit.labels.rows import By, LabelRows
from shardkit.labels.store import names, read, remove, write

__all__ = [
    "By",
    "Kind",
    "LabelRows",
    "LabelTable",
    "Labels",
    "LabelsDescription",
    "Level",
    "names",
    "read",
    "remove",
    "write",
]

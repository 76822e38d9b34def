"""Stores: folders and buckets behind one class, and how each is opened."""

from shardkit.storage.absent import nearest, no_folder
from shardkit.storage.failures import (
    AWAY,
    AccessRefused,
    MissingObject,
    Unanswered,
    Unusable,
    reason,
    translate_errors,
)
from shardkit.storage.remote import is_remote, shown
from shardkit.storage.store import NO_RETRIES, Store, local_path

__all__ = [
    "AWAY",
    "NO_RETRIES",
    "AccessRefused",
    "MissingObject",
    "Store",
    "Unanswered",
    "Unusable",
    "is_remote",
    "local_path",
    "nearest",
    "no_folder",
    "reason",
    "shown",
    "translate_errors",
]

"""Stores: folders and buckets behind one class, and how each is opened."""

from shardkit.storage.store import (
    AWAY,
    NO_RETRIES,
    AccessRefused,
    MissingObject,
    Store,
    Unanswered,
    Unusable,
    is_remote,
    local_path,
    no_folder,
    reason,
    shown,
    translate_errors,
)

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
    "no_folder",
    "reason",
    "shown",
    "translate_errors",
]

"""Public collections of radiographs: a module each, of data and a few lines that read its tables.

What is published as facts of an image (patient, study, view, sex, age) is joined when a build lists files; labels,
official splits and boxes become tables of labels. Nothing of a collection is copied here: its tables lie with its
images.
"""

from shardkit.sources.collections.base import Collection, Published, Tree
from shardkit.sources.collections.registry import COLLECTIONS, collection

__all__ = ["COLLECTIONS", "Collection", "Published", "Tree", "collection"]

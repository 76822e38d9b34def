"""Hospital radiographs as lossless, resolution-binned shards that keep a GPU fed."""

__version__ = "0.1.0"

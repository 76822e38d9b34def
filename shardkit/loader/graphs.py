"""The DALI graph that a loader keeps from one epoch to the next: on a GPU it takes two seconds to build one."""

import threading
from dataclasses import replace

from shardkit.loader import closing
from shardkit.loader.graph import Graph, GraphConfig


class Graphs:
    """Lends a loader's graph, and keeps it when nobody has it. It is closed when the interpreter ends."""

    def __init__(self) -> None:
        self._idle: Graph | None = None
        self._closed, self._lock = False, threading.Lock()
        closing.watch(self)

    def take(self, config: GraphConfig) -> Graph:
        """Return a graph for so many images or more, which nobody else has until it is given back."""
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is None:
            return Graph(config)
        images = idle.config.max_images
        if images >= config.max_images and idle.config == replace(config, max_images=images):
            return idle
        idle.close()
        return Graph(config)

    def give_back(self, graph: Graph) -> None:
        """Keep a graph that nothing runs on any more, instead of one that was made in the meantime."""
        with self._lock:
            gone, self._idle = (graph, None) if self._closed else (self._idle, graph)
        if gone is not None:
            gone.close()

    def close(self) -> None:
        """Close the graph, now or when it is given back."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, None, True
        if idle is not None:
            idle.close()

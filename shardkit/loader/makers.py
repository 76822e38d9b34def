"""What makes numbers of decoded images: on a CPU threads, each of its own; on a GPU a DALI graph, of all at once."""

import math
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from shardkit.errors import IntegrityError
from shardkit.loader.batch import Batch, BatchItem
from shardkit.loader.canvas import Canvas
from shardkit.loader.collate import lay_out
from shardkit.loader.graph import GraphConfig, cut_off
from shardkit.loader.graph_input import Prepared
from shardkit.loader.graphs import Graphs
from shardkit.loader.painting import paint
from shardkit.loader.prefetch_config import PrefetchConfig
from shardkit.loader.work import Ready, Work, chosen
from shardkit.plan.crops import Augmentation

_NOTHING = np.empty((0, 0), np.uint16)
_PAINTED = Prepared(_NOTHING, 1, (0, 0), (0, 0), (0.0, 0.0), (0.0, 0.0), (0, 0), (0, 0), flip=False, mean=0.0, std=1.0)


class Maker(ABC):
    """Makes images of what was decoded."""

    def begin(self, work: Work) -> None:
        """Get ready for a micro-batch whose images are decoded next; on one of the threads that decode."""
        return

    def take(self, work: Work, at: int, image: Prepared) -> Prepared:
        """Take an image that a thread has decoded, on that thread; return what `images` needs of it."""
        return image

    def whole(self, work: Work, shown: list[BatchItem | None]) -> Batch | None:
        """Return the batch if it is made already and shows this."""
        return None

    @abstractmethod
    def images(self, work: Work, ready: Ready, shown: list[BatchItem | None]) -> list[Tensor] | None:
        """Make the images that are shown.

        Returns
        -------
        list of Tensor, optional
            As `collate` takes them. None where some could not be decoded: these are errors in `ready` now.

        Raises
        ------
        IntegrityError
            Where none can be.
        """

    def close(self) -> None:
        """Give threads and memory back."""
        return


class Painter(Maker):
    """Has every image painted by the thread that decoded it.

    Parameters
    ----------
    canvas : Canvas
        Makes the batches' memory.
    changed : bool
        Whether images change before they are laid out: they are painted into memory of their own.
    resize : bool
        Whether the batching resizes images.
    """

    def __init__(self, canvas: Canvas, changed: bool, resize: bool) -> None:
        self._canvas, self._changed, self._resize = canvas, changed, resize

    def begin(self, work: Work) -> None:
        """See `Maker`."""
        if not self._changed:
            work.batch, work.rooms = lay_out(work.micro, work.planned, work.position, self._canvas)
            return
        sizes = [
            work.micro.shape.padded_size(height, width, work.micro.patch)
            for crops in work.views
            for height, width in zip(crops.out_height.tolist(), crops.out_width.tolist(), strict=True)
        ]
        ends = np.cumsum([math.prod(size) for size in sizes]).tolist()
        memory = self._canvas.buffers.empty((ends[-1] if ends else 0,), torch.float32)
        work.rooms = [memory[end - math.prod(size) : end].view(size) for end, size in zip(ends, sizes, strict=True)]

    def take(self, work: Work, at: int, image: Prepared) -> Prepared:
        """See `Maker`."""
        for number, view in enumerate(image.views):
            paint(work.rooms[number * len(work.micro.crops) + at], view, self._resize)
        # Its pixels shall not stay in memory; of an image that stays as it is nothing more is asked at all.
        return replace(image, data=_NOTHING, more=()) if self._changed else _PAINTED

    def whole(self, work: Work, shown: list[BatchItem | None]) -> Batch | None:
        """See `Maker`."""
        return work.batch if shown == work.planned else None

    def images(self, work: Work, ready: Ready, shown: list[BatchItem | None]) -> list[Tensor]:
        """See `Maker`. A substitute that is shown twice is changed twice: each has memory of its own."""
        found, used = list[Tensor](), set[int]()
        for number in range(len(work.views)):
            for item in (item for item in shown if item is not None):
                at = number * len(work.micro.crops) + item.crop
                room = work.rooms[at]
                found.append((room.clone() if at in used else room)[None] if self._changed else room)
                used.add(at)
        return found


class GraphMaker(Maker):
    """Hands the images of a micro-batch to a graph together.

    Parameters
    ----------
    graphs : Graphs
        Where the graph is taken from, and given back at the end. It normalises images, and may decode them.
    canvas : Canvas
        Cuts images off where all are.
    config : GraphConfig
        What the graph contains.
    stream : torch.cuda.Stream, optional
        That of the batches, on a GPU.
    """

    def __init__(
        self, graphs: Graphs, canvas: Canvas, config: GraphConfig, stream: torch.cuda.Stream | None = None
    ) -> None:
        self._graphs, self._graph = graphs, graphs.take(config)
        self._canvas, self._decode, self._stream = canvas, config.decode, stream

    def images(self, work: Work, ready: Ready, shown: list[BatchItem | None]) -> list[Tensor] | None:
        """See `Maker`."""
        given = chosen(ready, shown)
        if self._decode:
            work.decodes.extend(range(len(given)))
        try:
            images = self._graph.run(given)
        except IntegrityError as failed:
            # Sound by its hash and not decodable all the same: find out which, one by one, and go on without it.
            for at, image in enumerate(ready):
                if isinstance(image, Prepared):
                    ready[at] = self._tried(work, at, image)
            if len(ready) > 1 and not any(isinstance(image, Prepared) for image in ready):
                raise failed  # the graph is at fault, not every image
            return None
        if not self._canvas.clip:
            cut_off(images, given)
        return images

    def _tried(self, work: Work, at: int, image: Prepared) -> Prepared | IntegrityError:
        work.decodes.extend([at] * self._decode)
        try:
            self._graph.run([image])
            return image
        except IntegrityError as error:
            detail = work.details[at]
            return IntegrityError(f"{detail.shard.name}: the image {detail.key}: {error}")

    def close(self) -> None:
        """See `Maker`. To be called once."""
        try:
            if self._stream is not None:
                self._stream.synchronize()  # an iteration that ends early may leave it something to read
        except RuntimeError:
            self._graph.close()
            raise
        finally:
            self._graph.forget()
            self._graphs.give_back(self._graph)


def maker(config: PrefetchConfig, augmentation: Augmentation, canvas: Canvas, images: int, graphs: Graphs) -> Maker:
    """Choose what makes the images of a loader.

    Parameters
    ----------
    config : PrefetchConfig
        What all its batches have in common.
    augmentation : Augmentation
        How its batching shows images.
    canvas : Canvas
        Where images are put.
    images : int
        Those of a micro-batch, at most.
    graphs : Graphs
        Where a graph is taken from.
    """
    if not config.graph:
        changed = config.augment is not None or bool(config.views)
        return Painter(canvas, changed, resize=augmentation.side is not None)
    graph = GraphConfig.of(augmentation, config.device, config.decode, images, config.threads)
    return GraphMaker(graphs, canvas, graph, config.stream)

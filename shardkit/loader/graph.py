"""The DALI graph: encoded bytes or decoded pixels in, normalised and padded images out, on the CPU or a GPU.

    encoded -> decode UINT16 -> clamp -> slice or resize -> flip -> normalise + pad -> torch, by DLPack

What follows the clamp is there once for each view of a sample. What a batching does not ask for is not in it. On a CPU
it is used where it decodes; else threads paint what they decode, see painting.py. On a GPU images may come decoded, by
OpenJPH on the loader's threads, which gives the same pixels; see device.py.
"""

import ctypes
import os
import weakref
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.dlpack

from shardkit.errors import ArgumentError, IntegrityError
from shardkit.loader.graph_input import Prepared
from shardkit.plan.crops import Augmentation

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # else DALI's CPU decoder prints a line an image


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """What the graph contains.

    Attributes
    ----------
    device_id : int, optional
        Number of the GPU; None for the CPU.
    decode : bool
        Whether it is given encoded bytes.
    slice, flip, resize : bool
        Whether parts of images are shown, mirrored or resized.
    max_images : int
        Images that it is given at once, at most.
    threads : int
        Threads that run it.
    views : int
        Views that it makes of each image.
    """

    device_id: int | None
    decode: bool
    slice: bool
    flip: bool
    resize: bool
    max_images: int
    threads: int
    views: int = 1

    @classmethod
    def of(
        cls, augmentation: Augmentation, device: torch.device, decode: bool, max_images: int, threads: int
    ) -> "GraphConfig":
        """Choose what an augmentation asks for."""
        resize = augmentation.side is not None
        return cls(
            device_id=(device.index or 0) if device.type == "cuda" else None,
            decode=decode,
            slice=not resize and (augmentation.content or augmentation.crop is not None),
            flip=augmentation.flip > 0 or any(view.flip > 0 for view in augmentation.views),
            resize=resize,
            max_images=max_images,
            threads=threads,
            views=sum(view.n for view in augmentation.views) or 1,
        )


class Graph:
    """A built pipeline, rebuilt after an image that cannot be decoded."""

    def __init__(self, config: GraphConfig) -> None:
        self.config = config
        self._pipeline: Any = None
        self._lent: list[Prepared] = []
        _graphs.add(self)

    def run(self, images: list[Prepared]) -> list[torch.Tensor]:
        """Make tensors of images.

        Parameters
        ----------
        images : list of Prepared
            What to decode and normalise.

        Returns
        -------
        list of Tensor
            float32 (1, rows, cols) of each, on the graph's device; padding is 0. Of several views, the first one of
            all images, then the second.

        Raises
        ------
        IntegrityError
            When an image cannot be decoded: which one, DALI does not say.
        """
        if not images:
            return []
        if self._pipeline is None:
            self._pipeline = _build(self.config)
        config, self._lent = self.config, images  # DALI reads the arrays in place, a GPU even after `run`
        try:
            self._feed("data", [p.data if config.decode else p.data[..., None] for p in images])
            self._feed("mean", [_floats(p.mean) for p in images])
            self._feed("std", [_floats(p.std) for p in images])
            if config.decode:
                self._feed("top", [np.array([p.top], np.uint16) for p in images])
            for number, views in enumerate(zip(*(p.views for p in images), strict=True)):
                self._feed_view(number, views)
            outs = self._pipeline.run()
        except RuntimeError as error:
            self.close()  # DALI: "Current pipeline object is no longer valid"
            raise IntegrityError(f"DALI could not decode a batch: {' '.join(str(error).split())[:400]}") from error
        except BaseException:
            self.close()  # what was fed and not run would be the next batch's
            raise
        return [torch.utils.dlpack.from_dlpack(out[i]) for out in outs for i in range(len(images))]

    def _feed_view(self, number: int, views: tuple[Prepared, ...]) -> None:
        """Say what is shown of each image in one of its views."""
        config = self.config
        self._feed(f"rows{number}", [np.float32(p.pad[0]) for p in views])
        self._feed(f"cols{number}", [np.float32(p.pad[1]) for p in views])
        if config.slice:
            self._feed(f"start{number}", [np.array(p.start, np.int32) for p in views])
            self._feed(f"shape{number}", [np.array(p.shape, np.int32) for p in views])
        if config.flip:
            self._feed(f"flip{number}", [np.int32(p.flip) for p in views])
        if config.resize:
            self._feed(f"size{number}", [_floats(*p.size) for p in views])
            self._feed(f"roi_start{number}", [_floats(*p.roi_start) for p in views])
            self._feed(f"roi_end{number}", [_floats(*p.roi_end) for p in views])

    def _feed(self, name: str, values: list[Any]) -> None:
        self._pipeline.feed_input(name, values)

    def forget(self) -> None:
        """Let the images of the last run go, which the device has done with."""
        self._lent = []

    def close(self) -> None:
        """Give threads and memory back."""
        self._pipeline, self._lent = None, []

    def abandon(self) -> None:
        """Forget a pipeline of the process that forked this one: DALI would wait here for threads that are there."""
        pipe = getattr(self._pipeline, "_pipe", None)
        if pipe is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipe))  # never freed
            self._pipeline._pipe = None
        self._pipeline = None


def cut_off(images: list[torch.Tensor], prepared: list[Prepared]) -> None:
    """Cut images off at 0 and 1, in place, where that is asked for: of a mixture, maybe of some members alone.

    Parameters
    ----------
    images : list of Tensor
        What `Graph.run` made.
    prepared : list of Prepared
        What it was given.
    """
    for image in (image for image, of in zip(images, cycle(prepared)) if of.clip):
        if image.device.type == "cpu":
            np.clip(image.numpy(), 0.0, 1.0, out=image.numpy())
        else:
            image.clamp_(0.0, 1.0)


_graphs: "weakref.WeakSet[Graph]" = weakref.WeakSet()


def _forked() -> None:
    for graph in list(_graphs):
        graph.abandon()


os.register_at_fork(after_in_child=_forked)


def _floats(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def load_dali() -> Any:
    """Import the package where it is needed, which takes a moment; raise ArgumentError where it is missing."""
    try:
        from nvidia import dali
        from nvidia.dali import fn  # noqa: F401 - its operators take most of the moment
    except ImportError:
        raise ArgumentError("NVIDIA DALI is not installed: pip install 'shardkit[train]'") from None
    return dali


def _build(config: GraphConfig) -> Any:
    dali = load_dali()
    fn, math, pipeline_def, types = dali.fn, dali.math, dali.pipeline_def, dali.types
    gpu = config.device_id is not None

    def given(name: str, kind: Any, ndim: int, **more: Any) -> Any:
        return fn.external_source(name=name, batch=True, dtype=kind, ndim=ndim, **more)

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=config.max_images,
        num_threads=config.threads,
        device_id=config.device_id,
        exec_dynamic=True,
        prefetch_queue_depth=1,
    )
    def graph() -> Any:
        if config.decode:
            data = given("data", types.UINT8, 1, no_copy=True)
            device = "mixed" if gpu else "cpu"
            image = fn.decoders.image(data, device=device, output_type=types.GRAY, dtype=types.UINT16)
            # Levels above 0 may leave the image's range by a little; see codecs/htj2k.py.
            top = given("top", types.UINT16, 1)
            image = fn.reinterpret(math.min(image, top.gpu() if gpu else top), layout="HWC")
        else:
            image = given("data", types.UINT16, 3, layout="HWC", no_copy=True)
            image = image.gpu() if gpu else image
        mean, std = given("mean", types.FLOAT, 1), given("std", types.FLOAT, 1)
        return tuple(view(image, mean, std, number) for number in range(config.views))

    def view(image: Any, mean: Any, std: Any, number: int) -> Any:
        def its(name: str, kind: Any, ndim: int) -> Any:
            return given(f"{name}{number}", kind, ndim)

        if config.slice:
            image = fn.slice(image, start=its("start", types.INT32, 1), shape=its("shape", types.INT32, 1), axes=[0, 1])
        if config.resize:
            image = fn.resize(
                image,
                size=its("size", types.FLOAT, 1),
                roi_start=its("roi_start", types.FLOAT, 1),
                roi_end=its("roi_end", types.FLOAT, 1),
                interp_type=types.INTERP_TRIANGULAR,
                antialias=True,
                dtype=types.FLOAT,
            )
        flip = its("flip", types.INT32, 0) if config.flip else 0
        whole = config.views > 1  # squares without padding, which would be mirrored, too
        if config.flip and not whole:
            image = fn.flip(image, horizontal=flip)
        return fn.crop_mirror_normalize(
            image,
            mean=mean,
            std=std,
            mirror=flip if whole else 0,
            crop_h=its("rows", types.FLOAT, 0),
            crop_w=its("cols", types.FLOAT, 0),
            crop_pos_x=0.0,
            crop_pos_y=0.0,
            out_of_bounds_policy="pad",
            fill_values=[0.0],
            dtype=types.FLOAT,
            output_layout="CHW",
        )

    pipeline = graph()
    pipeline.build()
    return pipeline

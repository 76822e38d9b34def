"""The DALI graph: encoded bytes or decoded pixels in, normalised and padded images out, on the CPU or a GPU.

    encoded -> decode UINT16 -> clamp -> slice or resize -> flip -> normalise + pad -> torch, by DLPack

One graph serves both devices; what a batching does not ask for is not in it. On the CPU images may come decoded, by
OpenJPH on the loader's threads, which is nearly twice as fast as DALI's decoder there and gives the same pixels. The
GPU graph (`decoders.image(device="mixed")`) has not been run by its authors: no GPU was at hand.
"""

import ctypes
import os
import weakref
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.dlpack

from shardkit.errors import ArgumentError, IntegrityError
from shardkit.loader.sample_index import Detail
from shardkit.plan.shapes import MicroBatch

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # else DALI's CPU decoder prints a line an image

Normalise = Literal["none", "percentile", "minmax", "fullscale", "zscore"] | tuple[float, float]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
CLIPPED = ("percentile", "minmax", "fullscale")
"""Modes whose output is cut off at 0 and 1."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image on its way into the graph.

    data: uint8 (bytes,) encoded, or uint16 (rows, cols) decoded. top: its greatest grey level. start, shape: the
    rectangle shown; or, where images are resized, roi_start and roi_end: the same between pixels, in fractions of them,
    and size: the (rows, cols) it gets. pad: (rows, cols) it is padded to, at the bottom and right.
    mean, std: output = (grey level - mean) / std.
    """

    data: Pixels
    top: int
    start: tuple[int, int]
    shape: tuple[int, int]
    roi_start: tuple[float, float]
    roi_end: tuple[float, float]
    size: tuple[int, int]
    pad: tuple[int, int]
    flip: bool
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """What the graph contains. device_id: GPU, None for the CPU. decode: whether data are encoded bytes."""

    device_id: int | None
    decode: bool
    slice: bool
    flip: bool
    resize: bool
    max_images: int
    threads: int


class Graph:
    """A built pipeline, rebuilt after an image that cannot be decoded."""

    def __init__(self, steps: GraphConfig) -> None:
        self._steps = steps
        self._pipeline: Any = None
        self._lent: list[Prepared] = []
        _graphs.add(self)

    def run(self, images: list[Prepared]) -> list[torch.Tensor]:
        """float32 (1, rows, cols) of every image, on the graph's device; padding is 0.

        Raises IntegrityError when an image cannot be decoded: which one, DALI does not say.
        """
        if not images:
            return []
        if self._pipeline is None:
            self._pipeline = _build(self._steps)
        steps, self._lent = self._steps, images  # DALI reads the arrays in place, a GPU even after `run`
        try:
            self._feed("data", [p.data if steps.decode else p.data[..., None] for p in images])
            self._feed("mean", [_floats(p.mean) for p in images])
            self._feed("std", [_floats(p.std) for p in images])
            self._feed("rows", [np.float32(p.pad[0]) for p in images])
            self._feed("cols", [np.float32(p.pad[1]) for p in images])
            if steps.decode:
                self._feed("top", [np.array([p.top], np.uint16) for p in images])
            if steps.slice:
                self._feed("start", [np.array(p.start, np.int32) for p in images])
                self._feed("shape", [np.array(p.shape, np.int32) for p in images])
            if steps.flip:
                self._feed("flip", [np.int32(p.flip) for p in images])
            if steps.resize:
                self._feed("size", [_floats(*p.size) for p in images])
                self._feed("roi_start", [_floats(*p.roi_start) for p in images])
                self._feed("roi_end", [_floats(*p.roi_end) for p in images])
            (out,) = self._pipeline.run()
        except RuntimeError as error:
            self.close()  # DALI: "Current pipeline object is no longer valid"
            raise IntegrityError(f"DALI could not decode a batch: {' '.join(str(error).split())[:400]}") from error
        return [torch.utils.dlpack.from_dlpack(out[i]) for i in range(len(images))]

    def _feed(self, name: str, values: list[Any]) -> None:
        self._pipeline.feed_input(name, values)

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


_graphs: "weakref.WeakSet[Graph]" = weakref.WeakSet()


def _forked() -> None:
    for graph in list(_graphs):
        graph.abandon()


os.register_at_fork(after_in_child=_forked)


def _floats(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def load_dali() -> Any:
    """The package, imported where it is needed: it takes a moment. Raises ArgumentError where it is missing."""
    try:
        from nvidia import dali
        from nvidia.dali import fn  # noqa: F401 - its operators take most of the moment
    except ImportError:
        raise ArgumentError("NVIDIA DALI is not installed: pip install 'shardkit[train]'") from None
    return dali


def _build(steps: GraphConfig) -> Any:
    dali = load_dali()
    fn, math, pipeline_def, types = dali.fn, dali.math, dali.pipeline_def, dali.types
    gpu = steps.device_id is not None

    def given(name: str, kind: Any, ndim: int, **more: Any) -> Any:
        return fn.external_source(name=name, batch=True, dtype=kind, ndim=ndim, **more)

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=steps.max_images,
        num_threads=steps.threads,
        device_id=steps.device_id,
        exec_dynamic=True,
        prefetch_queue_depth=1,
    )
    def graph() -> Any:
        if steps.decode:
            data = given("data", types.UINT8, 1, no_copy=True)
            device = "mixed" if gpu else "cpu"
            image = fn.decoders.image(data, device=device, output_type=types.GRAY, dtype=types.UINT16)
            # Levels above 0 may leave the image's range by a little; see codecs/htj2k.py.
            top = given("top", types.UINT16, 1)
            image = fn.reinterpret(math.min(image, top.gpu() if gpu else top), layout="HWC")
        else:
            image = given("data", types.UINT16, 3, layout="HWC", no_copy=True)
            image = image.gpu() if gpu else image
        if steps.slice:
            image = fn.slice(
                image, start=given("start", types.INT32, 1), shape=given("shape", types.INT32, 1), axes=[0, 1]
            )
        if steps.resize:
            image = fn.resize(
                image,
                size=given("size", types.FLOAT, 1),
                roi_start=given("roi_start", types.FLOAT, 1),
                roi_end=given("roi_end", types.FLOAT, 1),
                interp_type=types.INTERP_TRIANGULAR,
                antialias=True,
                dtype=types.FLOAT,
            )
        if steps.flip:
            image = fn.flip(image, horizontal=given("flip", types.INT32, 0))
        return fn.crop_mirror_normalize(
            image,
            mean=given("mean", types.FLOAT, 1),
            std=given("std", types.FLOAT, 1),
            crop_h=given("rows", types.FLOAT, 0),
            crop_w=given("cols", types.FLOAT, 0),
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


def roi(region: tuple[int, int, int, int], level: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """(start, end) of a full-resolution rectangle (top, left, rows, cols) in a level's pixels, edges counting.

    Sample i of the 5/3 low-pass band lies on full-resolution sample i * 2**level (15444-1 Annex F), not amid the
    2**level that it stands for; without this, every halving would move the picture by half a pixel.
    """
    top, left, rows, cols = region
    start, end = ((top, left), (top + rows, left + cols))
    scale = 2.0**-level
    first, last = (tuple((side - 0.5) * scale + 0.5 for side in corner) for corner in (start, end))
    return (first[0], first[1]), (last[0], last[1])


def bounds(
    mode: Normalise, bits: int, low: float, high: float, percentiles: tuple[float, float], moments: tuple[float, float]
) -> tuple[float, float]:
    """(mean, std) such that (x - mean) / std is the normalised image.

    low, high: least and greatest grey level; percentiles: 0.5th and 99.5th; moments: mean and standard deviation, all
    of what is neither border nor padding, so that they hold with and without the content box. A pair as mode is a
    dataset's mean and standard deviation, as shares of 2**bits - 1.
    """
    top = float((1 << bits) - 1)
    if isinstance(mode, tuple):
        return mode[0] * top, max(mode[1] * top, 1e-6)
    if mode == "none":
        return 0.0, 1.0
    if mode == "fullscale":
        return 0.0, top
    if mode == "zscore":
        return moments[0], max(moments[1], 1e-6)
    first, last = (low, high) if mode == "minmax" else percentiles
    return first, max(last - first, 1.0)


def prepared(pixels: Pixels, micro: MicroBatch, at: int, detail: Detail, bits: int, mode: Normalise) -> Prepared:
    """What the graph needs for one crop of a micro-batch."""
    crops = micro.crops
    size = (int(crops.out_height[at]), int(crops.out_width[at]))
    number, region = detail.number, crops.region[at].tolist()
    start, end = roi((region[0], region[1], region[2], region[3]), int(crops.level[at]))
    mean, std = bounds(
        mode,
        bits,
        number("min"),
        number("max"),
        (number("p0_5"), number("p99_5")),
        (number("mean"), number("std")),
    )
    return Prepared(
        data=pixels,
        top=(1 << bits) - 1,
        start=(int(crops.top[at]), int(crops.left[at])),
        shape=(int(crops.height[at]), int(crops.width[at])),
        roi_start=start,
        roi_end=end,
        size=size,
        pad=micro.shape.padded_size(*size, micro.patch),
        flip=bool(crops.flip[at]),
        mean=mean,
        std=std,
    )

"""What every peer does with a sample: the same decoders, the same resizing and normalising, the same batches."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Record = dict[str, Any]
Image = Any  # torch.Tensor, float32
SIDE = 224
FIELDS = ("image", "key", "low", "high", "bits", "height", "width")  # of a stored sample
FETCHES = 16  # reads at once, for those that are told: as many as ours
EXTENSIONS = {"png": "png", "htj2k": "j2c"}  # of a file, by variant


def level_of(height: int, width: int) -> int:
    """Return the most halvings that leave both sides at least SIDE: `level="auto"` for the central square."""
    return min(5, max(0, int(math.log2(min(height, width) / SIDE)))) if min(height, width) >= SIDE else 0


# --- pixels: what a worker does with one sample


@dataclass(frozen=True)
class Work:
    """What a worker does with one sample.

    Attributes
    ----------
    variant
        png, htj2k or dicom.
    task
        full (native size) or 224 (central square, resized with antialiasing).
    shared
        Whether another process takes the images: then they lie in shared memory.
    """

    variant: str
    task: str
    shared: bool = True

    def __call__(self, key: str, data: bytes | memoryview, facts: Record) -> tuple[str, Image]:
        """Decode a sample; `facts` are its low, high, bits, height and width."""
        import imagecodecs

        from shardkit.codecs import htj2k

        if self.variant == "png":
            # A tenth faster than cv2.imdecode here. It takes any buffer, whatever its stub says.
            pixels = imagecodecs.png_decode(data)  # type: ignore[arg-type]
        else:
            level = level_of(facts["height"], facts["width"]) if self.task == str(SIDE) else 0
            pixels = htj2k.decode(bytes(data), level, facts["bits"])
        return key, self._finished(pixels, facts["low"], facts["high"])

    def dicom(self, key: str, data: bytes) -> tuple[str, Image]:
        """Do as the thesis did: pixel_array, MONOCHROME1 inverted, divided by the image's maximum."""
        pixels = self.decoded(data)
        return key, self._finished(pixels, 0, max(int(pixels.max()), 1))

    @staticmethod
    def decoded(data: bytes) -> np.ndarray:
        """Return the stored values of a DICOM file, MONOCHROME1 inverted."""
        import pydicom

        dataset = pydicom.dcmread(io.BytesIO(data))
        pixels = dataset.pixel_array
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            pixels = pixels.max() - pixels
        return np.asarray(pixels)

    def _finished(self, pixels: np.ndarray, low: int, high: int) -> Image:
        if self.task == str(SIDE):
            pixels = resized(pixels)
        return normalised(pixels, low, high, self.shared)


def resized(pixels: np.ndarray) -> np.ndarray:
    """Resize the central square to SIDE x SIDE pixels, by area; before normalising, which is then nothing."""
    height, width = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    if (cv2 := opencv()) is not None:
        if square.dtype not in (np.uint8, np.uint16, np.int16):
            square = square.astype(np.float32)
        kind = cv2.INTER_AREA if side >= SIDE else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=kind))
    import torch

    image = torch.from_numpy(square.astype(np.float32))[None, None]
    found = torch.nn.functional.interpolate(image, (SIDE, SIDE), mode="bilinear", antialias=True)
    return np.asarray(found[0, 0])


def normalised(pixels: np.ndarray, low: int, high: int, shared: bool = True) -> Image:
    """Return float32 (x - low) / (high - low), cut off at 0 and 1, in memory shared between processes where wanted."""
    import torch

    if shared:  # as torch's own default_collate does in a worker
        storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(4 * pixels.size)  # type: ignore[no-untyped-call]
        image = torch.empty(0, dtype=torch.float32).set_(storage, 0, pixels.shape, (pixels.shape[1], 1))
    else:
        image = torch.empty(pixels.shape, dtype=torch.float32)
    scale = 1.0 / max(high - low, 1)
    if (cv2 := opencv()) is not None and pixels.dtype in (np.uint8, np.uint16, np.int16, np.float32):
        between = cv2.addWeighted(pixels, scale, pixels, 0.0, -low * scale, dtype=cv2.CV_32F)
    else:
        between = pixels.astype(np.float32)
        between -= low
        between *= scale
    np.clip(between, 0.0, 1.0, out=image.numpy())
    return image


def opencv() -> Any:
    """Return OpenCV, told to use one thread: workers are as many as there are cores; None where it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(1)
    return cv2


def collate(task: str) -> Callable[[list[tuple[str, Image]]], tuple[list[str], Any]]:
    """Return what makes a batch of samples: their keys, and a list of images or, at 224, one tensor."""

    def collated(samples: list[tuple[str, Image]]) -> tuple[list[str], Any]:
        from torch.utils.data import default_collate

        images = [image for _, image in samples]
        return [key for key, _ in samples], default_collate(images) if task == str(SIDE) else images

    return collated


def loader(dataset: Any, job: Record, **more: Any) -> Any:
    """Return a DataLoader whose workers are forked."""
    from torch.utils.data import DataLoader

    ready()
    return DataLoader(dataset, num_workers=job["workers"], multiprocessing_context="fork", **more)


def ready() -> None:
    """Import what samples are decoded with: before workers begin, and outside the time."""
    import torch.utils.data  # noqa: F401

    import shardkit.codecs.htj2k
    import shardkit.kernels  # noqa: F401 - of its levels

    opencv()


def client(place: Record) -> Any:
    """Return boto3's client of the bucket of a place."""
    import boto3

    return boto3.client("s3", endpoint_url=place["endpoint"])


def bucket_of(place: Record) -> tuple[str, str]:
    """Return the bucket of a place, and the prefix of the data in it."""
    bucket, _, prefix = place["url"].removeprefix("s3://").partition("/")
    return bucket, prefix

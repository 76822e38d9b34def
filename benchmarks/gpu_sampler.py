"""What NVML says of a GPU, ten times a second, while something else runs on it.

Its utilisation is the share of the last sixth of a second or so in which any kernel ran at all: a busy GPU is not yet a
well used one, which is what MFU tells. Only the arithmetic has been run by its authors, with a made-up NVML.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.results import Record

EVERY = 0.1  # seconds
_MIB = 1 << 20


class Sampler(threading.Thread):
    """Samples a GPU's utilisation and memory in the background.

    Parameters
    ----------
    nvml
        The module pynvml, initialised.
    handle
        Of a device, as NVML gave it.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        super().__init__(name="nvml-sampler", daemon=True)
        self._nvml, self._handle, self._over = nvml, handle, threading.Event()
        self._samples: list[tuple[float, int, int, int]] = []

    def run(self) -> None:
        """Sample until stopped, once at least."""
        while True:
            rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
            used = self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used
            self._samples.append((time.monotonic(), rates.gpu, rates.memory, used))
            if self._over.wait(EVERY):
                return

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self.join()

    def between(self, begin: float, end: float) -> Record:
        """Return means and peak of the samples of a time, by `time.monotonic()`; shares of 1. Without any, none."""
        inside = [sample for sample in list(self._samples) if begin <= sample[0] <= end]
        if not inside:
            return {"nvml_samples": 0}
        _, busy, copying, used = zip(*inside, strict=True)
        return {
            "nvml_samples": len(inside),
            "sm_busy": sum(busy) / len(inside) / 100,
            "memory_busy": sum(copying) / len(inside) / 100,
            "nvml_peak_mib": max(used) / _MIB,  # of all processes and libraries on the device
        }


@contextmanager
def watching(device: Any) -> Iterator[Sampler | None]:
    """Sample this torch device while the block runs; gives None on a CPU."""
    if device.type != "cuda":
        yield None
        return
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        raise SystemExit("nvidia-ml-py is not installed, which asks the GPU: pip install '.[benchmarks]'") from None
    import torch

    pynvml.nvmlInit()
    # By its own name: CUDA_VISIBLE_DEVICES renumbers what torch sees, and not what NVML sees.
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    sampler = Sampler(pynvml, handle)
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.stop()
        pynvml.nvmlShutdown()

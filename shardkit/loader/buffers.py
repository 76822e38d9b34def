"""Memory for batches that is used again: the kernel clears fresh pages, which costs as much as half a decode.

Buffers are released automatically, and never reused while a tensor refers to them.
"""

import math
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch

_KEPT = 5  # buffers that wait for use: micro-batches are painted ahead
_LINE = 64  # bytes of a cache's line: kernels that write whole ones want them to begin where the memory does
_SLACK = 2  # a buffer serves requests down to this part of its size


class Buffers:
    """Hands out uninitialised CPU tensors. From any thread."""

    def __init__(self) -> None:
        self._free: deque[npt.NDArray[np.uint8]] = deque()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor of this shape, in memory that an earlier one may have had."""
        if not (size := math.prod(shape) * dtype.itemsize):
            return torch.empty(shape, dtype=dtype)
        block = self._take(size)
        # Tensors keep `lent` alive; when it goes, the block is free again.
        lent = block[:size]
        weakref.finalize(lent, self._give_back, block).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _take(self, size: int) -> npt.NDArray[np.uint8]:
        for _ in range(len(self._free)):
            try:
                block = self._free.popleft()
            except IndexError:  # another thread was quicker
                break
            if size <= len(block) <= _SLACK * size:
                return block
            self._free.append(block)
        block = np.empty(size + _LINE, np.uint8)  # NumPy asks for huge pages
        return block[-block.ctypes.data % _LINE :][:size]

    def _give_back(self, block: npt.NDArray[np.uint8]) -> None:
        self._free.append(block)
        while len(self._free) > _KEPT:
            self._free.popleft()

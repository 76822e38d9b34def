"""Memory for batches that is used again: the kernel clears fresh pages, which costs as much as half a decode.

Buffers are released automatically, and never reused while a tensor refers to them.
"""

import math
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch

Block = npt.NDArray[np.uint8]

_KEPT = 5  # buffers that wait for use: micro-batches are painted ahead
_LINE = 64  # bytes of a cache's line: kernels that write whole ones want them to begin where the memory does
_SLACK = 2  # a buffer serves requests down to this part of its size


class _Lease(weakref.ref[Block]):
    """Refers to what tensors keep alive, and has the block that is free when it goes."""

    __slots__ = ("block",)
    block: Block


class Buffers:
    """Hands out uninitialised CPU tensors. From any thread."""

    def __init__(self) -> None:
        self._free: deque[Block] = deque()
        self._leases: dict[int, _Lease] = {}  # by their addresses: a weak reference that goes first tells nothing
        self._ended: deque[weakref.ref[Block]] = deque()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor of this shape, in memory that an earlier one may have had."""
        self._settle()
        if not (size := math.prod(shape) * dtype.itemsize):
            return torch.empty(shape, dtype=dtype)
        block = self._take(size)
        lent = block[:size]  # which tensors keep alive
        # What is called when it goes runs no Python code: there a Ctrl-C would be printed and forgotten.
        lease = _Lease(lent, self._ended.append)
        lease.block = block
        self._leases[id(lease)] = lease
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _settle(self) -> None:
        """Take back what nobody refers to any more."""
        while True:
            try:
                lease = self._ended.popleft()
            except IndexError:
                break
            self._free.append(self._leases.pop(id(lease)).block)
        while len(self._free) > _KEPT:
            try:
                self._free.popleft()
            except IndexError:  # another thread was quicker
                break

    def _take(self, size: int) -> Block:
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

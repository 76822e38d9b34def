"""A GPU that is not there: its tensors have no values, and whoever would wait for it is named.

What lies on the CPU is real, as are shapes. Operators on the GPU run as those of `FakeTensorMode`. What is read off it
is 1, so that a step goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
ROOT = Path(__file__).parents[2]
_OURS = tuple(str(ROOT / name) for name in ("trainer", "shardkit"))
_ASKS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_DECOMPOSES = ("linalg_eig", "linalg_svd", "linalg_lu", "linalg_solve", "linalg_inv", "linalg_cholesky", "linalg_det")


class Pretended(TorchDispatchMode):
    """Runs operators of the GPU without it, and notes places in our code that would wait for it, by file and line.

    Attributes
    ----------
    waits : list of str
        Place and operator, once for each time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[str] = []
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._pinned: list[Tensor] = []  # kept, so that no other tensor takes an address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.partition(".")[0]
        if name in ("_pin_memory", "is_pinned"):
            return self._pin(args[0]) if name == "_pin_memory" else any(args[0] is one for one in self._pinned)
        there = [one for one in tree_leaves((args, kwargs)) if _on_gpu(one)]
        if not there:
            return func(*args, **kwargs)
        if name in ("_to_copy", "copy_", "lift_fresh"):
            return self._copied(func, name, args, kwargs)
        if name.removeprefix("_").startswith(_DECOMPOSES):
            self._wait(name)
        if name in ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"):
            args = (args[0], [self._index(one, args[0]) for one in args[1]], *args[2:])
        elif any(tag in func.tags for tag in _ASKS):
            return self._answer(func, name, args)
        with self._fake:
            return func(*args, **kwargs)

    def _pin(self, tensor: Tensor) -> Tensor:
        own = tensor.clone()
        self._pinned.append(own)
        return own

    def _copied(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Copy; between CPU and GPU without waiting where that is asked for, to the GPU from pinned memory only."""
        source, target = (args[1], args[0]) if name == "copy_" else (args[0], args[0])
        to_gpu = _on_gpu(target) if name == "copy_" else _on_gpu(kwargs.get("device", args[0]))
        free = (kwargs.get("non_blocking") or args[2:3] == (True,)) and any(source is one for one in self._pinned)
        if name == "lift_fresh" or (to_gpu != _on_gpu(source) and not (free and to_gpu) and source.numel()):
            self._wait(name)
        with self._fake:
            made = func(*args, **kwargs)
        return made if to_gpu else torch.ones(made.shape, dtype=made.dtype)

    def _index(self, index: Tensor | None, of: Tensor) -> Tensor | None:
        """Return an index that needs no values: a mask would choose all."""
        if index is None or (_on_gpu(index) and index.dtype != torch.bool):
            return index
        self._wait("index on the CPU" if not _on_gpu(index) else "index by a mask")
        with self._fake:
            return torch.arange(len(index), device=CUDA)

    def _answer(self, func: Any, name: str, args: Any) -> Any:
        self._wait(name)
        if name == "_local_scalar_dense":
            return torch.ones((), dtype=args[0].dtype).item()
        if name == "equal":
            return True
        assert name == "nonzero", f"{self.waits[-1]}: nothing is known of what it gives"
        with self._fake:
            return torch.zeros(args[0].numel(), args[0].ndim, dtype=torch.int64, device=CUDA)

    def _wait(self, name: str) -> None:
        self.waits.append(f"{place()} {name}")

    # --- what lies there

    def module(self, of: nn.Module) -> None:
        """Move a module's tensors there, in place; a tensor that it has twice stays one."""
        moved: dict[int, Tensor] = {}
        for part in of.modules():
            for held in (part._parameters, part._buffers):
                for name, value in held.items():
                    if value is not None:
                        held[name] = moved.setdefault(id(value), self._moved(value))  # type: ignore[assignment]

    def _moved(self, value: Tensor) -> Tensor:
        if isinstance(value, FakeTensor):
            return value
        with self._fake:
            made = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
            return nn.Parameter(made, value.requires_grad) if isinstance(value, nn.Parameter) else made

    def tensor(self, value: Tensor) -> Tensor:
        """Return a tensor of the same shape there."""
        return self._moved(value)

    def of_values(self, real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return `torch.tensor`, which copies what it is given to a GPU and waits."""

        def tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
            if device is None or torch.device(device).type != "cuda":
                return real(data, device=device, **options)
            self._wait("tensor")
            return self._moved(real(data, **options))

        return tensor


def _on_gpu(one: Any) -> bool:
    if isinstance(one, Tensor):
        return one.device.type == "cuda"
    return isinstance(one, torch.device) and one.type == "cuda"


def place() -> str:
    """Name the innermost line of our code that is being run."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_OURS):
            return f"{Path(path).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"

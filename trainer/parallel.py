"""Processes and devices: join them, wrap a model, add numbers up. torchrun's environment says which process this is."""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from shardkit.errors import ArgumentError, ShardkitError

T = TypeVar("T")
_SWITCH = 5e-4
"""Seconds after which a thread has to let another one run Python. The loader's threads run some, and what launches a
kernel has to ask for its turn again. On two busy cores, small additions were 4 times as fast with it as with Python's
5 ms beside a thread that runs Python alone, and 2 to 9 times beside four."""


@dataclass(frozen=True, slots=True)
class World:
    """Which of the processes this is.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all processes.
    device : torch.device
        Device that this process trains on.
    group
        A process group of its own for checkpoints in the background; None without other processes.
    """

    rank: int
    size: int
    device: torch.device
    group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0


def start() -> World:
    """Join the other processes, if torchrun started this one, and choose a device."""
    sys.setswitchinterval(_SWITCH)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TensorFloat-32 where bfloat16 is not used
    if "WORLD_SIZE" not in os.environ:
        return World(0, 1, device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), device, dist.new_group(backend="gloo"))


def stop() -> None:
    """Leave the other processes. Who still holds a group, as a loop or a wrapped model does, should have let it go."""
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()  # a group's threads end with it, and Python aborts where they live longer than it does


def wrap_model(model: nn.Module, blocks: Sequence[nn.Module], how: Literal["ddp", "fsdp"], bf16: bool) -> nn.Module:
    """Return the model as all processes train it together.

    Parameters
    ----------
    model
        On its device.
    blocks
        The model's large repeated parts, which fsdp shards one by one.
    how
        ddp: each process has all weights. fsdp: they are sharded over processes.
    bf16
        Whether fsdp communicates bfloat16 weights.

    Raises
    ------
    ArgumentError
        For fsdp without other processes.
    """
    if how == "fsdp":
        if not dist.is_initialized():
            raise ArgumentError("parallel=fsdp needs torchrun: there is nobody to share weights with")
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
        for part in (*blocks, model):
            fully_shard(part, mesh=mesh, mp_policy=policy if bf16 else MixedPrecisionPolicy())
        return model
    return DistributedDataParallel(model) if dist.is_initialized() else model


def accumulating(model: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Return a context for a micro-batch: gradients are exchanged with the last micro-batch of a step only."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    elif isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum values over processes, in place, and return them."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def average(values: Sequence[Tensor]) -> None:
    """Replace values by their means over processes, in place."""
    for value in values if dist.is_initialized() else ():
        dist.all_reduce(value)
        value /= dist.get_world_size()


def broadcast(value: T) -> T:
    """Return the first process's value, on all of them."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gathered(value: T) -> list[T]:
    """Return the values of all processes, in the order of their numbers, on all of them."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_each(make: Callable[[], T]) -> list[T]:
    """Let each process make something; return what they made, in the order of their numbers, on all of them.

    The first error is raised on all of them, so that nobody waits for the others.
    """
    made: tuple[T | None, ShardkitError | None]
    try:
        made = make(), None
    except ShardkitError as error:
        made = None, error
    every = gathered(made)
    if (refused := next((error for _, error in every if error is not None), None)) is not None:
        raise refused
    return [cast(T, value) for value, _ in every]


def from_first(make: Callable[[], T], world: World) -> T:
    """Let the first process make something, and return it on all of them.

    An error of the first process is raised on all of them, so that nobody waits for the others.
    """
    made: tuple[T | None, ShardkitError | None] = None, None
    if world.is_main:
        try:
            made = make(), None
        except ShardkitError as error:
            made = None, error
    value, refused = broadcast(made)
    if refused is not None:
        raise refused
    return cast(T, value)

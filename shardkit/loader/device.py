"""Where batches are made, and with how many threads."""

import os

import torch

from shardkit.errors import ArgumentError


def chosen(device: str | torch.device | None) -> torch.device:
    """The device a caller names, else the current GPU where there is one. Raises ArgumentError for others."""
    if device is None:
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and found.index is None:  # a thread of ours would take the first one
        found = torch.device("cuda", torch.cuda.current_device())
    if found.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device={device} is neither cpu nor cuda")
    return found


def threads(device: torch.device) -> int:
    """This rank's share of the machine's cores; on a GPU a few, which hand its decoder what it decodes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))  # torchrun's; Slurm binds tasks to their cores
    return share if device.type == "cpu" else min(share, 8)


def stream(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA stream for copies and assembly; None on a CPU."""
    if device.type != "cuda":
        return None
    made: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return made

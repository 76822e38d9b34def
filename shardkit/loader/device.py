"""Where batches are made, by what, and with how many threads."""

import os
from collections.abc import Mapping
from typing import Literal

import torch

from shardkit.codecs.base import Codec, CodestreamCodec
from shardkit.config import cores
from shardkit.errors import ArgumentError

Decoder = Literal["auto", "threads", "dali"]


def chosen(device: str | torch.device | None) -> torch.device:
    """Return the device a caller names, else the current GPU, else the CPU; ArgumentError for others."""
    if device is None:
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and found.index is None:  # a thread of ours would take the first one
        found = torch.device("cuda", torch.cuda.current_device())
    if found.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device={device} is neither cpu nor cuda")
    return found


def share() -> int:
    """Count this rank's share of the machine's cores."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))  # torchrun's; Slurm binds tasks to cores


def threads(device: torch.device, graph: bool) -> int:
    """Count the threads that decode, or that hand the graph on a GPU what it decodes.

    Parameters
    ----------
    device : torch.device
        Where batches are made. Beside a GPU two cores are left to the program that feeds it, and to the loader's
        producer.
    graph : bool
        Whether the graph decodes.
    """
    if device.type == "cpu":
        return share()
    return min(share(), 8) if graph else max(1, share() - 2)


def stream(device: torch.device) -> torch.cuda.Stream | None:
    """Make a CUDA stream for copies and collation; None on a CPU."""
    if device.type != "cuda":
        return None
    made: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return made


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse types that images are not given in.

    Raises
    ------
    ArgumentError
        For any but float32, float16 and bfloat16.
    """
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ArgumentError(f"dtype={dtype} is none of float32, float16, bfloat16")


def decoded_by_graph(decoder: Decoder, codecs: Mapping[str, Codec], device: torch.device) -> bool:
    """Tell whether the graph decodes, or threads do. It decodes the images of all datasets or of none.

    Parameters
    ----------
    decoder : {"auto", "threads", "dali"}
        What a caller asks for. auto lets a GPU decode: an H200 alone gave 7,400 Mpx/s of images of 9 Mpx, eight at a
        time, and 14 threads beside it 1,130 (`benchmarks gpu-check`, steps decode and loader). That a loader is as much
        faster, and how a model beside it fares, was not measured yet.
    codecs : mapping of str to Codec
        What images are encoded by, by the url of their dataset.
    device : torch.device
        Where batches are made.

    Raises
    ------
    ArgumentError
        Where the graph is asked for and cannot decode one of these codecs.
    """
    others = {url: codec.NAME for url, codec in codecs.items() if not isinstance(codec, CodestreamCodec)}
    if decoder == "dali" and others:
        url, name = next(iter(others.items()))
        raise ArgumentError(f"decoder=dali decodes htj2k, and {url} holds {name}: shardkit transcode makes htj2k of it")
    return not others and (decoder == "dali" or (decoder == "auto" and device.type == "cuda"))

"""What all batches of a loader have in common."""

from dataclasses import dataclass

import torch

from shardkit.codecs.base import Codec, CodestreamCodec
from shardkit.loader.graph_input import Normalise


@dataclass(frozen=True, slots=True)
class PrefetchConfig:
    """What all batches of a loader have in common.

    Attributes
    ----------
    codec : Codec
        What samples are encoded by.
    streams : CodestreamCodec, optional
        The same where the graph decodes its streams; None where threads decode.
    normalise : str or tuple of float
        What happens to grey levels; see `shardkit.Loader`.
    dtype : torch.dtype
        Type of the images.
    device : torch.device
        Where batches are made.
    read_ahead : int
        Encoded bytes to have on their way.
    prefetch : int
        Finished batches to hold.
    threads : int
        Threads that decode.
    max_bad : float
        Samples that may fail before `BadDataError`.
    stream : torch.cuda.Stream, optional
        Stream that copies and collation run on; None on a CPU. One for all epochs, or the allocator would keep memory
        for each.
    """

    codec: Codec
    streams: CodestreamCodec | None
    normalise: Normalise
    dtype: torch.dtype
    device: torch.device
    read_ahead: int
    prefetch: int
    threads: int
    max_bad: float = 0.0
    stream: torch.cuda.Stream | None = None

    @property
    def decode(self) -> bool:
        """Whether the graph decodes."""
        return self.streams is not None

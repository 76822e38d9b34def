"""What all batches of a loader have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shardkit.codecs import codec
from shardkit.codecs.base import Codec, CodestreamCodec
from shardkit.loader import device as devices
from shardkit.loader.augmenting import Augment
from shardkit.loader.graph_input import CLIPPED, Normalise
from shardkit.loader.index import Member
from shardkit.plan.views import View


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """How the images of one dataset become grey levels.

    Attributes
    ----------
    codec : Codec
        What they are encoded by.
    streams : CodestreamCodec, optional
        The same where the graph decodes its streams; None where threads decode.
    normalise : str or tuple of float
        What happens to grey levels; see `shardkit.Loader`.
    """

    codec: Codec
    streams: CodestreamCodec | None
    normalise: Normalise


def member_configs(
    members: Sequence[Member], decoder: devices.Decoder, device: torch.device, normalise: Normalise
) -> tuple[MemberConfig, ...]:
    """Say how the images of each dataset become grey levels.

    Parameters
    ----------
    members : sequence of Member
        The datasets.
    decoder : {"auto", "threads", "dali"}
        What a caller asks for.
    device : torch.device
        Where batches are made.
    normalise : str or tuple of float
        For members of which their mixture says nothing.

    Raises
    ------
    ArgumentError
        Where the graph is asked for and cannot decode the images of one of them.
    """
    codecs = {member.index.url: codec(member.index.codec) for member in members}
    graph = devices.decoded_by_graph(decoder, codecs, device)
    return tuple(
        MemberConfig(how, how if graph and isinstance(how, CodestreamCodec) else None, member.normalise or normalise)
        for member in members
        for how in [codecs[member.index.url]]
    )


@dataclass(frozen=True, slots=True)
class PrefetchConfig:
    """What all batches of a loader have in common.

    Attributes
    ----------
    members : tuple of MemberConfig
        One for the dataset, or for each of a mixture.
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
    augment : callable, optional
        Changes each image; see `shardkit.Loader`.
    views : tuple of View
        Those of the batching, where grey levels of one change; else none.
    """

    members: tuple[MemberConfig, ...]
    dtype: torch.dtype
    device: torch.device
    read_ahead: int
    prefetch: int
    threads: int
    max_bad: float = 0.0
    stream: torch.cuda.Stream | None = None
    augment: Augment | None = None
    views: tuple[View, ...] = ()

    @property
    def decode(self) -> bool:
        """Whether the graph decodes."""
        return self.members[0].streams is not None

    @property
    def graph(self) -> bool:
        """Whether a DALI graph makes the images: on a GPU, and where it decodes."""
        return self.decode or self.device.type != "cpu"

    @property
    def clip(self) -> bool:
        """Whether all images are cut off at 0 and 1 as they are laid out; those that are changed are before."""
        unchanged = self.augment is None and not self.views
        return unchanged and all(member.normalise in CLIPPED for member in self.members)

"""The steps of `benchmarks gpu-check`: functions from where it runs to figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


METHODS = {
    "simmim": "krones-simmim",
    "gmml": "krones-gmml",
    "sit": "krones-sit",
    "dino": "krones-dino-s16",
    "moco": "medmae-densenet121-moco",
}
"""Of pre-training, beside the masked autoencoder: name -> recipe."""


class Skipped(Exception):
    """Something that the step needs is not here; says what."""


@dataclass(frozen=True)
class Where:
    """On what the steps run.

    Attributes
    ----------
    kind
        Kind of device.
    data
        Folder or url of the dataset.
    quick
        Whether little time is there.
    seed
        Of the plan and the weights.
    labels
        Name of a table of labels of the dataset, with one column of classes; empty for none.
    """

    kind: Literal["cuda", "cpu"]
    data: str
    quick: bool
    seed: int
    labels: str = ""

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is there."""
        return self.kind == "cuda"

    @cached_property
    def device(self) -> torch.device:
        """The first GPU, or the CPU."""
        import torch

        return torch.device("cuda", 0) if self.on_gpu else torch.device("cpu")

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        import torch

        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def need_dali() -> None:
    """Skip a step where DALI is missing, and say why it cannot be used."""
    from shardkit.errors import ArgumentError
    from shardkit.loader.graph import load_dali

    try:
        load_dali()
    except ArgumentError as missing:
        because = missing.__context__
        raise Skipped(f"{missing} ({because})") from None

"""What the loop trains: a model, how a batch goes through it, what that costs and what it looks like."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shardkit import BinnedBatch, PackedBatch
from trainer.config import Model
from trainer.models.flops import image_flops, run_flops
from trainer.models.hiera import HieraConfig, HieraMae
from trainer.models.hiera import flops as hiera_flops
from trainer.models.mae import Mae
from trainer.models.output import Output
from trainer.models.sequences import from_binned, sequences
from trainer.objectives.pictures import triptychs

Batch = BinnedBatch | PackedBatch


class Task(ABC):
    """model: what is trained. patch: side of a token in pixels."""

    model: nn.Module
    patch: int

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """Its large repeated parts: compiled and shared out one by one."""

    @abstractmethod
    def run(self, model: nn.Module, batch: Batch) -> Output:
        """A batch through the model, or through what wraps it."""

    @abstractmethod
    def flops(self, tokens: Tensor) -> Tensor:
        """float64 (S,), operations of training on images of so many tokens, float64 (S,)."""

    @abstractmethod
    def run_flops(self, batch: Batch) -> Tensor:
        """float64 (), operations of training on a batch as it is run, padding and filler too."""

    @abstractmethod
    def picture(self, batch: Batch, output: Output) -> npt.NDArray[np.uint8]:
        """(rows, cols) grey levels: what the model made of some images."""

    def tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """float64 (S,) of each image's own tokens, 0 for none, and float64 () of all that are run."""
        sizes = batch.hw if isinstance(batch, PackedBatch) else batch.sizes
        own = (-(-sizes // self.patch)).double().prod(1) * batch.weight
        pixels = batch.patches if isinstance(batch, PackedBatch) else batch.images
        return own, own.new_full((), pixels.numel() // self.patch**2)


@final
class Pretrain(Task):
    """Masked autoencoding."""

    def __init__(self, config: Model) -> None:
        self.config = config
        self.model: Mae | HieraMae = HieraMae(config) if isinstance(config, HieraConfig) else Mae(config)
        self.patch = self.model.patch

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See `Task`."""
        return [*self.model.blocks, *self.model.decoder_blocks]

    def run(self, model: nn.Module, batch: Batch) -> Output:
        """See `Task`."""
        given: Any = batch if isinstance(self.model, HieraMae) else sequences(batch, self.patch)
        out: Output = model(given)
        return out

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Task`."""
        if isinstance(self.config, HieraConfig):
            return (tokens > 0) * (3.0 * hiera_flops(self.config))
        return (tokens > 0) * 3.0 * image_flops(self.config, tokens)

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Task`."""
        if isinstance(self.config, HieraConfig):
            return batch.weight.new_full((), 3.0 * hiera_flops(self.config) * len(batch.weight), dtype=torch.float64)
        return 3.0 * run_flops(self.config, sequences(batch, self.patch))

    def picture(self, batch: Batch, output: Output) -> npt.NDArray[np.uint8]:
        """See `Task`."""
        of = from_binned(batch, self.patch) if isinstance(batch, BinnedBatch) else sequences(batch, self.patch)
        return triptychs(of, output, self.patch, self.config.norm_pix)

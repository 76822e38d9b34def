"""Losses by the bin of the dataset that an image is stored in."""

import torch
from torch import Tensor

from shardkit import Loader
from trainer.models.output import Output


class Bins:
    """Which bin a sample is stored in, by its row of the manifest."""

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self.names, of = loader.bins()
        self._of = torch.from_numpy(of).to(device)

    def zeros(self) -> Tensor:
        """float64 (2, bins), for losses summed and images."""
        return torch.zeros(2, len(self.names), dtype=torch.float64, device=self._of.device)

    def add(self, by_bin: Tensor, rows: Tensor, output: Output) -> None:
        """Losses and numbers of the images that count to their bins'."""
        rows = rows.to(by_bin.device)
        counts = output.weight.double() * (rows >= 0)
        number = self._of[rows.clamp(min=0)].long()
        by_bin.index_add_(1, number, torch.stack([output.losses.detach().double() * counts, counts]))

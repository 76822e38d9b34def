"""Losses by the bin of the dataset that an image is stored in."""

import torch
from torch import Tensor

from shardkit import Loader
from trainer.models.output import Output


class BinLosses:
    """Which bin a sample is stored in, by its row of the manifest.

    Parameters
    ----------
    loader
        Of the dataset.
    device
        Device that losses are added up on.

    Attributes
    ----------
    names : list of str
        Names of the bins, such as 0480x0480.
    """

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self.names, of = loader.bins()
        self._of = torch.from_numpy(of).to(device)

    def zeros(self) -> Tensor:
        """Return float64 (2, bins) of zeros, for `add`."""
        return torch.zeros(2, len(self.names), dtype=torch.float64, device=self._of.device)

    def add(self, by_bin: Tensor, rows: Tensor, output: Output) -> None:
        """Add the losses and the number of the images that count to their bins.

        Parameters
        ----------
        by_bin
            float64 (2, bins): losses summed, and images. Changed in place.
        rows
            int64 (S,), rows of the manifest, -1 without an image.
        output
            What became of these images.
        """
        rows = rows.to(by_bin.device)
        counts = output.weight.double() * (rows >= 0)
        number = self._of[rows.clamp(min=0)].long()
        by_bin.index_add_(1, number, torch.stack([output.losses.detach().double() * counts, counts]))

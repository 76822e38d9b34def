"""A loader for programs that want a `torch.utils.data.Dataset`."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from shardkit.errors import ArgumentError
from shardkit.loader.batch import BatchPosition
from shardkit.loader.collate import Loaded
from shardkit.loader.loader import Loader


class TorchDataset(IterableDataset[Loaded]):
    """A loader for those who want a DataLoader: `DataLoader(TorchDataset(loader), batch_size=None)`.

    The loader has its own threads, so num_workers stays 0, and its own shares, so that no sampler and no `prepare` may
    divide it again. Its state passes through, as StatefulDataLoader wants it; torch's own DataLoader saves none.

    Parameters
    ----------
    loader : Loader
        Where batches come from.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Loaded]:
        """Go through an epoch, as `Loader` does; ArgumentError in a worker process."""
        if get_worker_info() is not None:
            raise ArgumentError("shardkit's loader has threads of its own: use num_workers=0")
        return iter(self.loader)

    def __len__(self) -> int:
        """Count the micro-batches of an epoch on this rank: who knows it need not look ahead for the end."""
        return len(self.loader)

    def state_dict(self, after: BatchPosition | None = None) -> dict[str, Any]:
        """Return the loader's state: see `Loader.state_dict`."""
        return self.loader.state_dict(after)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken: see `Loader.load_state_dict`."""
        self.loader.load_state_dict(state)

    def __repr__(self) -> str:
        """Show the loader."""
        return f"TorchDataset({self.loader!r})"

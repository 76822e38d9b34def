"""Places of a batch that hold an image: the CPU knows them, so that nobody waits for a GPU to leave the others out."""

import numpy as np
from torch import Tensor

from shardkit import BinnedBatch


def filled(batch: BinnedBatch) -> Tensor:
    """Return the places with an image, on the batch's device: int64 (n,), ascending."""
    return batch.send(np.flatnonzero(batch.slots().there))


def count_filled(batch: BinnedBatch) -> int:
    """Return how many places hold an image."""
    return int(np.count_nonzero(batch.slots().there))


def put_back(found: Tensor, batch: BinnedBatch) -> Tensor:
    """Return what was made of the images alone with zeros in empty places: (n or S, ...) -> (S, ...).

    Parameters
    ----------
    found
        Of the images of a batch, or of all its S places, which is returned as it is.
    batch
        Whose images they are.
    """
    places = len(batch.rows)
    if len(found) == places:
        return found
    return found.new_zeros(places, *found.shape[1:]).index_put((filled(batch),), found)

"""Keys of a global step's images: shuffled before they are normalised in groups, the same on any number of processes.

Batch normalisation would tell which images were normalised together, and a query could find its key by that. So keys
are made in other groups than queries: of all images of the step, in an order drawn from the plan's seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardkit import BinnedBatch
from trainer import parallel
from trainer.models.masking import hashed
from trainer.objectives.moco_network import MocoNetwork
from trainer.parallel import World

if TYPE_CHECKING:
    from shardkit.loader.batch import Slots

Ints = npt.NDArray[np.int64]
_SHUFFLE = -1_000_003  # place of the order's draws: no patch, and no block's


@dataclass(frozen=True, slots=True)
class StepImages:
    """The images of a global step that keys are made of, on all processes, in the plan's order.

    Attributes
    ----------
    images : Tensor
        (M * B, 1, H, W): place B * m + i is place i of micro-batch m.
    seeds : Tensor
        int64 (M * B,), the plan's.
    slots : Slots
        Which images they are, in the CPU's memory.
    places : int
        B.
    """

    images: Tensor
    seeds: Tensor
    slots: "Slots"
    places: int

    @classmethod
    def gathered(cls, views: Sequence[BinnedBatch]) -> "StepImages":
        """Exchange the micro-batches of this process for those of all; every place is filled by one process."""
        count, first = len(views[0].rows), views[0]
        images = first.images.new_zeros(first.position.micros * count, *first.images.shape[1:])
        after, seeds = (np.zeros(len(images), np.int64) for _ in range(2))  # rows + 1, so that 0 is no image
        for view in views:
            own = slice(view.position.micro * count, (view.position.micro + 1) * count)
            images[own], slots = view.images, view.slots()
            after[own], seeds[own] = slots.rows + 1, slots.seeds
        for values in (images, *map(torch.from_numpy, (after, seeds))):
            parallel.all_reduce_sum(values)
        return cls(images, first.send(seeds), replace(first.slots(), rows=after - 1, seeds=seeds), count)

    @property
    def there(self) -> Ints:
        """Places with an image: int64 (n,), ascending."""
        return np.flatnonzero(self.slots.there)

    def groups(self) -> list[Ints]:
        """Return places of images, shuffled, in groups of about B, all of them once: int64 each."""
        found = self.there
        drawn = hashed(torch.from_numpy(self.slots.seeds[found]), torch.full((len(found),), _SHUFFLE))
        shuffled = found[torch.argsort(drawn, stable=True).numpy()]
        return np.array_split(shuffled, -(-len(shuffled) // self.places)) if len(shuffled) else []

    def batch(self, group: Ints, like: BinnedBatch) -> tuple[Tensor, BinnedBatch]:
        """Return the places of some images, on the device, and the images as a batch of which each place is filled."""
        at = like.send(group)
        images, seeds = self.images[at], self.seeds[at]
        sizes = torch.stack([torch.full_like(at, side) for side in images.shape[2:]], 1)
        kept = self.slots.at(group)
        return at, BinnedBatch(images, sizes, torch.zeros_like(at), seeds, like.position, kept)


@torch.no_grad()
def keys_of(network: MocoNetwork, views: Sequence[BinnedBatch], width: int, world: World) -> tuple[Tensor, Tensor]:
    """Return the keys of all images of a step, on all processes.

    Parameters
    ----------
    network
        Of keys, in training mode.
    views
        The images of this process that keys are made of: all its micro-batches of the step.
    width
        Channels of a key.
    world
        Which process this is: of the groups it runs every world-size-th.

    Returns
    -------
    tuple of Tensor
        (M * B, width), in the plan's order, 0 where there is no image; int64 (n,), places with an image, ascending.
    """
    step = StepImages.gathered(views)
    like = next(network.parameters())
    found = torch.zeros(
        len(step.seeds), width, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device
    )
    for group in step.groups()[world.rank :: world.size]:
        at, batch = step.batch(group, views[0])
        found[at] = network(batch)[1].to(found.dtype)
    return parallel.all_reduce_sum(found), views[0].send(step.there)


def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Write keys over the oldest ones of a queue, in place.

    Parameters
    ----------
    queue
        (K, width), a ring.
    pointer
        int64 (), where the oldest key is; moved on.
    keys
        (n, width), n at most K.
    """
    at = (pointer + torch.arange(len(keys), device=queue.device)) % len(queue)
    queue[at] = keys.to(queue.dtype)
    pointer.copy_((pointer + len(keys)) % len(queue))

"""Keys of a global step's images: shuffled before they are normalised in groups, the same on any number of processes.

Batch normalisation would tell which images were normalised together, and a query could find its key by that. So keys
are made in other groups than queries: of all images of the step, in an order drawn from the plan's seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shardkit import BinnedBatch
from trainer import parallel
from trainer.models.masking import hashed
from trainer.objectives.moco_network import MocoNetwork
from trainer.parallel import World

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
    there : Tensor
        bool (M * B,), whether there is an image.
    places : int
        B.
    """

    images: Tensor
    seeds: Tensor
    there: Tensor
    places: int

    @classmethod
    def gathered(cls, views: Sequence[BinnedBatch]) -> "StepImages":
        """Exchange the micro-batches of this process for those of all; every place is filled by one process."""
        count, first = len(views[0].rows), views[0]
        images = first.images.new_zeros(first.position.micros * count, *first.images.shape[1:])
        seeds, there = first.seeds.new_zeros(len(images)), first.seeds.new_zeros(len(images))
        for view in views:
            own = slice(view.position.micro * count, (view.position.micro + 1) * count)
            images[own], seeds[own], there[own] = view.images, view.seeds, view.rows >= 0
        for values in (images, seeds, there):
            parallel.all_reduce_sum(values)
        return cls(images, seeds, there > 0, count)

    def groups(self) -> list[Tensor]:
        """Return places of images, shuffled, in groups of about B, all of them once: int64 each."""
        found = torch.nonzero(self.there).flatten()
        drawn = hashed(self.seeds[found], torch.full_like(found, _SHUFFLE))
        shuffled = found[torch.argsort(drawn, stable=True)]
        return list(shuffled.tensor_split(-(-len(shuffled) // self.places))) if len(shuffled) else []

    def batch(self, at: Tensor, like: BinnedBatch) -> BinnedBatch:
        """Return some images as a batch of which each place is filled."""
        images = self.images[at]
        sizes = torch.tensor(images.shape[2:], device=at.device).repeat(len(at), 1)
        return BinnedBatch(images, sizes, torch.zeros_like(at), self.seeds[at], like.position)


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
        (M * B, width), in the plan's order, 0 where there is no image; bool (M * B,), whether there is one.
    """
    step = StepImages.gathered(views)
    like = next(network.parameters())
    found = torch.zeros(
        len(step.there), width, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device
    )
    for group in step.groups()[world.rank :: world.size]:
        found[group] = network(step.batch(group, views[0]))[1].to(found.dtype)
    return parallel.all_reduce_sum(found), step.there


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

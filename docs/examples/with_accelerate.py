"""Accelerate: `prepare` takes model and optimizer. The loader already gives each rank its own share.

accelerate launch docs/examples/with_accelerate.py DATASET
"""

import sys

import torch
from accelerate import Accelerator

from shardkit import Loader, Packed

PATCH, PER_STEP = 8, 2


def main(data: str) -> None:
    """One epoch."""
    accelerator = Accelerator(gradient_accumulation_steps=1)
    net = torch.nn.Sequential(torch.nn.Linear(PATCH**2, 16), torch.nn.Linear(16, PATCH**2))
    model, optimizer = accelerator.prepare(net, torch.optim.AdamW(net.parameters(), 1e-3))
    batching = Packed(tokens=2048, patch=PATCH, level=3, per_step=PER_STEP)
    loader = Loader(
        data, batching=batching, seed=0, device=accelerator.device
    )  # not prepared: it would be divided twice
    rows = []
    for batch in loader:
        with accelerator.accumulate(model):
            weight = batch["weight"][batch["image"].long()]
            error = ((model(batch["patches"]) - batch["patches"]) ** 2).mean(1)
            accelerator.backward((error * weight).sum() / weight.sum().clamp(min=1) / (PER_STEP // loader.world_size))
            if batch.position.last:  # this rank's last micro-batch of the global step
                optimizer.step()
                optimizer.zero_grad()
        rows += [row for row in batch["rows"].tolist() if row >= 0]
    print(f"{loader.world_size} ranks, rank {loader.rank}, rows {sorted(rows)}", flush=True)
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])

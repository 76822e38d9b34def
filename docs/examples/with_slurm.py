"""Slurm without torchrun: one task a GPU, started by srun.

#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-task=1 --cpus-per-task=12
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) MASTER_PORT=29500
srun python docs/examples/with_slurm.py DATASET

The loader needs no rank: it takes the process group's, and where there is none that of the task srun started. A script
that sbatch runs without srun is one process, however many tasks the job has.
"""

import os
import sys

import torch
import torch.distributed as dist

from shardkit import Loader, Packed


def main(data: str) -> None:
    """Count an epoch's images, over all tasks."""
    rank, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    loader = Loader(data, batching=Packed(tokens=2048, patch=8, level=3, per_step=8), seed=0)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", rank=rank, world_size=size)
    images = torch.zeros(1, dtype=torch.int64, device=loader.device)
    for batch in loader:
        images += int(batch.weight.sum())
    print(f"task {loader.rank} of {loader.world_size}: {int(images)} images", flush=True)
    dist.all_reduce(images)
    if rank == 0:
        print(f"{int(images)} images in all", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

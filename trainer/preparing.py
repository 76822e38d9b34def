"""What a loop does before its first step: refuse what does not go together, and compile."""

import torch

from shardkit import Binned, Exact, Loader
from shardkit.errors import ArgumentError
from trainer.config import Config
from trainer.objectives.base import Objective

_GRAPHS = 64  # of one function; past its limit of 8 torch would go on uncompiled without a word


def check_whole(config: Config, objective: Objective) -> None:
    """Refuse weights that are sharded over processes where something needs whole ones.

    Raises
    ------
    ArgumentError
        Says what needs them.
    """
    if config.run.parallel == "ddp":
        return
    if not objective.shardable:
        raise ArgumentError("--run.parallel fsdp shards weights that this objective needs whole: use ddp")
    if config.optim.clip_by == "tensor":
        raise ArgumentError("--optim.clip-by tensor needs whole gradients, which --run.parallel fsdp has not: use ddp")


def compile_blocks(objective: Objective, loader: Loader, backend: str) -> None:
    """Compile the blocks one by one: blocks of one shape share a graph, and the code around them is not compiled.

    Shapes are static where batches have one shape; with many bins dimensions become dynamic with the second.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    dynamic = None if isinstance(loader.batching, (Binned, Exact)) else False
    for block in objective.blocks:
        block.compile(fullgraph=True, dynamic=dynamic, backend=backend)

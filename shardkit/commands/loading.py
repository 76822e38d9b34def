"""Commands about what a loader would do, or did."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shardkit.commands import console
from shardkit.errors import ArgumentError
from shardkit.storage import shown

BATCHING = "packed:tokens=24576,patch=48"
"""What is shown where no batching is named: whole images, and radiographs of any size fit."""


def plan(
    dataset: str,
    *,
    batching: str = BATCHING,
    seed: int = 0,
    epoch: int = 0,
    split: str = "train",
    window: int = 256,
    world_size: int = 1,
) -> int:
    """Print what an epoch costs: tokens, how well it is shuffled, bytes read and cache needed. Reads no shard.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset, or a mixture's file.
    batching
        For example packed:tokens=24576,patch=48, binned:tokens=24576,patch=48 or resized:side=224,batch_size=64. Tokens
        of packed, the patches that a micro-batch holds, are 24,576 unless named.
    seed
        Seed of the run.
    epoch
        Which epoch.
    split
        train, val, test or all; or the official one of a labels table, as nih14:train.
    window
        Shards that are mixed at any time.
    world_size
        Ranks that share a step.
    """
    from shardkit.dataset.rounding import ceil_div
    from shardkit.labels.split_names import Split
    from shardkit.loader.mixture_index import open_index
    from shardkit.loader.plan_report import show
    from shardkit.loader.splits import spec_of
    from shardkit.plan import EpochPlan, from_text
    from shardkit.plan.sizes import check_sizes

    made = from_text(batching)
    if world_size < 1:
        raise ArgumentError(f"--world-size {world_size} must be at least 1")
    if made.per_step % world_size:
        raise ArgumentError(
            f"--world-size {world_size} does not divide the per_step={made.per_step} micro-batches of a step: give a"
            f" world size that does, or --batching with per_step={ceil_div(made.per_step, world_size) * world_size}"
        )
    index, chosen = open_index(dataset), Split.named(split)
    samples = index.samples(chosen)
    check_sizes(made, samples, lambda row: index.detail(row).key)
    planned = EpochPlan(samples, seed, epoch, made, window)
    show(index, planned, spec_of(samples, chosen, False, window, made), seed, epoch, world_size, console)
    return 0


def replay(
    dataset: str | None = None,
    *,
    step: int,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    run: str | None = None,
    state: Path | None = None,
    batching: str | None = None,
    seed: int = 0,
    epoch: int = 0,
    split: str = "train",
    window: int = 256,
) -> int:
    """Write the images of one global step as a PNG, as the model saw them: crops and flips included.

    Parameters
    ----------
    dataset
        Folder or bucket url of the dataset, or a mixture's file; with --run, only if it has moved.
    step
        Which step of the epoch, from 0; with --run, which step of the run's log, from 1.
    out
        PNG file to write.
    run
        Folder or url of a training run, which says all the rest.
    state
        JSON file with a loader's state; says batching, seed, epoch, split and window.
    batching
        Without --state: as for plan, with the same default.
    seed
        Without --state: seed of the run.
    epoch
        Without --state: which epoch.
    split
        Without --state: train, val, test, all, or a labels table's, as nih14:train.
    window
        Without --state: shards that are mixed at any time.
    """
    if run is not None:
        return _replay_run(run, step, dataset, out)
    if dataset is None:
        raise ArgumentError("name the dataset, or a training run with --run")
    from shardkit.loader.replay import from_state, open_loader
    from shardkit.loader.replay import replay as draw
    from shardkit.plan import from_text
    from shardkit.plan.spec import PlanSpec

    if state is not None and batching is not None:
        raise ArgumentError("--state names the batching of its run: leave --batching out")
    if state is not None:
        loader = from_state(dataset, state)
    else:
        chosen = None if split == "all" else split
        loader = open_loader(dataset, PlanSpec(chosen, "", window, from_text(batching or BATCHING)), seed, epoch)
    console.print(draw(loader, step, out), highlight=False, soft_wrap=True)
    return 0


def _replay_run(run: str, step: int, dataset: str | None, out: Path) -> int:
    from shardkit.loader.replay import replay as draw
    from shardkit.loader.replay_run import at_step

    said = draw(*at_step(run, step, dataset), out)
    console.print(f"step {step:,} of {shown(run)}: {said}", highlight=False, soft_wrap=True)
    return 0

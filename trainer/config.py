"""What a run is: frozen records, nested; a recipe is one of them, and the command line changes single values of it."""

from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_type_hints

from cyclopts import Parameter

from shardkit.errors import ArgumentError
from trainer.models.base import ModelConfig
from trainer.objectives.base import ObjectiveConfig
from trainer.objectives.masked import MaskedConfig


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How images come in; see `shardkit.Loader`.

    Parameters
    ----------
    batching
        As text, e.g. packed:tokens=24576,patch=48,per_step=64; per_step micro-batches make a global step.
    normalise
        none, percentile, minmax, fullscale, zscore, or a dataset's mean,deviation in full scale.
    split
        train, val, test, or all.
    window
        Shards that are mixed at any time; `shardkit plan` says how well.
    cache
        Folder for whole shards on a local disk; without one, just the bytes needed are read.
    cache_gib
        GiB the cache may take.
    threads
        That decode; default this rank's share of the cores.
    prefetch
        Finished batches to hold.
    max_bad
        Share of an epoch's samples that may be unreadable.
    attempts
        Times that bytes are read which come back wrong, before their sample counts as unreadable.
    deadline
        Seconds to wait for a store that is away or refuses, before the run ends.
    """

    batching: str
    normalise: str = "percentile"
    split: str = "train"
    window: int = 256
    cache: Path | None = None
    cache_gib: float = 100.0
    threads: int | None = None
    prefetch: int = 2
    max_bad: float = 0.001
    attempts: int = 5
    deadline: float = 60.0


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights change.

    Parameters
    ----------
    name
        AdamW, or Adam.
    lr
        Greatest learning rate, of the global batch as it is: nothing scales it.
    betas
        Decay rates of the moments.
    eps
        Added to the root of the second moment.
    weight_decay
        Of the parameters that decay.
    decay
        Which do: matrices, all but biases, norms and what the model's no_weight_decay names; or all of them.
    schedule
        cosine with linear warm-up, or one cycle.
    warmup
        Share of the steps.
    floor
        Learning rate at the end of the cosine.
    clip
        Greatest norm of the gradient; none without.
    ema
        Decay of an average of the weights; 0 keeps none.
    """

    name: Literal["adamw", "adam"] = "adamw"
    lr: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.05
    decay: Literal["matrices", "all"] = "matrices"
    schedule: Literal["cosine", "onecycle"] = "cosine"
    warmup: float = 0.05
    floor: float = 0.0
    clip: float | None = None
    ema: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, and on what.

    Parameters
    ----------
    epochs
        Length of the run, in steps of the first epoch; packed epochs differ by a step or so.
    steps
        Length of the run in global steps, instead.
    seed
        Of the weights, the plan and the masks.
    precision
        bf16 is autocast with float32 weights.
    parallel
        ddp: each rank holds all weights; fsdp: weights, gradients and moments are shared out.
    compile
        Compile the blocks, one by one.
    compile_backend
        Of torch.compile.
    max_skipped
        Global steps without a finite loss or gradient that may be skipped before the run stops.
    on_new_data
        Where the dataset has changed since the last checkpoint: refuse, or restart-epoch, which keeps weights, moments,
        step and schedule, and begins the epoch anew on the dataset as it is.
    """

    epochs: float = 1.0
    steps: int | None = None
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    compile: bool = True
    compile_backend: str = "inductor"
    max_skipped: int = 10
    on_new_data: Literal["refuse", "restart-epoch"] = "refuse"


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """Checkpoints.

    Parameters
    ----------
    every
        Steps between them; one is written at the end and on SIGTERM anyway.
    keep
        How many of the last to keep.
    """

    every: int = 500
    keep: int = 3


@dataclass(frozen=True, kw_only=True)
class ValConfig:
    """Validation on the val split.

    Parameters
    ----------
    every
        Steps between two validations, and one at the end: loss, pictures, loss by bin; 0 does none.
    """

    every: int = 500


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written down on the way.

    Parameters
    ----------
    every
        Steps between two lines; each is a mean of the steps since the last.
    pictures
        Steps between two grids of input, masked, reconstruction and difference; 0 draws none.
    baseline
        Micro-batches to measure the mean image on, before the first step; 0 leaves it out.
    tensorboard
        Write its event files too.
    wandb
        Project of Weights & Biases to write to, too; needs its package, wandb.
    profile
        First step, and steps, of a window for torch's profiler.
    peak_tflops
        Peak of the device for the share of it (MFU) where it is not known, or known better.
    """

    every: int = 10
    pictures: int = 500
    baseline: int = 16
    tensorboard: bool = True
    wandb: str | None = None
    profile: tuple[int, int] | None = None
    peak_tflops: float | None = None


_MASKED = MaskedConfig()


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of a run but where its data lie and where it writes."""

    model: ModelConfig
    loader: LoaderConfig
    optim: OptimConfig
    objective: ObjectiveConfig = _MASKED
    run: RunConfig = RunConfig()
    save: SaveConfig = SaveConfig()
    val: ValConfig = ValConfig()
    log: LogConfig = LogConfig()


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> plain value."""
    found: dict[str, Any] = {}
    for f in fields(value):
        own, name = getattr(value, f.name), f"{prefix}{f.name}"
        if is_dataclass(own):
            found |= flat(own, f"{name}.")
        else:
            found[name] = list(own) if isinstance(own, tuple) else str(own) if isinstance(own, Path) else own
    return found


def defaulting_to(value: Any) -> type[Any]:
    """The class of a record, made again with this record's values as its defaults, all the way down.

    With it a command line offers every value of a recipe as an option, and shows the recipe's in its help.
    """
    hints = get_type_hints(type(value))
    made: list[Any] = []
    for f in fields(value):
        own = getattr(value, f.name)
        kind = defaulting_to(own) if is_dataclass(own) else hints[f.name]
        default = kind() if is_dataclass(own) else own
        if is_dataclass(own) and not fields(own):  # no options
            kind = Annotated[kind, Parameter(parse=False)]
        made.append((f.name, kind, field(default=default)))
    again = make_dataclass(type(value).__name__, made, bases=(type(value),), frozen=True, kw_only=True)
    again.__doc__, again.__module__ = type(value).__doc__, type(value).__module__
    return again


Record = TypeVar("Record")


def from_flat(kind: type[Record], values: dict[str, Any]) -> Record:
    """A record of plain fields from what `flat` said of one. Raises ArgumentError for fields that it does not have."""
    if unknown := sorted(values.keys() - {f.name for f in fields(cast(Any, kind))}):
        raise ArgumentError(f"the run has the option {unknown[0]}, which this version does not know: use the run's")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

"""What a run is: nested frozen records. A recipe is such a record, and the command line changes single values of it."""

from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_type_hints

from cyclopts import Parameter

from shardkit.errors import ArgumentError
from trainer.augment import AugmentConfig
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
        train, val, test, or all; or the official one of a labels table, e.g. nih14:train.
    window
        Number of shards that are mixed at any time; `shardkit plan` says how well.
    cache
        Folder for whole shards on a local disk; without one, only the bytes that are needed are read.
    cache_gib
        Size limit of the cache in GiB.
    threads
        Number of threads that decode; by default this rank's share of the cores.
    decoder
        What decodes: threads, or dali; auto is dali on a GPU, where it can decode all images.
    prefetch
        Number of finished batches to hold ready.
    max_bad
        Share of an epoch's samples that may be unreadable.
    attempts
        How often bytes that come back wrong are read before their sample counts as unreadable.
    deadline
        Seconds to wait for a store that is away or refuses before the run ends.
    """

    batching: str
    normalise: str = "percentile"
    split: str = "train"
    window: int = 256
    cache: Path | None = None
    cache_gib: float = 100.0
    threads: int | None = None
    decoder: Literal["auto", "threads", "dali"] = "auto"
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
        adamw, adam, sgd, or lars, for probes in large batches.
    lr
        Greatest learning rate. It is used as it is: nothing scales it with the batch.
    betas
        Decay rates of the first and second moment, of adamw and adam.
    eps
        Added to the root of the second moment.
    momentum
        Share of the last change that stays, of sgd and lars.
    trust
        Trust coefficient of lars.
    weight_decay
        Weight decay of the parameters that `decay` selects.
    decay
        Which parameters decay. matrices: all but biases, norms and what the model's no_weight_decay names. all: all.
    layer_decay
        Factor of the learning rate from an encoder's layer to the one before it, for fine-tuning; 1 is none.
    weight_decay_end
        Weight decay at the end of a cosine over the run that begins with weight_decay; without one, it is constant.
    schedule
        cosine with linear warm-up, one cycle, constant after linear warm-up, or multistep: constant but for milestones.
    warmup
        Share of the steps in which the learning rate rises.
    warmup_from
        Learning rate that the warm-up rises from.
    rise
        Which ends of the rise are steps: its end (the first step is above warmup_from), its start (the last step is
        below the greatest rate), or both.
    floor
        Learning rate at the end of the cosine.
    milestones
        Shares of the steps at which multistep multiplies the rate by gamma.
    gamma
        Factor of multistep.
    rate_by
        How often the learning rate changes: with every step, or with every epoch.
    clip
        Greatest norm of the gradient; without one, nothing is clipped.
    clip_by
        What is clipped: the gradient of the whole model, or that of each tensor for itself.
    ema
        Decay of a moving average of the weights; 0 keeps no average.
    """

    name: Literal["adamw", "adam", "sgd", "lars"] = "adamw"
    lr: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.9
    trust: float = 0.001
    weight_decay: float = 0.05
    weight_decay_end: float | None = None
    decay: Literal["matrices", "all"] = "matrices"
    layer_decay: float = 1.0
    schedule: Literal["cosine", "onecycle", "constant", "multistep"] = "cosine"
    warmup: float = 0.05
    warmup_from: float = 0.0
    rise: Literal["end", "start", "both"] = "end"
    floor: float = 0.0
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    rate_by: Literal["step", "epoch"] = "step"
    clip: float | None = None
    clip_by: Literal["model", "tensor"] = "model"
    ema: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long a run is, and how it is computed.

    Parameters
    ----------
    epochs
        Length of the run, in steps of the first epoch; packed epochs differ by a step or so.
    steps
        Length of the run in global steps, instead of epochs.
    seed
        Seed of the weights, the plan and the masks.
    precision
        bf16 is autocast with float32 weights.
    parallel
        ddp: each rank holds all weights; fsdp: weights, gradients and moments are sharded over the ranks.
    compile
        Compile the blocks, one by one.
    compile_backend
        Backend of torch.compile.
    max_skipped
        Number of global steps without a finite loss or gradient that may be skipped before the run stops.
    seeds
        Several seeds: as many runs, one after another, in folders seed_0 and so on of the run's folder.
    on_new_data
        What to do where the dataset has changed since the last checkpoint: refuse, or restart-epoch, which keeps
        weights, moments, step and schedule, and begins the epoch anew on the dataset as it is.
    """

    epochs: float = 1.0
    steps: int | None = None
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    compile: bool = True
    compile_backend: str = "inductor"
    max_skipped: int = 10
    seeds: tuple[int, ...] = ()
    on_new_data: Literal["refuse", "restart-epoch"] = "refuse"


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When checkpoints are written, and how many are kept.

    Parameters
    ----------
    every
        Steps between two checkpoints; one is written at the end and on SIGTERM anyway.
    keep
        Number of the last checkpoints to keep.
    """

    every: int = 500
    keep: int = 3


@dataclass(frozen=True, kw_only=True)
class ValConfig:
    """Validation on the val split.

    Parameters
    ----------
    every
        Steps between two validations, with one at the end: loss, loss by bin, pictures. 0 does none.
    """

    every: int = 500


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Which checkpoint is the best one, and when a run ends early.

    Parameters
    ----------
    metric
        Name of a metric of the validation, or loss; without one no checkpoint is chosen.
    split
        val; or test, which makes a score on the test split too good: pages say that it was done.
    patience
        Number of validations without a better value after which the run ends; 0 goes on to the last step.
    """

    metric: str = ""
    split: Literal["val", "test"] = "val"
    patience: int = 0


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written down during a run.

    Parameters
    ----------
    every
        Steps between two lines; each line is a mean over the steps since the last one.
    pictures
        Steps between two pictures of what the model makes of some images; 0 draws none.
    baseline
        Number of micro-batches to measure the objective's baseline on, before the first step; 0 leaves it out.
    tensorboard
        Write event files for TensorBoard, too.
    wandb
        Project of Weights & Biases to write to, too; needs the package wandb.
    profile
        First step, and number of steps, to run under torch's profiler.
    peak_tflops
        Peak of the device in TFLOP/s, which MFU is a share of, where it is not known, or known better.
    """

    every: int = 10
    pictures: int = 500
    baseline: int = 16
    tensorboard: bool = True
    wandb: str | None = None
    profile: tuple[int, int] | None = None
    peak_tflops: float | None = None


_MASKED, _NO_CHANGE = MaskedConfig(), AugmentConfig()


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of a run except where its data lie and where it writes."""

    model: ModelConfig
    loader: LoaderConfig
    optim: OptimConfig
    objective: ObjectiveConfig = _MASKED
    augment: AugmentConfig = _NO_CHANGE
    run: RunConfig = RunConfig()
    save: SaveConfig = SaveConfig()
    val: ValConfig = ValConfig()
    select: SelectConfig = SelectConfig()
    log: LogConfig = LogConfig()


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested records by dotted name, as plain values that JSON can hold."""
    found: dict[str, Any] = {}
    for f in fields(value):
        own, name = getattr(value, f.name), f"{prefix}{f.name}"
        if is_dataclass(own):
            found |= flat(own, f"{name}.")
        else:
            found[name] = list(own) if isinstance(own, tuple) else str(own) if isinstance(own, Path) else own
    return found


def defaulting_to(value: Any) -> type[Any]:
    """Return a record's class, made again with this record's values as its defaults, nested ones too.

    With it a command line offers every value of a recipe as an option, and shows the recipe's in its help.
    """
    hints = get_type_hints(type(value), include_extras=True)
    made: list[Any] = []
    for f in fields(value):
        own = getattr(value, f.name)
        kind = defaulting_to(own) if is_dataclass(own) else hints[f.name]
        default = kind() if is_dataclass(own) else own
        if is_dataclass(own) and not fields(own):  # no options
            kind = Annotated[kind, Parameter(parse=False)]
        if get_args(kind)[-1:] == (...,):  # of any length: --run.seeds 0 1 2
            kind = Annotated[kind, Parameter(consume_multiple=True, negative_iterable=())]
        made.append((f.name, kind, field(default=default)))
    again = make_dataclass(type(value).__name__, made, bases=(type(value),), frozen=True, kw_only=True)
    again.__doc__, again.__module__ = type(value).__doc__, type(value).__module__
    return again


Record = TypeVar("Record")


def from_flat(kind: type[Record], values: dict[str, Any]) -> Record:
    """Return a record of plain fields, made of what `flat` said of one.

    Raises
    ------
    ArgumentError
        For a field that the record does not have.
    """
    if unknown := sorted(values.keys() - {f.name for f in fields(cast(Any, kind))}):
        raise ArgumentError(f"the run has the option {unknown[0]}, which this version does not know: use the run's")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

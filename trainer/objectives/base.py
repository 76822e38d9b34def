"""What the loop minimises: how a batch becomes a loss and metrics, what is kept, what it costs and looks like."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shardkit import Loader, PackedBatch
from trainer.models.base import Batch, Model, ModelConfig
from trainer.models.output import Output
from trainer.models.sequences import grid_of
from trainer.parallel import World


class Objective(ABC):
    """Something to minimise with a model: what pre-training minimises, or a task with labels.

    Only `run` has to be written. An objective with tensors of its own (a queue, a centre, averages) has them as
    attributes, so that they move with it, and gives those that change in `state_dict`, so that a run resumes exactly.
    On several processes these have to be the same on all: exchange what they are made from (`trainer.parallel`).

    Parameters
    ----------
    model
        What is trained.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @abstractmethod
    def run(self, model: nn.Module, batch: Any) -> Output:
        """Run a batch.

        Parameters
        ----------
        model
            The objective's model, or a wrapper around it such as DDP. `model.training` says whether this is training or
            validation.
        batch
            Of the loader.

        Returns
        -------
        Output
            Loss of each image, and metrics.
        """

    def judge(self, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> dict[str, float | None]:
        """Measure the scores of a whole split, by metrics that are no means over images.

        Parameters
        ----------
        rows
            (n,), rows of the manifest, ascending, each once, whatever the number of processes.
        scores
            float32 (n, K), `Output.scores` of these images.

        Returns
        -------
        dict of str to float or None
            Metrics by name; None for what cannot be measured here.
        """
        return {}

    @property
    def judged(self) -> tuple[str, ...] | None:
        """Names of the metrics that `judge` gives; None where they are not known before."""
        return None

    def labelled(self, rows: npt.NDArray[np.int64]) -> int:
        """Count the samples in rows of the manifest that count in the loss: of a task, those that labels know."""
        return len(rows)

    def unmeasurable(self, rows: npt.NDArray[np.int64]) -> tuple[str, ...]:
        """Return the metrics of `judge` that have no value on rows of the manifest, whatever the scores are."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user has to know before anything is trained, in sentences: `run.json` keeps them."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """What `run.json` says of it beside its kind and meanings, as plain values."""
        return {}

    whole_steps: bool = False
    """Whether all micro-batches of a step that this process runs are needed before the first one is run."""

    shardable: bool = True
    """Whether weights may be sharded over processes (`--run.parallel fsdp`)."""

    def begin_step(self, step: int, steps: int, batches: Sequence[Any], world: World) -> None:
        """Prepare a global step, before its first micro-batch is run: temperatures, keys of all samples, schedules.

        Parameters
        ----------
        step
            Number of global steps done.
        steps
            Those of the whole run.
        batches
            The first micro-batch of this process; with `whole_steps` all of them. `batch.position` says which of the
            step's each is, so that what is made of them can be the same on any number of processes.
        world
            Which process this is.
        """
        return

    def before_update(self, step: int, steps: int) -> None:
        """Change gradients, summed over images and exchanged, before they are scaled, clipped and used.

        Parameters
        ----------
        step, steps
            As of `begin_step`.
        """
        return

    def stepped(self, world: World) -> None:
        """Follow an update of the weights, on all processes: running statistics, averages, queues.

        Parameters
        ----------
        world
            Which process this is; exchange what differs between them by `trainer.parallel`.
        """
        self.model.stepped()

    def skipped(self, world: World) -> None:
        """Forget a step that changed no weights, as where its loss was not finite: all is as before it.

        Else what is left of it would flow into the next step, but not into that of a run that is resumed between them.

        Parameters
        ----------
        world
            As of `stepped`, in place of which this is called.
        """
        self.model.skipped()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what a task's scores are of."""
        return ()

    @property
    def loss_meaning(self) -> str:
        """What its loss is, and what it is not, in a sentence or two: the page about a run says it."""
        return "What the objective minimises, each image counting the same."

    @property
    def picture_meaning(self) -> str:
        """What is seen on its pictures, in a sentence or two for the same page; empty where it draws none."""
        return ""

    def picture(self, batch: Batch, output: Any) -> npt.NDArray[np.uint8] | None:
        """Draw what the model made of some images of a batch.

        Parameters
        ----------
        batch
            That was run.
        output
            What `run` returned for it.

        Returns
        -------
        ndarray of uint8 or None
            (rows, cols) grey levels; None where there is nothing to see.
        """
        return None

    def baseline(self, open_loader: Callable[[], Loader], batches: int) -> dict[str, float] | None:
        """Measure what a model has to beat.

        Parameters
        ----------
        open_loader
            Opens the run's loader anew, for one process.
        batches
            Number of micro-batches to measure on, from the first one on.

        Returns
        -------
        dict of str to float, or None
            Losses by the name of what was measured, which uses no model; None where nothing is to be measured.
        """
        return None

    # --- what it keeps beside the model

    def to(self, device: torch.device) -> None:
        """Move to a device: the model, and tensors and modules that are attributes."""
        self.model.to(device)
        for name, value in vars(self).items():
            if isinstance(value, (Tensor, nn.Module)):
                setattr(self, name, value.to(device))

    def state_dict(self) -> dict[str, Tensor]:
        """Return its own tensors by name, without the model's: the same on all processes, of shapes that stay."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    # --- what it costs

    @property
    def patch(self) -> int:
        """Side of a token in pixels."""
        return self.model.patch

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The model's large repeated parts, which are compiled and sharded one by one."""
        return self.model.all_blocks

    def flops(self, tokens: Tensor) -> Tensor:
        """Return the operations of training on images of so many tokens: float64 (S,) -> float64 (S,)."""
        return self.model.flops(tokens)

    def own_flops(self, batch: Any) -> Tensor:
        """Return the operations of training on each image of a batch, without padding: float64 (S,)."""
        return self.flops(self.tokens(batch)[0])

    def run_flops(self, batch: Batch) -> Tensor:
        """Return the operations of training on a batch as it is run, padding and filler too: float64 ()."""
        return self.model.run_flops(batch)

    def tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Count the tokens of a batch.

        Returns
        -------
        tuple of Tensor
            float64 (S,), each image's own tokens, 0 for none; float64 (), all tokens that are run.
        """
        sizes = batch.hw if isinstance(batch, PackedBatch) else batch.sizes
        own = grid_of(sizes, self.patch).double().prod(1) * batch.weight
        pixels = batch.patches if isinstance(batch, PackedBatch) else batch.images
        return own, own.new_full((), pixels.numel() // self.patch**2)


class ObjectiveConfig(Protocol):
    """A frozen record of plain fields that describes an objective and builds it."""

    def build(self, model: ModelConfig, loader: Loader) -> Objective:
        """Build the objective and its model, with random weights.

        Parameters
        ----------
        model
            Describes the run's model, or the encoder that the objective puts into a model of its own.
        loader
            The run's batches. A task with labels looks them up by `loader.key(row)`, for all rows of the manifest.
        """

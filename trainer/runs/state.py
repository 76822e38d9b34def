"""What a checkpoint holds of a run: weights, moments, average, the objective's own tensors, random states."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from trainer.objectives.base import Objective
from trainer.optim import Average
from trainer.runs import checkpoint, unpickling

Facts = dict[str, Any]
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # by parameter, so that another sharding can read it


class TrainingState:
    """What a checkpoint holds of model, optimiser, average and objective, and this process's random numbers.

    Parameters
    ----------
    model
        The model, or what wraps it.
    optimizer
        The model's.
    average
        Average of the weights, if one is kept.
    rank
        Number of this process.
    objective
        Whose own tensors are saved.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Average | None,
        rank: int,
        objective: Objective | None = None,
    ) -> None:
        self.model, self.optimizer, self.average, self.rank = model, optimizer, average, rank
        self.objective = objective

    def tensors(self) -> dict[str, Any]:
        """Return all of it, nested and in torch's own names."""
        _complete(self.optimizer)
        weights, moments = get_state_dict(self.model, self.optimizer, options=_FLAT)
        rng = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            rng["cuda"] = torch.cuda.get_rng_state()
        average = {} if self.average is None else {"average": self.average.state}
        own = {} if self.objective is None else self.objective.state_dict()
        state = {"objective": own} if own else {}
        return {"model": weights, "optim": moments, "rng": {str(self.rank): rng}, **average, **state}

    def load(self, path: Path) -> Facts:
        """Take over a checkpoint's values in place.

        A process that the checkpoint has no random state of keeps its own.

        Returns
        -------
        dict of str to object
            The checkpoint's facts.

        Raises
        ------
        TrainingError
            For a checkpoint of another model, or one that cannot be read.
        """
        held = self.tensors()
        with checkpoint.readable(path):
            facts = unpickling.progress(path)
            names = checkpoint.check_shapes(path, "model", held["model"])
            checkpoint.check_shapes(path, "objective", held.get("objective", {}))
            if not any(name.startswith(f"rng.{self.rank}.") for name in names):
                del held["rng"]
            unpickling.load(held, path, alone=not dist.is_initialized())
        set_state_dict(
            self.model, self.optimizer, model_state_dict=held["model"], optim_state_dict=held["optim"], options=_FLAT
        )
        if self.objective is not None and "objective" in held:
            self.objective.load_state_dict(held["objective"])
        if own := held.get("rng", {}).get(str(self.rank)):
            torch.set_rng_state(own["cpu"])
            if "cuda" in own:
                torch.cuda.set_rng_state(own["cuda"])
        return facts


@torch.no_grad()
def _complete(optimizer: torch.optim.Optimizer) -> None:
    """Give moments of 0 to parameters that no step has changed, as a frozen layer's, where others have moments.

    The first step that changes them would begin so. A checkpoint without would not load: torch asks for all or none.
    """
    own: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    known = next((p for p in own if p in optimizer.state), None)
    if known is None:
        return
    for p in own:
        if p not in optimizer.state:
            like = optimizer.state[known].items()
            optimizer.state[p] = {n: _zeros(v, p, known) for n, v in like}


def _zeros(value: Any, own: Tensor, known: Tensor) -> Any:
    """Return what a parameter begins with in place of another one's moment, count of steps, or None."""
    if not isinstance(value, Tensor):
        return value
    return torch.zeros_like(own if value.shape == known.shape else value)

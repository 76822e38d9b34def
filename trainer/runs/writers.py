"""Where numbers go besides the run's own files: TensorBoard, Weights & Biases."""

import secrets
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from shardkit.errors import ArgumentError


class Writer(Protocol):
    """Takes the numbers of a step."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write numbers by name; a name may have a group, as in val/loss."""

    def close(self) -> None:
        """End the file, or the run: no more numbers follow."""


def check(wandb: str | None) -> None:
    """Check that the packages are there that writing needs.

    Raises
    ------
    ArgumentError
        Where one is missing.
    """
    if wandb is None:
        return
    try:
        import_module("wandb")
    except ImportError:
        raise ArgumentError("--log.wandb needs the package wandb: pip install wandb, or leave the option out") from None


def writers(folder: Path, after: int, tensorboard: bool, wandb: str | None) -> list[Writer]:
    """Return the writers that are asked for.

    Parameters
    ----------
    folder
        Of the run.
    after
        The last step that stays of what was written before.
    tensorboard
        Whether event files are written.
    wandb
        Project of Weights & Biases, if any.
    """
    found: list[Writer] = [_TensorBoard(folder, after)] if tensorboard else []
    return found if wandb is None else [*found, _Wandb(folder, wandb)]


class _TensorBoard:
    def __init__(self, folder: Path, after: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=after + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """One run there for one of ours, however often that is gone on with: the folder keeps its name."""

    def __init__(self, folder: Path, project: str) -> None:
        name = folder / "wandb-id"
        if not name.exists():
            name.write_text(secrets.token_hex(8))
        module = import_module("wandb")
        self._run: Any = module.init(
            project=project, name=folder.name, dir=str(folder), id=name.read_text(), resume="allow"
        )
        self._run.define_metric("*", step_metric="step")  # steps may be trained again, which its own count forbids

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self) -> None:
        self._run.finish()

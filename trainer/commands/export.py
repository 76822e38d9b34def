"""`python -m trainer export`: a run's weights as a file, and how to use it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file

from shardkit import Loader, from_text
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError, ShardkitError
from trainer.commands import usage
from trainer.commands.export_task import meaning, with_head
from trainer.models.base import Model, Weights
from trainer.models.classifier import HEAD, Classifier
from trainer.models.initial import without_heads
from trainer.models.registry import described
from trainer.runs import best, checkpoint, folder, unpickling
from trainer.runs.files import atomic_write
from trainer.runs.training_data import members_normalised
from trainer.tasks.trained import Trained, opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is asked for: see the command `export`."""

    run: Path
    out: Path
    grid: tuple[int, int] | None = None
    whole: bool = False
    average: bool = False
    channels: Literal[1, 3] | None = None


def export(asked: Export) -> str:
    """Write the file; return sentences about it.

    Raises
    ------
    ArgumentError
        For a run, a grid or a model that cannot be exported.
    TrainingError
        For a checkpoint that cannot be read.
    """
    path = checkpoint.named(asked.run)
    facts = folder.facts(best.run_of(path))
    options = facts["config"]
    task = _task(asked, path)
    model, under = _described(path, options) if task is None else (task.network(len(task.classes)), "")
    channels = asked.channels or (model.encoder if isinstance(model, Classifier) else model).channels
    if asked.grid is None and model.needs_grid:
        asked = replace(asked, grid=usual_grid(str(facts["data"]), options["loader.batching"]))
    size = model.exported_size(asked.grid)
    checkpoint.weights(path, model, asked.average, under)
    if isinstance(model, Classifier):
        call_of, state = with_head(model, asked.grid, channels)
    else:
        call_of = model.timm_call(asked.grid)
        state = (model.whole_weights if asked.whole else model.encoder_weights)(asked.grid, channels)
    call = usage.call(call_of, model.exported_eps, channels, asked.out)
    members = members_normalised(facts)
    how = usage.preparation(options, members, size, channels)
    options |= {f"{usage.OF_MEMBER}{name}": normalise for name, normalise in members.items()}
    about = {**options, "step": unpickling.progress(path)["step"], "average": asked.average, "height": size[0]}
    about |= {"width": size[1], "channels": channels, "image": how, **({} if asked.whole else {"call": call})}
    what = "the encoder"
    if task is not None:
        about |= {"kind": task.task.kind, "classes": json.dumps(task.classes)}
        what, how = "encoder and head", f"{meaning(task.task.kind, task.classes)} {how}"
        shown = from_text(options["loader.batching"]).augmentation
        if shown.side is None or shown.fit == "pad":
            how += (
                f" The scores are the run's for images that fill {size[0]} x {size[1]} pixels; the run leaves padding"
                " out, and timm's model does not, so that those of other images can be far off."
            )
    if asked.grid is not None:
        about["grid"] = "x".join(map(str, asked.grid))
    _write(asked, state, {name: str(value) for name, value in about.items()})
    if asked.whole:
        return f"{asked.out} holds all of {path}, its norms with eps={model.norm_eps!r}. {how}"
    only = (
        "" if asked.grid is None else "; for another grid of patches export again, timm's resampling changes features"
    )
    return f"{asked.out} holds {what} of {path}{only}:\n\n{call}\n\n{how}"


def _task(asked: Export, path: Path) -> Trained | None:
    """Open a run that has a task; None for another one."""
    if HEAD not in checkpoint.names(path):
        return None
    if asked.whole:
        raise ArgumentError(f"--whole is for masked autoencoders, and {asked.run} is a task: leave it out")
    return opened(best.run_of(path), str(path))


def _described(path: Path, options: Mapping[str, Any]) -> tuple[Model, str]:
    """Build the model of a run without a task; say what comes before its names there."""
    values = {n.removeprefix("model."): v for n, v in options.items() if n.startswith("model.")}
    return without_heads(described(values), checkpoint.names(path))


def usual_grid(data: str, text: str) -> tuple[int, int] | None:
    """Return rows and columns of patches that suit a run's images.

    They are those of its recipe's image size, else of the dataset's commonest bin; None where the dataset cannot be
    opened.
    """
    batching = from_text(text)
    if (side := batching.augmentation.side) is not None:
        return side // batching.patch, side // batching.patch
    try:
        names, of = Loader(data, batching=batching, split=None, device="cpu", deadline=5.0).bins()
    except ShardkitError:
        return None
    sides = names[int(np.bincount(of).argmax())].split("x")
    level = batching.level if isinstance(batching.level, int) else 0
    rows, columns = (ceil_div(int(side), batching.patch << level) for side in sides)
    return rows, columns


def _write(asked: Export, state: Weights, about: dict[str, str]) -> None:
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(asked.out) as fresh:
        if asked.out.suffix == ".safetensors":
            save_file({name: value.contiguous() for name, value in state.items()}, fresh, about)
            return
        nested: Any = {"model": state} if asked.whole else state  # as facebookresearch/mae saves it; as timm does
        torch.save(nested, fresh)

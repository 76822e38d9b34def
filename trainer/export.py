"""`python -m trainer export`: a run's weights as a file."""

import json
from pathlib import Path
from typing import Any

import torch

from trainer import checkpoint
from trainer.config import from_flat
from trainer.files import whole as whole_file
from trainer.formats import encoder_state, original_state
from trainer.hiera import HieraConfig, HieraMae
from trainer.mae import Mae, MaeConfig


def export(run: Path, out: Path, grid: tuple[int, int], whole: bool, average: bool) -> str:
    """Write the file; returns a sentence about it. Raises ArgumentError and TrainingError."""
    place = checkpoint.named(run)
    facts: dict[str, Any] = json.loads((place.parent.parent / "run.json").read_text())
    values = {name.removeprefix("model."): v for name, v in facts["config"].items() if name.startswith("model.")}
    if "arch" in values:
        hiera = HieraMae(from_flat(HieraConfig, values))
        checkpoint.weights(place, hiera, average)
        state = hiera.state_dict() if whole else hiera.encoder.state_dict()
    else:
        model = Mae(from_flat(MaeConfig, values))
        checkpoint.weights(place, model, average)
        state = {"model": original_state(model, grid)} if whole else encoder_state(model, grid)
    with whole_file(out) as fresh:
        torch.save(state, fresh)
    return f"{out} holds {'all' if whole else 'the encoder'} of {place}"

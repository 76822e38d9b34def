"""GMML: images whose blocks are noise or another image's pixels are repaired (Atito et al. 2022, arXiv:2205.14986)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from shardkit import BinnedBatch, Loader
from trainer.models.base import ModelConfig
from trainer.models.places import put_back
from trainer.models.reconstruction import Repairer, outputs_of
from trainer.objectives import collapse
from trainer.objectives.corruption import CorruptionConfig
from trainer.objectives.repairing import RepairedOutput, RepairObjective, absolute_error, damaged
from trainer.objectives.views import views_of
from trainer.values import require

_SHARES = (1 / 2, 2 / 3, 5 / 6, 1.0)  # blocks 6, 8, 10, 12 of 12
_NOISE = CorruptionConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class GmmlConfig:
    """Group masked model learning: corrupted views are repaired.

    Parameters
    ----------
    corruption
        How views are corrupted.
    blocks
        Numbers of the encoder's blocks, from 1 and ascending to the last, whose mean is repaired from; none stands for
        those at 1/2, 2/3, 5/6 and 1 of its depth: 6, 8, 10 and 12 of 12.
    """

    corruption: CorruptionConfig = _NOISE
    blocks: tuple[int, ...] = ()

    def build(self, model: ModelConfig, loader: Loader) -> "Gmml":
        """Build the objective and its model, with random weights."""
        return Gmml(GmmlModel(model, self.blocks), self, self.corruption.notes(loader))


@final
class GmmlModel(Repairer):
    """Encoder and head; the head sees the mean of several blocks' raw outputs through the encoder's final norm.

    Parameters
    ----------
    config
        Describes the encoder.
    blocks
        As of `GmmlConfig`.
    """

    def __init__(self, config: ModelConfig, blocks: Sequence[int] = ()) -> None:
        super().__init__(config)
        depth = len(self.all_layers)
        self.blocks = tuple(blocks) or tuple(sorted({max(1, round(share * depth)) for share in _SHARES}))
        rising = [*self.blocks] == sorted(set(self.blocks)) and self.blocks[0] >= 1
        # Blocks after the last one would never be trained.
        require("objective.blocks", self.blocks, rising and self.blocks[-1] == depth, f"ascending, from 1 to {depth}")

    def forward(self, batch: BinnedBatch) -> tuple[Tensor, Tensor]:
        """Return repaired images (B, C, H, W), and the means of patch tokens (B, width)."""
        with outputs_of([self.all_layers[number - 1] for number in self.blocks]) as raw:
            features = self.encoder.features(batch)
        mean = torch.stack(raw).mean(0)[:, self.encoder.layout.prefix :]
        return self.repaired(put_back(self.last_norm(mean), batch)), features.mean()


@final
class Gmml(RepairObjective):
    """The absolute error in the corrupted blocks of all views.

    Parameters
    ----------
    model
        What is trained.
    config
        Describes it.
    notes
        Sentences for the user.
    """

    model: GmmlModel

    def __init__(self, model: GmmlModel, config: GmmlConfig, notes: tuple[str, ...] = ()) -> None:
        super().__init__(model, notes)
        self.config = config

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        return (
            "Mean absolute error over the pixels of corrupted blocks, one mean a micro-batch. It does not say how"
            " useful the features are: only a task with labels does."
        )

    def run(self, model: nn.Module, batch: Any) -> RepairedOutput:
        """See `Objective`."""
        views = views_of(batch)
        found, weight, places = damaged(views, self._encoder, self.config.corruption), views[0].weight, len(batch.rows)
        prediction, mean = model(found.batch)
        return RepairedOutput(
            absolute_error(prediction, found.clean, found.mask, weight),
            weight,
            metrics=collapse.of_features(mean[:places], weight),
            seen=found.batch.images[:places],
            prediction=prediction[:places].detach(),
            mask=found.mask[:places],
        )

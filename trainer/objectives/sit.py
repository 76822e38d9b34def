"""SiT: corrupted views are repaired, and told from those of other images (Atito et al. 2021, arXiv:2104.03602)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from shardkit import BinnedBatch, Loader
from trainer import metrics, parallel
from trainer.models.backbone import TimmEncoder
from trainer.models.base import ModelConfig
from trainer.models.contrast_head import ContrastHead
from trainer.models.flops import linear_flops
from trainer.models.reconstruction import Repairer, tokens_of
from trainer.objectives import collapse
from trainer.objectives.contrast import contrast
from trainer.objectives.corruption import CorruptionConfig
from trainer.objectives.repairing import RepairedOutput, RepairObjective, absolute_error, damaged
from trainer.objectives.teacher import Teacher
from trainer.objectives.views import batched, too_few, views_of
from trainer.parallel import World
from trainer.schedule import cosine
from trainer.values import require

_VIEWS = 2
_ZEROS = CorruptionConfig(fill="zeros", cover=(0.5, 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class SitConfig:
    """Two corrupted views of an image are repaired, and each is told from other images by a teacher's clean other view.

    Parameters
    ----------
    corruption
        How views are corrupted.
    reconstruction
        Factor of the reconstruction in the loss, beside the contrast.
    temperature
        What cosines are divided by.
    hidden
        Channels of the first two maps of the contrast's head.
    out
        Channels of what is compared.
    momentum
        Share of the teacher's weights that stays at the first update; it rises to 1 at the end, along a cosine.
    """

    corruption: CorruptionConfig = _ZEROS
    reconstruction: float = 5.0
    temperature: float = 0.2
    hidden: int = 4096
    out: int = 256
    momentum: float = 0.996

    def __post_init__(self) -> None:
        """Refuse values of which no loss can be made."""
        require("objective.reconstruction", self.reconstruction, self.reconstruction >= 0, "0 or more")
        require("objective.temperature", self.temperature, self.temperature > 0, "above 0")
        require("objective.hidden", self.hidden, self.hidden >= 1, "1 or more")
        require("objective.out", self.out, self.out >= 1, "1 or more")
        require("objective.momentum", self.momentum, 0 <= self.momentum <= 1, "0 to 1")

    def build(self, model: ModelConfig, loader: Loader) -> "Sit":
        """Build the objective, its model with random weights, and its teacher."""
        return Sit(SitModel(model, self.hidden, self.out), self, self.corruption.notes(loader))


@final
class SitModel(Repairer):
    """Encoder, a head that repairs its patch tokens, and one for the contrast of its class token.

    Parameters
    ----------
    config
        Describes the encoder.
    hidden, out
        As of `SitConfig`.
    """

    def __init__(self, config: ModelConfig, hidden: int, out: int) -> None:
        super().__init__(config)
        self.contrast = ContrastHead(self.encoder.width, hidden, out)

    def check_batching(self, batching: Any) -> None:
        """See `Model`: there are two views."""
        if sum(view.n for view in getattr(batching, "views", ())) != _VIEWS:
            raise too_few(_VIEWS, self.encoder.side)
        super().check_batching(batching)

    def forward(self, batch: BinnedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return repaired images (B, C, H, W), what is compared (B, out), and class tokens (B, width)."""
        features = self.encoder.features(batch)
        token = features.class_token
        assert token is not None  # `Repairer` refuses encoders without
        return self.repaired(tokens_of(features)), self.contrast(token, batch.weight > 0), token

    def stepped(self) -> None:
        """Let running statistics follow a step."""
        super().stepped()
        self.contrast.stepped()

    def skipped(self) -> None:
        """Leave running statistics as they were before the step."""
        super().skipped()
        self.contrast.skipped()


@final
class _Branch(nn.Module):
    """What the teacher is a copy of: encoder and contrast."""

    def __init__(self, encoder: TimmEncoder, head: ContrastHead) -> None:
        super().__init__()
        self.encoder, self.contrast = encoder, head

    def forward(self, batch: BinnedBatch) -> Tensor:
        found: Tensor = self.contrast(self.encoder.features(batch).class_token, batch.weight > 0)
        return found


@dataclass(frozen=True, slots=True)
class _Keys:
    """The teacher's keys of M micro-batches: (2, M * S, out), one row an image and view; bool (M * S,)."""

    values: Tensor
    there: Tensor


@final
class Sit(RepairObjective):
    """The contrast of each view with the other one's key among those of the whole step, and the error of repairs.

    The teacher makes keys of all of the step's clean views before its first micro-batch is run. So an image has the
    same negatives on any number of processes; in validation they are those of its micro-batch.

    Parameters
    ----------
    model
        What is trained.
    config
        Describes it.
    notes
        Sentences for the user.
    """

    model: SitModel
    whole_steps = True

    def __init__(self, model: SitModel, config: SitConfig, notes: tuple[str, ...] = ()) -> None:
        super().__init__(model, notes)
        self.config = config
        self._student = _Branch(model.encoder, model.contrast)
        self.teacher = Teacher(self._student)
        self._keys: _Keys | None = None
        self._share = 0.0  # of the run that is done

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        return (
            "The contrast of two views, each against the teacher's other one among all images of the step, plus"
            f" {self.config.reconstruction:g} times the mean absolute error over the pixels of corrupted blocks. In"
            " validation an image is told from those of its micro-batch alone, so that the contrast there is less. It"
            " does not say how useful the features are: only a task with labels does."
        )

    # --- a step

    def cost(self, number: int) -> float:
        """See `ViewObjective`: the teacher sees every view, too."""
        return 4 / 3

    def head_flops(self, number: int, tokens: int) -> float:
        """See `ViewObjective`: the teacher has no map to pixels."""
        contrast = linear_flops(self.model.contrast)
        return 3.0 * self.model.head_flops(tokens) + 4.0 * contrast

    def begin_step(self, step: int, steps: int, batches: Sequence[Any], world: World) -> None:
        """See `Objective`: the keys of all micro-batches, of this process and of the others."""
        self._share = step / steps
        if step == 0:  # weights to begin with are loaded after the teacher was made
            self.teacher.network.load_state_dict(self._student.state_dict())
        own = {batch.position.micro: self._keys_of(batch, training=True) for batch in batches}
        like = next(iter(own.values())).values
        values = like.new_zeros(batches[0].position.micros, *like.shape)
        there = like.new_zeros(len(values), like.shape[1])
        for micro, keys in own.items():
            values[micro], there[micro] = keys.values, keys.there.to(there.dtype)
        for part in (values, there):
            parallel.all_reduce_sum(part)  # each micro-batch is one process's: a sum with zeros is exact
        self._keys = _Keys(values.transpose(0, 1).flatten(1, 2), there.flatten() > 0)

    @torch.no_grad()
    def _keys_of(self, batch: Any, training: bool) -> _Keys:
        """Return the keys of one micro-batch."""
        views = views_of(batch, _VIEWS)
        network: Any = self.teacher.network
        network.train(training)
        network.encoder.eval()  # without stochastic depth; there is no batch normalisation in it
        return _Keys(network(batched(views)).unflatten(0, (_VIEWS, -1)), views[0].weight > 0)

    def run(self, model: nn.Module, batch: Any) -> RepairedOutput:
        """See `Objective`."""
        views = views_of(batch, _VIEWS)
        found, weight, places = damaged(views, self._encoder, self.config.corruption), views[0].weight, len(batch.rows)
        keys, first = self._keys, batch.position.micro * places
        if not model.training:
            keys, first = self._keys_of(batch, training=False), 0
        assert keys is not None, "begin_step comes first"
        prediction, queries, token = model(found.batch)
        repaired = absolute_error(prediction, found.clean, found.mask, weight)
        told = torch.stack(
            [
                contrast(own, other, keys.there, first, self.config.temperature)
                for own, other in zip(queries.split(places), keys.values.flip(0), strict=True)
            ]
        ).sum(0)
        return RepairedOutput(
            told + self.config.reconstruction * repaired,
            weight,
            metrics={
                **collapse.of_features(token[:places], weight),
                "contrast": metrics.mean_of(told, weight),
                "reconstruction": metrics.mean_of(repaired, weight),
            },
            seen=found.batch.images[:places],
            prediction=prediction[:places].detach(),
            mask=found.mask[:places],
        )

    def stepped(self, world: World) -> None:
        """See `Objective`: running statistics and the teacher follow."""
        super().stepped(world)
        self._teachers_head.stepped()
        self.teacher.follow(self._student, cosine(self.config.momentum, 1.0, self._share))
        self._keys = None

    def skipped(self, world: World) -> None:
        """See `Objective`: running statistics and the teacher are as they were."""
        super().skipped(world)
        self._teachers_head.skipped()
        self._keys = None

    @property
    def _teachers_head(self) -> ContrastHead:
        network: Any = self.teacher.network
        head: ContrastHead = network.contrast
        return head

    def state_dict(self) -> dict[str, Tensor]:
        """See `Objective`: the teacher's weights and running statistics."""
        return self.teacher.tensors()

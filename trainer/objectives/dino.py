"""DINO: views of a sample have to be given the outputs that a teacher gives its other, larger views.

Caron et al. 2021, arXiv:2104.14294. The teacher is a moving average of the student. Its outputs are centred, so that no
one output is given to all images, and sharpened, so that not all outputs are given alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shardkit import Loader
from trainer import parallel
from trainer.metrics import Metrics, mean_of
from trainer.models.backbone import TimmConfig
from trainer.models.base import EncoderConfig, ModelConfig
from trainer.models.output import Output
from trainer.objectives import collapse
from trainer.objectives.dino_network import DinoHead, DinoNetwork
from trainer.objectives.followers import encoder_config, exact, set_training
from trainer.objectives.neighbours import attention_and_neighbours
from trainer.objectives.teacher import Teacher
from trainer.objectives.views import ViewObjective, views_of
from trainer.parallel import World
from trainer.schedule import cosine
from trainer.values import require


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoConfig:
    """Self-distillation without labels.

    Parameters
    ----------
    globals
        Number of views, the first ones of the batching, that the teacher sees; the student sees all.
    outputs
        Number of outputs, over which views are compared.
    hidden
        Hidden channels of the head's perceptron.
    bottleneck
        Channels of the head before the outputs.
    head_layers
        Linear maps of the head's perceptron.
    norm_last_layer
        Keep the gain of the student's outputs at 1; without, each learns its own. The teacher's is always 1.
    student_temperature
        What the student's logits are divided by.
    teacher_temperature
        What the teacher's are divided by, after the warm-up if there is one.
    teacher_temperature_from
        The same in the first epoch of a warm-up.
    temperature_epochs
        Epochs of that warm-up: it is linear, changes by epoch, and has both ends; 0 is none.
    centre_momentum
        Share of the centre that stays at each update.
    momentum
        Share of the teacher that stays at each update at first; it rises along half a cosine.
    momentum_end
        What it rises to.
    freeze_last
        Epochs in which the outputs' weights do not change.
    """

    globals: int = 2
    outputs: int = 65_536
    hidden: int = 2048
    bottleneck: int = 256
    head_layers: int = 3
    norm_last_layer: bool = True
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_temperature_from: float = 0.04
    temperature_epochs: int = 0
    centre_momentum: float = 0.9
    momentum: float = 0.996
    momentum_end: float = 1.0
    freeze_last: int = 1

    def __post_init__(self) -> None:
        """Refuse values with which nothing can be trained."""
        for name in ("globals", "outputs", "hidden", "bottleneck", "head_layers"):
            value = getattr(self, name)
            require(f"objective.{name}", value, value >= 1, "1 or more")
        for name in ("student_temperature", "teacher_temperature", "teacher_temperature_from"):
            value = getattr(self, name)
            require(f"objective.{name}", value, value > 0, "above 0")
        for name in ("centre_momentum", "momentum", "momentum_end"):
            value = getattr(self, name)
            require(f"objective.{name}", value, 0 <= value <= 1, "from 0 to 1")
        for name in ("temperature_epochs", "freeze_last"):
            value = getattr(self, name)
            require(f"objective.{name}", value, value >= 0, "0 or more")

    def build(self, model: ModelConfig, loader: Loader) -> "Dino":
        """Build the objective: two networks on the encoder that `model` describes, alike at first."""
        described = encoder_config(model, "DINO")
        if isinstance(described, TimmConfig):  # views have several sizes
            described = replace(described, any_size=True)
        still = replace(cast(Any, described), drop_path=0.0) if hasattr(described, "drop_path") else described
        student, teacher = self._network(described, self.norm_last_layer), self._network(still, True)
        return Dino(self, student, teacher)

    def _network(self, model: EncoderConfig, fixed: bool) -> DinoNetwork:
        encoder = model.encoder()
        head = DinoHead(encoder.width, self.hidden, self.bottleneck, self.head_layers, self.outputs, fixed)
        return DinoNetwork(encoder, head)

    def temperature(self, epoch: int) -> float:
        """Return the teacher's temperature in an epoch, counted from 0."""
        if epoch >= self.temperature_epochs:
            return self.teacher_temperature
        start, end = self.teacher_temperature_from, self.teacher_temperature
        return start + (end - start) * epoch / max(1, self.temperature_epochs - 1)


def distillation_loss(student: Tensor, probabilities: Tensor, temperature: float, skip_same: bool = True) -> Tensor:
    """Return the cross-entropy of each image, mean over pairs of a teacher's view and another view of the student.

    Parameters
    ----------
    student
        (V, B, K), logits of all views.
    probabilities
        (G, B, K), the teacher's of the first G views.
    temperature
        What the student's logits are divided by.
    skip_same
        Whether pairs of a view with itself are left out.

    Returns
    -------
    Tensor
        (B,), of G * (V - 1) terms each, or G * V.
    """
    log = (student / temperature).log_softmax(-1)
    count, views = len(probabilities), len(log)
    # Probabilities do not depend on the student's view, so that its logarithms may be added up first.
    whole = -(probabilities.sum(0) * log.sum(0)).sum(-1)
    if not skip_same:
        return whole / (count * views)
    same = -(probabilities * log[:count]).sum((0, -1))
    return (whole - same) / (count * (views - 1))


def sharpened(logits: Tensor, centre: Tensor, temperature: Tensor) -> Tensor:
    """Return a teacher's probabilities: (G, B, K) -> (G, B, K)."""
    return ((logits - centre) / temperature).softmax(-1)


@final
class Dino(ViewObjective):
    """Self-distillation: see `DinoConfig`.

    Parameters
    ----------
    config
        Its options.
    student, teacher
        Networks of one kind, the teacher's without stochastic depth; the teacher takes the student's weights.
    """

    def __init__(self, config: DinoConfig, student: DinoNetwork, teacher: DinoNetwork) -> None:
        super().__init__(student)
        self.config = config
        teacher.load_state_dict(student.state_dict())
        self.teacher = Teacher(teacher)
        self.centre = torch.zeros(config.outputs)
        self.temperature = torch.tensor(config.temperature(0), dtype=torch.float64)
        self._epoch, self._momentum = 0, 1.0
        self._seen: Tensor | None = None  # sum of the teacher's logits in this step, and of how many views that is

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        return (
            "Cross-entropy of the student's outputs with the teacher's, over pairs of different views of an image. It"
            " falls where the teacher is surer, too, so that it does not say how useful the features are."
        )

    @property
    def picture_meaning(self) -> str:
        """See `Objective`."""
        return (
            "Each line is an image as the teacher sees it, what its class token attends to in the teacher's last block"
            " (black the least, white the most; only timm's vision transformers have these columns), and the images"
            " of the same micro-batch whose teacher's features are the most alike, with the least alike one at the end."
        )

    # --- a step

    def cost(self, number: int) -> float:
        """See `ViewObjective`: the teacher sees the first views, too."""
        return 4 / 3 if number < self.config.globals else 1.0

    def begin_step(self, step: int, steps: int, batches: Sequence[Any], world: World) -> None:
        """See `Objective`. Before the first step the teacher takes the student's weights, which may be of a file."""
        if step == 0:
            self.teacher.network.load_state_dict(self.model.state_dict())
        self._epoch = batches[0].position.epoch
        self.temperature.fill_(self.config.temperature(self._epoch))
        self._momentum = cosine(self.config.momentum, self.config.momentum_end, step / steps)

    def run(self, model: nn.Module, batch: Any) -> Output:
        """See `Objective`."""
        views = views_of(batch, least=max(2, self.config.globals))
        count, weight = self.config.globals, views[0].weight
        set_training(self.teacher.network, model.training)
        _, student = model(views)
        with torch.no_grad():
            features, logits = self.teacher.network(views[:count])
            logits = exact(logits)
            probabilities = sharpened(logits, self.centre, self.temperature)
        losses = distillation_loss(exact(student), probabilities, self.config.student_temperature)
        if model.training:
            self._count(logits, weight)
        return Output(losses, weight, metrics=_measured(losses, probabilities, features[0], weight))

    @torch.no_grad()
    def _count(self, logits: Tensor, weight: Tensor) -> None:
        there = weight.double()
        total = (logits.double() * there[:, None]).sum((0, 1))
        new = torch.cat([total, (there.sum() * len(logits))[None]])
        self._seen = new if self._seen is None else self._seen + new

    def before_update(self, step: int, steps: int) -> None:
        """Leave the outputs' weights as they are in the first epochs."""
        if self._epoch < self.config.freeze_last:
            for p in self._network.head.last.parameters():
                p.grad = None

    @torch.no_grad()
    def stepped(self, world: World) -> None:
        """Let teacher and centre follow: the centre by the step's images on all processes."""
        super().stepped(world)
        self._teacher.stepped()
        self.teacher.follow(self.model, self._momentum)
        if self._seen is not None:
            found, self._seen = parallel.all_reduce_sum(self._seen), None
            self.centre.lerp_((found[:-1] / found[-1]).to(self.centre), 1 - self.config.centre_momentum)

    def skipped(self, world: World) -> None:
        """Forget a step."""
        super().skipped(world)
        self._teacher.skipped()
        self._seen = None

    @property
    def _network(self) -> DinoNetwork:
        return cast(DinoNetwork, self.model)

    @property
    def _teacher(self) -> DinoNetwork:
        return cast(DinoNetwork, self.teacher.network)

    # --- what is kept and seen

    def state_dict(self) -> dict[str, Tensor]:
        """Return centre, temperature, and the teacher's weights and running statistics."""
        return {"centre": self.centre, "temperature": self.temperature, **self.teacher.tensors()}

    def picture(self, batch: Any, output: Output) -> npt.NDArray[np.uint8]:
        """Draw images, where the teacher looks, and which images it finds alike."""
        return attention_and_neighbours(self._teacher.encoder, views_of(batch)[0])


def _measured(losses: Tensor, probabilities: Tensor, features: Tensor, weight: Tensor) -> Metrics:
    """Return signs of collapse, and by how much the student's outputs differ from the teacher's."""
    own = -torch.xlogy(probabilities, probabilities).sum(-1)
    return {
        "teacher_entropy": collapse.entropy(probabilities.flatten(0, 1), weight.repeat(len(probabilities))),
        "divergence": mean_of(losses.detach() - own.mean(0), weight),
        **collapse.of_features(features, weight),
    }

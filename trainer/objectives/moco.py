"""MoCo v2: a view of an image has to find another view of it among views of many images, kept in a queue.

He et al. 2020, arXiv:1911.05722; Chen et al. 2020, arXiv:2003.04297.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from shardkit import BinnedBatch, Loader
from shardkit.errors import ArgumentError
from trainer.metrics import mean_of
from trainer.models.base import ModelConfig
from trainer.models.output import Output
from trainer.objectives import collapse, pictures
from trainer.objectives.followers import encoder_config, exact, set_training
from trainer.objectives.moco_keys import enqueue, keys_of
from trainer.objectives.moco_network import MocoNetwork
from trainer.objectives.teacher import Teacher
from trainer.objectives.views import ViewObjective, views_of
from trainer.parallel import World
from trainer.values import require


@dataclass(frozen=True, slots=True, kw_only=True)
class MocoConfig:
    """Momentum contrast, version 2: the first view of the batching makes queries, the second keys.

    Parameters
    ----------
    queue
        Number of keys of earlier steps that a query is told from; a multiple of the images of a step.
    width
        Channels of queries and keys.
    hidden
        Hidden channels of the head; 0 are as many as those of the encoder's feature.
    temperature
        What similarities are divided by.
    momentum
        Share of the key encoder that stays at each update.
    """

    queue: int = 65_536
    width: int = 128
    hidden: int = 0
    temperature: float = 0.2
    momentum: float = 0.999

    def __post_init__(self) -> None:
        """Refuse values with which nothing can be trained."""
        for name in ("queue", "width"):
            value = getattr(self, name)
            require(f"objective.{name}", value, value >= 1, "1 or more")
        require("objective.hidden", self.hidden, self.hidden >= 0, "0 or more")
        require("objective.temperature", self.temperature, self.temperature > 0, "above 0")
        require("objective.momentum", self.momentum, 0 <= self.momentum <= 1, "from 0 to 1")

    def build(self, model: ModelConfig, loader: Loader) -> "Moco":
        """Build the objective: a network for queries on the encoder that `model` describes, and one for keys.

        Raises
        ------
        ArgumentError
            Where the queue does not hold whole steps.
        """
        batching: Any = loader.batching
        images = getattr(batching, "batch_size", 1) * batching.per_step
        if self.queue % images:
            raise ArgumentError(
                f"--objective.queue {self.queue} must be a multiple of the {images} images of a step (batch_size times"
                f" per_step of --loader.batching), as {max(1, round(self.queue / images)) * images}"
            )
        network = MocoNetwork(encoder_config(model, "MoCo").encoder(), self.hidden, self.width)
        return Moco(self, network)


def contrastive_logits(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return similarities, the positive's first: (B, 1 + K).

    Parameters
    ----------
    queries, keys
        (B, width), of length 1; keys without gradients.
    queue
        (K, width), keys of other images.
    temperature
        What they are divided by.
    """
    positive = (queries * keys).sum(1, keepdim=True)
    return torch.cat([positive, queries @ queue.T], 1) / temperature


@final
class Moco(ViewObjective):
    """Momentum contrast: see `MocoConfig`.

    The key encoder follows as soon as the query encoder was updated, in place of at the start of the next step: keys
    are the same, and a step that changed nothing leaves nothing to take back.

    Parameters
    ----------
    config
        Its options.
    network
        Of queries.
    """

    whole_steps = True

    def __init__(self, config: MocoConfig, network: MocoNetwork) -> None:
        super().__init__(network)
        self.config = config
        self.follower = Teacher(network)
        self.queue = normalize(torch.randn(config.queue, config.width), dim=1)
        self.pointer = torch.zeros((), dtype=torch.int64)
        self._keys: Tensor | None = None  # of the step's images, in the plan's order
        self._places: Tensor | None = None  # of those that there are

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        return (
            f"Cross-entropy of finding an image's other view among views of {self.config.queue:,} other images. In"
            " validation the queue holds keys of the training."
        )

    @property
    def picture_meaning(self) -> str:
        """See `Objective`."""
        return (
            "Each line is a query, its key (another view of the same image), and the other keys of the micro-batch that"
            " are the most alike, the hardest to tell from it, with the least alike at the end."
        )

    # --- a step

    def cost(self, number: int) -> float:
        """See `ViewObjective`: keys are made without gradients."""
        return 1.0 if number == 0 else 1 / 3

    def begin_step(self, step: int, steps: int, batches: Sequence[Any], world: World) -> None:
        """Make keys of the step's images, shuffled; before the first step they are the query encoder's weights."""
        if step == 0:
            self.follower.network.load_state_dict(self.model.state_dict())
        set_training(self.follower.network, True)
        views = [views_of(batch, least=2)[1] for batch in batches]
        self._keys, self._places = keys_of(self._key_network, views, self.config.width, world)

    def run(self, model: nn.Module, batch: Any) -> Output:
        """See `Objective`."""
        query, key = views_of(batch, least=2)[:2]
        features, queries = model(query)
        keys = self._stored(key) if model.training else self._evaluated(key)
        with torch.autocast(queries.device.type, enabled=False):  # bfloat16 would make ties of similarities
            logits = contrastive_logits(exact(queries), keys, self.queue.to(keys.dtype), self.config.temperature)
        weight = key.weight
        found = (logits[:, :1] > logits[:, 1:]).all(1)
        metrics = {"top1": mean_of(found, weight), **collapse.of_features(features, weight)}
        return Output(logits.logsumexp(1) - logits[:, 0], weight, metrics=metrics)

    def _stored(self, view: BinnedBatch) -> Tensor:
        assert self._keys is not None
        count = len(view.rows)
        return self._keys[view.position.micro * count : (view.position.micro + 1) * count]

    @torch.no_grad()
    def _evaluated(self, view: BinnedBatch) -> Tensor:
        set_training(self.follower.network, False)
        return exact(self._key_network(view)[1])

    @torch.no_grad()
    def stepped(self, world: World) -> None:
        """Let the key encoder follow, and put the step's keys into the queue."""
        super().stepped(world)
        self._key_network.stepped()
        self.follower.follow(self.model, self.config.momentum)
        if self._keys is not None and self._places is not None:
            enqueue(self.queue, self.pointer, self._keys[self._places])
        self._keys = self._places = None

    def skipped(self, world: World) -> None:
        """Forget a step."""
        super().skipped(world)
        self._key_network.skipped()
        self._keys = self._places = None

    @property
    def _key_network(self) -> MocoNetwork:
        return cast(MocoNetwork, self.follower.network)

    # --- what is kept and seen

    def state_dict(self) -> dict[str, Tensor]:
        """Return the queue, where its oldest key is, and the key encoder's weights and running statistics."""
        return {"queue": self.queue, "pointer": self.pointer, **self.follower.tensors()}

    @torch.no_grad()
    def picture(self, batch: Any, output: Output) -> npt.NDArray[np.uint8]:
        """Draw queries, their keys, and the keys that are hard to tell from these."""
        query, key = views_of(batch, least=2)[:2]
        there = torch.nonzero(key.weight > 0).flatten().tolist()
        training = self.model.training
        self.model.eval()
        alike = (self.model(query)[1].float() @ self._evaluated(key).float().T).cpu()
        self.model.train(training)
        shown = [view.images[:, 0].float().cpu() for view in (query, key)]
        count = min(3, len(there) - 1)
        lines = []
        for at in there[:5]:
            others = sorted((i for i in there if i != at), key=lambda i: -float(alike[at, i]))
            chosen = [at, *others[:count], *others[-1:]]
            lines.append([pictures.grey_of(shown[0][at]), *(pictures.grey_of(shown[1][i]) for i in chosen)])
        hardest = [f"hardest, {rank + 1}" for rank in range(count)]
        return pictures.table(lines, ["query", "its key", *hardest, *(["easiest"] if count else [])])

"""An encoder with what a task, or a method of pre-training, puts on it."""

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn

from trainer.models.base import Batch, Channels, Grey, Grid, Model, Weights
from trainer.models.encoder import Encoder

ENCODER: Final = "encoder."
"""How the names of the encoder's parameters begin."""


class WithHeads(Model, ABC):
    """A network that a task or a method trains: `encoder`, and heads as further attributes, which exports leave out.

    It derives from this and writes `forward`, through which all that is trained has to go, so that gradients are
    exchanged.

    Parameters
    ----------
    encoder
        What is kept of a method.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def patch(self) -> int:
        """Side of a token in pixels."""
        return self.encoder.patch

    @property
    def all_blocks(self) -> Sequence[nn.Module]:
        """The encoder's."""
        return self.encoder.all_blocks

    def no_weight_decay(self) -> frozenset[str]:
        """Return no names: the methods' code lets all but biases and norms decay."""
        return frozenset()

    @property
    def layers(self) -> int:
        """The encoder's: heads are of its last one."""
        return self.encoder.layers

    def layer_of(self, name: str) -> int:
        """See `Model`."""
        return self.encoder.layer_of(name.removeprefix(ENCODER)) if name.startswith(ENCODER) else self.layers

    def stepped(self) -> None:
        """Let the encoder's running statistics follow a step."""
        self.encoder.stepped()

    def skipped(self) -> None:
        """Leave the encoder's running statistics as they were before the step."""
        self.encoder.skipped()

    @property
    def initial(self) -> str | None:
        """See `Model`: the encoder's."""
        return self.encoder.initial

    @property
    def first_kernel(self) -> str:
        """See `Model`: the encoder's."""
        return self.encoder.first_kernel

    def load_weights(self, state: Mapping[str, Tensor], channels: Grey = "sum") -> list[str]:
        """See `Model`: the encoder's; heads begin at random."""
        return self.encoder.load_weights(state, channels)

    def check_batching(self, batching: Any) -> None:
        """See `Model`."""
        self.encoder.check_batching(batching)

    def head_flops(self, tokens: int) -> float:
        """Return the operations of the heads' forward pass on one image of so many tokens; without any, few."""
        return 0.0

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Model`: the encoder's, and those of heads on all tokens of an image of its size."""
        return self.encoder.flops(tokens) + (tokens > 0) * (3.0 * self.head_flops(self._tokens))

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Model`: as `flops`, of every place of a batch."""
        return self.encoder.run_flops(batch) + 3.0 * self.head_flops(self._tokens) * len(batch.weight)

    @property
    def _tokens(self) -> int:
        layout: Any = getattr(self.encoder, "layout", None)
        return layout.rows * layout.cols if layout is not None else 1

    # --- exports: the encoder alone

    @property
    def needs_grid(self) -> bool:
        """See `Model`."""
        return self.encoder.needs_grid

    def exported_size(self, grid: Grid | None) -> tuple[int, int]:
        """See `Model`."""
        return self.encoder.exported_size(grid)

    @property
    def norm_eps(self) -> float:
        """See `Model`."""
        return self.encoder.norm_eps

    @property
    def exported_eps(self) -> float | None:
        """See `Model`."""
        return self.encoder.exported_eps

    def encoder_weights(self, grid: Grid | None, channels: Channels = 1) -> Weights:
        """See `Model`."""
        return self.encoder.encoder_weights(grid, channels)

    def timm_call(self, grid: Grid | None) -> tuple[str, dict[str, Any]]:
        """See `Model`."""
        return self.encoder.timm_call(grid)

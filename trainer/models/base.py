"""What a model is to the rest of the trainer: a config that builds it, and a module that answers for itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from shardkit import BinnedBatch, PackedBatch
from shardkit.errors import ArgumentError

Batch = BinnedBatch | PackedBatch
Grid = tuple[int, int]
State = dict[str, Tensor]
Channels = Literal[1, 3]


class Model(nn.Module, ABC):
    """A network whose forward pass takes a batch of the loader; what is made of its answer is the objective's."""

    @property
    @abstractmethod
    def patch(self) -> int:
        """Side of a token in pixels."""

    @property
    @abstractmethod
    def all_blocks(self) -> Sequence[nn.Module]:
        """Its large repeated parts: compiled and sharded one by one."""

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """A batch -> what its objective takes: an `Output`, or scores that the objective makes one of."""

    def no_weight_decay(self) -> frozenset[str]:
        """Parameters that do not decay beside biases and norms."""
        return frozenset()

    def check_batching(self, batching: Any) -> None:
        """Raises ArgumentError where tokens of the loader's batching are not those of the model."""
        if batching.patch != self.patch:
            raise ArgumentError(
                f"the model's patches are {self.patch} pixels and those of --loader.batching {batching.patch}:"
                " they must be the same"
            )

    # --- what it costs

    @abstractmethod
    def flops(self, tokens: Tensor) -> Tensor:
        """float64 (S,), operations of training on images of so many tokens, float64 (S,)."""

    @abstractmethod
    def run_flops(self, batch: Batch) -> Tensor:
        """float64 (), operations of training on a batch as it is run, padding and filler too."""

    # --- weights of other programs, in and out; a model that none knows has nothing to write here

    def load_weights(self, state: Mapping[str, Tensor]) -> list[str]:
        """Load weights by the names of another program; returns the names it had no values for.

        Raises ArgumentError for values of another shape or for names that belong to another architecture.
        """
        raise ArgumentError(f"a {type(self).__name__} takes no weights of other programs: name a run or a checkpoint")

    @property
    def needs_grid(self) -> bool:
        """Whether an exported file is for one grid of patches, which has to be named."""
        return False

    def exported_size(self, grid: Grid | None) -> tuple[int, int]:
        """Height and width in pixels of the images that an exported file is for. Raises ArgumentError for the grid."""
        raise ArgumentError(f"a {type(self).__name__} cannot be exported: no other program knows it")

    @property
    def norm_eps(self) -> float:
        """Added to a norm's variance: no file of weights says it."""
        raise NotImplementedError

    def encoder_weights(self, grid: Grid | None, channels: Channels = 1) -> State:
        """The encoder's, for the model of timm that `timm_call` names; they load strictly."""
        raise NotImplementedError

    def whole_weights(self, grid: Grid | None, channels: Channels = 1) -> State:
        """The whole model's, by the names of the public code that it comes from."""
        raise NotImplementedError

    def timm_call(self, grid: Grid | None) -> tuple[str, dict[str, Any]]:
        """Name and arguments for `timm.create_model` of the encoder, beside channels, classes and norms."""
        raise NotImplementedError


class ModelConfig(Protocol):
    """A frozen record of plain fields that describes a model and builds it."""

    def build(self) -> Model:
        """The model, with random weights."""

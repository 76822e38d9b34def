"""What a model is to the rest of the trainer: a config that builds it, and a module that answers for itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from shardkit import BinnedBatch, PackedBatch
from shardkit.errors import ArgumentError

if TYPE_CHECKING:  # it is a kind of model
    from trainer.models.encoder import Encoder

Batch = BinnedBatch | PackedBatch
Grid = tuple[int, int]
Weights = dict[str, Tensor]
Channels = Literal[1, 3]
FIRST_KERNEL: Final = "patch_embed.proj.weight"
Grey = Literal["sum", "mean"]
"""How a kernel of three channels becomes one of grey; the sum gives grey images the features of three equal ones."""


class Model(nn.Module, ABC):
    """A network whose forward pass takes a batch of the loader; what is made of its answer is the objective's.

    A model says what its operations cost. One that other programs know reads and writes weights by their names, too.
    """

    channels: Channels = 1
    """Channels of its first layer."""

    @property
    @abstractmethod
    def patch(self) -> int:
        """Side of a token in pixels."""

    @property
    @abstractmethod
    def all_blocks(self) -> Sequence[nn.Module]:
        """Its large repeated parts, which are compiled and sharded one by one."""

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """Run a batch.

        Returns
        -------
        Output or Tensor
            What its objective takes: an `Output`, or scores that the objective makes one of.
        """

    def no_weight_decay(self) -> frozenset[str]:
        """Return the names of parameters that do not decay, beside biases and norms."""
        return frozenset()

    def check_batching(self, batching: Any) -> None:
        """Check that the loader's batching gives batches that the model can take.

        Raises
        ------
        ArgumentError
            Where its tokens are not those of the model.
        """
        if batching.patch != self.patch:
            raise ArgumentError(
                f"the model's patches are {self.patch} pixels and those of --loader.batching {batching.patch}:"
                " they must be the same"
            )

    @property
    def layers(self) -> int:
        """Number of the last layer that `layer_of` knows; 0 is the patch embedding.

        Raises
        ------
        ArgumentError
            For a model whose layers are not numbered.
        """
        raise ArgumentError(f"--optim.layer-decay is for encoders, and a {type(self).__name__} is none: use 1")

    def layer_of(self, name: str) -> int:
        """Return the layer that a parameter belongs to, for learning rates that decay towards the first."""
        return self.layers

    def stepped(self) -> None:
        """Follow an update of the weights, on all processes: running statistics."""

    def skipped(self) -> None:
        """Forget a step that changed no weights, on all processes: running statistics are as before it."""

    @property
    def first_kernel(self) -> str:
        """Name of the parameter, in files of other programs, that shows where what wraps their names ends."""
        return FIRST_KERNEL

    @property
    def initial(self) -> str | None:
        """Weights to begin with where the command names none, as `--init` has them."""
        return None

    # --- what it costs

    @property
    def passes(self) -> float:
        """Return what training costs in forward passes: a backward pass is two; of a frozen model there is none."""
        return 3.0 if any(p.requires_grad for p in self.parameters()) else 1.0

    @abstractmethod
    def flops(self, tokens: Tensor) -> Tensor:
        """Return the operations of training on images.

        Parameters
        ----------
        tokens
            float64 (S,), each image's own tokens, 0 for none.

        Returns
        -------
        Tensor
            float64 (S,), operations of each image; 0 for none.
        """

    def view_flops(self, view: BinnedBatch, tokens: Tensor) -> Tensor:
        """Return the operations of training on each image of a view, which may have a size of its own: float64 (S,).

        Parameters
        ----------
        view
            Of a batch.
        tokens
            As of `flops`.
        """
        return self.flops(tokens)

    @abstractmethod
    def run_flops(self, batch: Batch) -> Tensor:
        """Return the operations of training on a batch as it is run, padding and filler too: float64 ()."""

    # --- weights of other programs, in and out; a model that none knows has nothing to write here

    def load_weights(self, state: Mapping[str, Tensor], channels: Grey = "sum") -> list[str]:
        """Load weights by the names of another program.

        Parameters
        ----------
        state
            Weights by name.
        channels
            How kernels of three channels become ones of grey.

        Returns
        -------
        list of str
            Names of the parameters that it had no values for.

        Raises
        ------
        ArgumentError
            For values of another shape, for names that belong to another architecture, or for a model that no other
            program knows.
        """
        raise ArgumentError(f"a {type(self).__name__} takes no weights of other programs: name a run or a checkpoint")

    @property
    def needs_grid(self) -> bool:
        """Whether an exported file is for one grid of patches, which has to be named."""
        return False

    def exported_size(self, grid: Grid | None) -> tuple[int, int]:
        """Return height and width in pixels of the images that an exported file is for.

        Parameters
        ----------
        grid
            Rows and columns of patches; None where none was named.

        Raises
        ------
        ArgumentError
            For a grid that is missing, or that the model has no use for, or for a model that no other program knows.
        """
        raise ArgumentError(f"a {type(self).__name__} cannot be exported: no other program knows it")

    @property
    def norm_eps(self) -> float:
        """Number added to a norm's variance, which no file of weights says."""
        raise NotImplementedError

    @property
    def exported_eps(self) -> float | None:
        """That number for `timm.create_model`; None where timm's own norms are right."""
        return self.norm_eps

    def encoder_weights(self, grid: Grid | None, channels: Channels = 1) -> Weights:
        """Return the encoder's weights for the model of timm that `timm_call` names; they load strictly.

        Parameters
        ----------
        grid
            Rows and columns of patches, for a model that needs them.
        channels
            Channels of the images; with three equal ones the features are those of one.
        """
        raise NotImplementedError

    def whole_weights(self, grid: Grid | None, channels: Channels = 1) -> Weights:
        """Return all weights, by the names of the public code that the model comes from; as `encoder_weights`.

        Raises
        ------
        ArgumentError
            For a model without such code.
        """
        raise ArgumentError("--whole is for masked autoencoders, whose public code has a decoder: leave it out")

    def timm_call(self, grid: Grid | None) -> tuple[str, dict[str, Any]]:
        """Return name and arguments for `timm.create_model` of the encoder, beside channels, classes and norms."""
        raise NotImplementedError


class ModelConfig(Protocol):
    """A frozen record of plain fields that describes a model and builds it."""

    def build(self) -> Model:
        """Build the model, with random weights."""


@runtime_checkable
class EncoderConfig(ModelConfig, Protocol):
    """Describes a model that has an encoder, so that a task can be put on it."""

    def encoder(self, last_norm: bool = True) -> "Encoder":
        """Build the encoder alone, for a task, with random weights.

        Parameters
        ----------
        last_norm
            Whether its features are normalised; without, there is no such norm.
        """

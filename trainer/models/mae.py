"""A masked autoencoder on sequences of patches, its parameters named as timm's and the original's.

The encoder loads strictly into `timm.create_model("vit_...")`, the whole into the original's checkpoints (see
`trainer.models.formats`). Formulas: He et al. 2022, arXiv:2111.06377.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from trainer.models import formats
from trainer.models.base import Batch, Channels, Grid, Weights
from trainer.models.decoder import MaskedAutoencoder, check_decoder
from trainer.models.flops import image_flops, run_flops
from trainer.models.masking import Mask, draw
from trainer.models.output import MaskedOutput
from trainer.models.positions import check_positions, positions
from trainer.models.sequences import Sequences, sequences
from trainer.models.vit import VisionTransformer, VitConfig
from trainer.objectives.losses import Loss, losses
from trainer.values import require


@dataclass(frozen=True, slots=True, kw_only=True)
class MaeConfig(VitConfig):
    """A vision transformer as a masked autoencoder.

    Parameters
    ----------
    patch
        Side of a patch in pixels.
    width
        Channels of the encoder.
    depth
        Blocks of the encoder.
    heads
        Attention heads of the encoder.
    mlp_ratio
        Hidden channels of a perceptron, in widths.
    position
        absolute, centered or stretch: see trainer.models.positions.
    position_table
        Side of the table that stretch interpolates, in patches.
    norm_eps
        Added to a norm's variance.
    drop_path
        Stochastic depth of the encoder in training.
    decoder_width
        Channels of the decoder.
    decoder_depth
        Blocks of the decoder.
    decoder_heads
        Attention heads of the decoder.
    mask_ratio
        Share of an image's patches that is hidden.
    norm_pix
        Targets are patches normalised by the mean and deviation of their own real pixels.
    loss
        masked: over hidden patches, real pixels only; all: over all patches and pixels, padding too (the thesis').
    """

    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75
    norm_pix: bool = False
    loss: Loss = "masked"

    def __post_init__(self) -> None:
        """Refuse values of which no model can be made."""
        VitConfig.__post_init__(self)  # super() does not work with slots
        check_decoder(self)
        check_positions("decoder_", self.decoder_width)
        require("model.mask_ratio", self.mask_ratio, 0 <= self.mask_ratio < 1, "0 or more, and below 1")

    def build(self) -> "Mae":
        """Build the model, with random weights."""
        return Mae(self)


@final
class Mae(VisionTransformer, MaskedAutoencoder):
    """Encoder of the visible patches, decoder of all, loss.

    Parameters
    ----------
    config
        Describes it.
    """

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.config: MaeConfig = config
        self.add_encoder(config)
        self.add_decoder(config.width, config, config.mlp_ratio)
        self.initialise_encoder()
        nn.init.normal_(self.mask_token, std=0.02)

    @property
    def all_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the encoder and of the decoder."""
        return [*self.blocks, *self.decoder_blocks]

    def forward(self, batch: Batch | Sequences, noise: Tensor | None = None) -> MaskedOutput:
        """Hide patches, and predict all of them.

        Parameters
        ----------
        batch
            Of either kind, or as sequences already.
        noise
            Decides what is hidden, in place of the plan's seeds; see `trainer.models.masking.draw`.
        """
        batch = batch if isinstance(batch, Sequences) else sequences(batch, self.patch)
        mask = draw(batch, self.config.mask_ratio, noise)
        prediction = self.decode(self.encode(batch, mask), batch, mask)
        c = self.config
        errors = losses(prediction, batch, mask.masked, c.patch, c.norm_pix, c.loss)
        return MaskedOutput(errors, batch.weight, prediction, mask.masked)

    def decode(self, x: Tensor, batch: Sequences, mask: Mask) -> Tensor:
        """Fill in hidden patches, and predict all of them.

        Parameters
        ----------
        x
            The encoder's output.
        batch
            All patches.
        mask
            What the encoder saw.

        Returns
        -------
        Tensor
            (T, p * p).
        """
        c = self.config
        y = self.with_mask_tokens(self.decoder_embed(x), mask.decoder)
        grid = batch.grid[batch.image.long()]
        place = positions(batch.yx, grid, c.decoder_width, c.position, c.position_table).to(y.dtype)
        y = y.index_add(0, mask.patches, place)
        for block in self.decoder_blocks:
            y = block(y, mask.decoder_cu, mask.decoder_longest)
        return self.decoder_pred(self.decoder_norm(y)[mask.patches])  # type: ignore[no-any-return]

    # --- what it costs

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Model`: three forward passes' worth, by the number of each image's tokens."""
        return (tokens > 0) * 3.0 * image_flops(self.config, tokens)

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Model`: three forward passes' worth of the batch as it is run."""
        return 3.0 * run_flops(self.config, sequences(batch, self.patch))

    # --- weights of other programs, out; of the encoder, see `VisionTransformer`

    def whole_weights(self, grid: Grid | None, channels: Channels = 1) -> Weights:
        """See `Model`: by the names of `facebookresearch/mae`."""
        assert grid is not None
        return formats.original_state(self, grid, channels)

"""A vision transformer on sequences of patches: images of any size, its parameters named as timm's.

Patches are gathered before they are embedded, so that only what is visible costs anything.
"""

import math
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer.models.base import Batch, Channels, Grey, Grid, Weights
from trainer.models.blocks import Block, check_blocks, check_drop_path, drop_rates, initialise_linear, kept
from trainer.models.encoder import Encoder, Features, real_tokens
from trainer.models.flops import encoder_flops, encoder_run_flops
from trainer.models.formats import encoder_state, load_original
from trainer.models.masking import Mask, draw
from trainer.models.positions import Mode, check_positions, positions
from trainer.models.sequences import Sequences, without_padding
from trainer.values import require


@dataclass(frozen=True, slots=True, kw_only=True)
class VitConfig:
    """A vision transformer.

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
        Stochastic depth in training: the share of images that the last block leaves as they are; it falls in equal
        steps to 0 for the first block.
    """

    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    position: Mode = "absolute"
    position_table: int = 64
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values of which no model can be made."""
        for name in ("patch", "depth", "position_table"):
            value = getattr(self, name)
            require(f"model.{name}", value, value >= 1, "1 or more")
        check_blocks("", self.width, self.heads)
        check_positions("", self.width)
        hidden = self.width * self.mlp_ratio
        require("model.mlp_ratio", self.mlp_ratio, 1 <= hidden < math.inf, "above 0, for a hidden channel or more")
        require("model.norm_eps", self.norm_eps, 0 < self.norm_eps < math.inf, "above 0")
        check_drop_path(self.drop_path)

    def build(self) -> "VisionTransformer":
        """Build the model, with random weights."""
        return VitEncoder(self)

    def encoder(self, last_norm: bool = True) -> "VitEncoder":
        """See `ModelConfig`."""
        return VitEncoder(self, last_norm)


class PatchEmbed(nn.Module):
    """A linear map of patches, its weight shaped as timm's convolution."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, patch, patch)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches: (n, p * p) -> (n, width)."""
        return nn.functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class VisionTransformer(Encoder, ABC):
    """The encoder's layers, and how they run on what is visible of a batch."""

    config: VitConfig

    def add_encoder(self, config: VitConfig) -> None:
        """Make the encoder's layers; the order in which they are made decides what random weights they get."""
        c = config
        self.patch_embed = PatchEmbed(c.patch, c.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio, c.norm_eps) for _ in range(c.depth))
        self.norm: nn.Module = nn.LayerNorm(c.width, eps=c.norm_eps)

    def initialise_encoder(self) -> None:
        """Draw Xavier uniform weights for linear maps and the patch embedding, a token with a deviation of 0.02."""
        initialise_linear(self)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(self.config.width, -1))
        nn.init.normal_(self.cls_token, std=0.02)

    @property
    def patch(self) -> int:
        """Side of a token in pixels."""
        return self.config.patch

    @property
    def width(self) -> int:
        """Channels of a feature."""
        return self.config.width

    @property
    def norm_eps(self) -> float:
        """Number added to the variance of all its norms."""
        return self.config.norm_eps

    def load_weights(self, state: Mapping[str, Tensor], channels: Grey = "sum") -> list[str]:
        """See `Model` and `trainer.models.formats.load_original`: weights of the original, or of timm."""
        return load_original(self, dict(state), channels)

    @property
    def layers(self) -> int:
        """See `Encoder`: the blocks, and the last norm."""
        return self.config.depth + 1

    def layer_of(self, name: str) -> int:
        """See `Encoder`: 0 for what comes before the blocks, depth + 1 for what comes after."""
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith(("patch_embed.", "cls_token")) else self.layers

    def no_weight_decay(self) -> frozenset[str]:
        """Return no names: the original decays its tokens, too."""
        return frozenset()

    def features(self, batch: Batch | Sequences) -> Features:
        """See `Encoder`. A bin's padding is not seen, so that features are those of the packed image."""
        of = batch if isinstance(batch, Sequences) else without_padding(batch, self.patch)
        places = len(of.weight) if isinstance(batch, Sequences) else len(batch.weight)
        mask = draw(of, 0.0)
        found, image = self.encode(of, mask), of.image.long()
        starts = of.cu_seqlens[:-1].long() + torch.arange(len(of.weight), device=image.device)
        token = found[mask.decoder[starts]][:places]
        return Features(
            tokens=found[mask.decoder[mask.patches]],
            image=image.clamp(max=places - 1),
            yx=of.yx,
            real=real_tokens(of.yx, of.hw[image], self.patch),
            places=places,
            stride=self.patch,
            class_token=token,
            own=lambda tokens: token,
        )

    def encode(self, batch: Sequences, mask: Mask) -> Tensor:
        """Run the encoder on visible patches, with a class token before each image's.

        Returns
        -------
        Tensor
            (E, width), normalised, in the order of `mask.encoder`.
        """
        c, count = self.config, batch.weight.shape[0]
        source = (mask.encoder - count).clamp(0, batch.patches.shape[0] - 1)
        is_class = (mask.encoder < count)[:, None]
        image = batch.image[source].long()
        x = self.patch_embed(batch.patches[source].to(self.cls_token.dtype))
        x = x + positions(batch.yx[source], batch.grid[image], c.width, c.position, c.position_table).to(x.dtype)
        x = torch.where(is_class, self.cls_token[0].to(x.dtype), x)
        seeds, owner = batch.seeds, torch.where(mask.encoder < count, mask.encoder.clamp(max=count - 1), image)
        for i, (block, rate) in enumerate(zip(self.blocks, drop_rates(c.drop_path, c.depth), strict=True)):
            share = kept(seeds, i, rate)[:, owner, None] if rate and self.training else None
            x = block(x, mask.encoder_cu, mask.encoder_longest, share)
        return self.norm(x)  # type: ignore[no-any-return]

    # --- weights of other programs, out

    @property
    def needs_grid(self) -> bool:
        """Whether a file is for one grid: yes, for positions are a formula here and a table in a file."""
        return True

    def exported_size(self, grid: Grid | None) -> tuple[int, int]:
        """See `Model`: the grid's patches in pixels."""
        if grid is None or min(grid) < 1:
            raise ArgumentError(
                "--grid ROWS COLUMNS is needed: positions are a formula here and a table in the file, made for images"
                f" of so many patches of {self.patch} pixels; the run's dataset, which has some, cannot be opened"
            )
        return grid[0] * self.patch, grid[1] * self.patch

    def encoder_weights(self, grid: Grid | None, channels: Channels = 1) -> Weights:
        """See `Model`: for timm's vision transformer of this grid."""
        assert grid is not None
        return encoder_state(self, grid, channels)

    def timm_call(self, grid: Grid | None) -> tuple[str, dict[str, Any]]:
        """See `Model`: timm's ViT-B, of which only the kind of blocks stays."""
        c = self.config
        return "vit_base_patch16_224", {
            "img_size": self.exported_size(grid),
            "patch_size": c.patch,
            "embed_dim": c.width,
            "depth": c.depth,
            "num_heads": c.heads,
            "mlp_ratio": c.mlp_ratio,
        }


@final
class VitEncoder(VisionTransformer):
    """The encoder alone, for tasks.

    Parameters
    ----------
    config
        Describes it.
    last_norm
        Whether features are normalised; without, there is no such norm.
    """

    def __init__(self, config: VitConfig, last_norm: bool = True) -> None:
        super().__init__()
        self.config = config
        self.add_encoder(config)
        if not last_norm:
            self.norm = nn.Identity()
        self.initialise_encoder()

    @property
    def all_blocks(self) -> Sequence[nn.Module]:
        """Its blocks."""
        return list(self.blocks)

    def no_weight_decay(self) -> frozenset[str]:
        """Return the token: in fine-tuning the original does not let it decay, other than in pre-training."""
        return frozenset({"cls_token"})

    def forward(self, batch: Batch | Sequences) -> Features:
        """See `features`."""
        return self.features(batch)

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Model`: by the number of each image's tokens."""
        return (tokens > 0) * self.passes * encoder_flops(self.config, tokens)

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Model`."""
        return self.passes * encoder_run_flops(self.config, without_padding(batch, self.patch))

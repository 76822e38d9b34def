"""A masked autoencoder with timm's Hiera as encoder: whole mask units are hidden, and only visible ones are computed.

Formulas: Ryali et al. 2023, Hiera (arXiv:2306.00989: mask units of 32 x 32 pixels, a decoder of all stages), and He et
al. 2022 (arXiv:2111.06377). Names, and what the papers leave open, are the public code's, so that its checkpoints load
whole: https://github.com/facebookresearch/hiera (Apache-2.0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

import timm
import torch
from timm.models.hiera import Hiera, HieraBlock
from torch import Tensor, nn

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from trainer.models.backbone import TimmEncoder
from trainer.models.base import Batch, Channels, Grey, Grid, Weights
from trainer.models.blocks import check_drop_path, initialise_linear
from trainer.models.decoder import MaskedAutoencoder, check_decoder
from trainer.models.hiera_formats import hiera_state, load_timm
from trainer.models.masking import draw
from trainer.models.output import MaskedOutput
from trainer.models.sequences import Sequences, from_binned
from trainer.models.stochastic_depth import planned
from trainer.objectives.losses import losses

POOLED: Final = 2  # times that queries are pooled: units of 8 x 8 tokens end as 2 x 2, a token for 16 x 16 pixels
_MLP_RATIO = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HieraConfig:
    """A hierarchical vision transformer as a masked autoencoder of square images.

    Parameters
    ----------
    arch
        timm's name of the encoder, such as hiera_tiny_224.
    side
        Height and width of an image in pixels, a multiple of 32.
    mask_ratio
        Share of an image's mask units, 32 x 32 pixels each, that is hidden.
    decoder_width
        Channels of the decoder.
    decoder_depth
        Blocks of the decoder.
    decoder_heads
        Attention heads of the decoder.
    norm_pix
        Targets are patches normalised by the mean and deviation of their own real pixels.
    norm_eps
        Added to a norm's variance.
    drop_path
        Stochastic depth of the encoder in training.
    """

    arch: str = "hiera_tiny_224"
    side: int = 224
    mask_ratio: float = 0.6
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    norm_pix: bool = True
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values of which no model can be made."""
        check_decoder(self)
        check_drop_path(self.drop_path)

    def build(self) -> "HieraMae":
        """Build the model, with random weights."""
        return HieraMae(self)

    def encoder(self, last_norm: bool = True) -> TimmEncoder:
        """See `EncoderConfig`: timm's own, whose queries are pooled three times, and whose norm follows the mean."""
        _check_arch(self.arch)
        return TimmEncoder(self.arch, self.side, self.drop_path, last_norm, self.norm_eps)


class HieraMae(MaskedAutoencoder):
    """Encoder of the visible mask units, decoder of all patches, loss.

    `encoder` is timm's model of one channel without a classifier, and its `state_dict()` loads strictly into
    `timm.create_model(arch, in_chans=1, num_classes=0, img_size=side)`. Queries are pooled twice here, as the public
    code pre-trains, and three times in timm's default: the last stage then keeps 2 x 2 tokens a unit to predict from.
    Pooling has no parameters, so that the shapes are the same. `encoder.head.norm` normalises the fused stages, which
    is where timm puts that norm of the public checkpoints; thus every parameter takes part in every forward pass.

    Positions of the decoder are learned, as in the public code; all images have one size, so that a table will do.

    Raises
    ------
    ArgumentError
        For an `arch` that is not a timm Hiera, a `side` that is not whole mask units, or a `mask_ratio` that leaves no
        unit visible.
    """

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        c = self.config = config
        self.encoder = _encoder(c)
        unit, stride = int(self.encoder.mask_unit_size[0]), int(self.encoder.patch_stride[0])  # in tokens, in pixels
        pool = int(self.encoder.q_stride[0])
        self.unit, self.inside = unit * stride, unit // pool**POOLED
        self.rows = c.side // self.unit
        self.visible = int(self.rows**2 * (1 - c.mask_ratio))
        if c.side % self.unit:
            raise ArgumentError(f"side={c.side} must be a multiple of {self.unit}, the pixels of a mask unit's side")
        if not 0 <= c.mask_ratio < 1 or self.visible < 1:
            raise ArgumentError(
                f"mask_ratio={c.mask_ratio} must be at least 0 and leave one of {self.rows**2} mask units visible"
            )
        width = self.encoder.num_features
        widths = [int(of["num_chs"]) for of in self.encoder.feature_info[:POOLED]]
        kernels = [unit // pool**stage // self.inside for stage in range(POOLED)]
        self.multi_scale_fusion_heads = nn.ModuleList(
            nn.Conv2d(own, width, kernel, kernel) for own, kernel in zip(widths, kernels, strict=True)
        )
        self.add_decoder(width, c, _MLP_RATIO)
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, (self.rows * self.inside) ** 2, c.decoder_width))
        self._drawn = planned(self.encoder)
        self._initialise()

    def _initialise(self) -> None:
        """Draw weights as `Mae` does, and tables of positions as its tokens, with a deviation of 0.02."""
        initialise_linear(self)
        nn.init.xavier_uniform_(self.encoder.get_parameter("patch_embed.proj.weight").flatten(1))
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.normal_(self.decoder_pos_embed, std=0.02)

    @property
    def patch(self) -> int:
        """Side in pixels of what one token of the decoder predicts: 16."""
        return self.unit // self.inside

    @property
    def blocks(self) -> nn.ModuleList:
        """Blocks of the encoder."""
        return self.encoder.blocks

    @property
    def all_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the encoder and of the decoder."""
        return [*self.blocks, *self.decoder_blocks]

    def check_batching(self, batching: Any) -> None:
        """See `Model`: images have to be square, and of one size."""
        if getattr(batching, "side", None) != self.config.side:
            raise ArgumentError(
                f"--model.arch {self.config.arch} takes images of {self.config.side} pixels a side:"
                f" use --loader.batching resized:side={self.config.side}"
            )
        super().check_batching(batching)

    def no_weight_decay(self) -> frozenset[str]:
        """Return the names of the tables of positions. The mask token decays."""
        return frozenset({"encoder.pos_embed", "encoder.pos_embed_win", "decoder_pos_embed"})

    def forward(self, batch: BinnedBatch) -> MaskedOutput:
        """Hide mask units, and predict all patches.

        Parameters
        ----------
        batch
            Images of side x side pixels; masks and stochastic depth follow its seeds.

        Returns
        -------
        MaskedOutput
            With T = B * (side / patch)^2 patches, in the order of `from_binned(batch, patch)`.

        Raises
        ------
        ArgumentError
            For images of another size, or packed ones.
        """
        side = self.config.side
        found = "packed" if not isinstance(batch, BinnedBatch) else "{}x{}".format(*batch.images.shape[2:])
        if found != f"{side}x{side}":
            raise ArgumentError(
                f"images are {found} and the model takes {side}x{side}: choose batching resized:side={side}"
            )
        visible = ~draw(from_binned(batch, self.unit), self.config.mask_ratio).masked.view(-1, self.rows**2)
        of = from_binned(batch, self.patch)
        self._drawn.begin(batch.seeds)
        prediction = self.decode(self.encode(batch.images, visible), visible, of)
        masked = ~self._by_patch(visible).flatten()
        errors = losses(prediction, of, masked, self.patch, self.config.norm_pix)
        return MaskedOutput(errors, batch.weight, prediction, masked)

    def encode(self, images: Tensor, visible: Tensor, count: int | None = None) -> Tensor:
        """Run the encoder, fuse its stages, and normalise them.

        As timm's `forward_features` does it, which embeds pixels before it drops hidden units (with zeros in their
        place, for its kernels overlap), so that blocks see visible ones only. There they are dropped by a mask, for
        which a GPU has to be waited for; here by their places, whose number is known.

        Parameters
        ----------
        images
            float (B, 1, side, side).
        visible
            bool (B, units); every image must have the same number of visible units.
        count
            That number, where it is not that of `mask_ratio`.

        Returns
        -------
        Tensor
            (B, visible units, 2, 2, width).
        """
        of = self.encoder
        x = of.patch_embed(images.to(self.mask_token.dtype), mask=visible.view(-1, 1, self.rows, self.rows))
        x = of.unroll(of._pos_embed(x)).unflatten(1, (of.mu_size, -1))
        kept = visible.int().argsort(dim=1, descending=True, stable=True)[:, : count or self.visible]
        x = x.gather(2, kept[:, None, :, None].expand(-1, of.mu_size, -1, x.shape[3])).flatten(1, 2)
        stages = []
        for number, block in enumerate(of.blocks):
            x = block(x)
            if number in of.stage_ends:
                stages.append(of.reroll(x, number, mask=visible))
        x = stages[-1]  # the stage before has this resolution too; it is not fused
        for head, stage in zip(self.multi_scale_fusion_heads, stages, strict=False):
            x = x + head(stage.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).reshape(x.shape)
        return self.encoder.head.norm(x)  # type: ignore[no-any-return]

    def decode(self, x: Tensor, visible: Tensor, of: Sequences) -> Tensor:
        """Return a prediction for every patch: (T, patch * patch).

        Parameters
        ----------
        x
            The encoder's output.
        visible
            bool (B, units).
        of
            The patches.
        """
        x = self.decoder_embed(x).flatten(0, 3)
        # Tokens of a unit lie together: its place among the visible ones of all images, then the place within it.
        per = self.inside**2
        within = torch.arange(per, device=x.device).view(1, 1, self.inside, 1, self.inside)
        source = self._by_patch((visible.flatten().cumsum(0).view_as(visible) - 1) * per) + within
        source = torch.where(self._by_patch(visible), source, x.shape[0]).flatten()
        y = self.with_mask_tokens(x, source).view(len(visible), -1, x.shape[1])
        y = (y + self.decoder_pos_embed).flatten(0, 1)
        for block in self.decoder_blocks:
            y = block(y, of.cu_seqlens, of.longest)
        return self.decoder_pred(self.decoder_norm(y))  # type: ignore[no-any-return]

    def _by_patch(self, units: Tensor) -> Tensor:
        """Give each patch its unit's value: (B, units) -> (B, rows, 2, rows, 2), row by row of the image."""
        values = units.view(-1, self.rows, 1, self.rows, 1)
        return values.expand(-1, -1, self.inside, -1, self.inside)

    # --- what it costs

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Model`: the same for every image."""
        return (tokens > 0) * (3.0 * flops(self.config))

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Model`: the same for every place of a batch."""
        return batch.weight.new_full((), 3.0 * flops(self.config) * len(batch.weight), dtype=torch.float64)

    # --- weights of other programs, in and out

    def load_weights(self, state: Mapping[str, Tensor], channels: Grey = "sum") -> list[str]:
        """See `Model` and `load_timm`: weights of timm's Hiera, or of the public code."""
        return load_timm(self, state, channels)

    @property
    def needs_grid(self) -> bool:
        """Whether a file is for one grid: no, for images have one size."""
        return False

    def exported_size(self, grid: Grid | None) -> tuple[int, int]:
        """See `Model`: its images have one size."""
        c = self.config
        if grid is not None:
            raise ArgumentError(f"--grid is not for {c.arch}: its images have {c.side} pixels a side, leave it out")
        return c.side, c.side

    @property
    def norm_eps(self) -> float:
        """Number added to the variance of all its norms."""
        return self.config.norm_eps

    def encoder_weights(self, grid: Grid | None, channels: Channels = 1) -> Weights:
        """See `Model`: for timm's Hiera."""
        return hiera_state(self, whole=False, channels=channels)

    def whole_weights(self, grid: Grid | None, channels: Channels = 1) -> Weights:
        """See `Model`: by the names that `load_timm` reads."""
        return hiera_state(self, whole=True, channels=channels)

    def timm_call(self, grid: Grid | None) -> tuple[str, dict[str, Any]]:
        """See `Model`: its arch."""
        return self.config.arch, {"img_size": self.exported_size(grid), "q_pool": POOLED}


def _check_arch(arch: str) -> None:
    known = timm.list_models("hiera_*")
    if arch not in known:
        raise ArgumentError(f"arch={arch} is not a Hiera of timm's: choose one of {', '.join(known)}")


def _encoder(config: HieraConfig) -> Hiera:
    _check_arch(config.arch)
    encoder = timm.create_model(
        config.arch,
        pretrained=False,
        in_chans=1,
        num_classes=0,
        img_size=(config.side, config.side),
        q_pool=POOLED,
        drop_path_rate=config.drop_path,
        norm_layer=partial(nn.LayerNorm, eps=config.norm_eps),
    )
    assert isinstance(encoder, Hiera)
    return encoder


@lru_cache
def flops(config: HieraConfig) -> int:
    """Return the operations of one image's forward pass, a multiply-add being two.

    They are counted from the modules: the patch embedding on the whole image, as timm computes it, the other parts of
    the encoder on visible mask units, the decoder on all patches. Norms, activations and the loss are left out.
    """
    with torch.device("meta"):  # shapes only
        model = HieraMae(config)
    encoder = model.encoder
    per_unit = encoder.mu_size
    total = model.rows**2 * per_unit * _weights(encoder.patch_embed)
    tokens = model.visible * per_unit
    for block in encoder.blocks:
        assert isinstance(block, HieraBlock)
        attn, before = block.attn, tokens
        tokens //= attn.q_stride
        keys = attn.q_stride * attn.window_size if attn.use_mask_unit_attn else before
        first = _weights(attn.qkv) + (0 if block.proj is None else _weights(block.proj))
        total += before * first + tokens * (_weights(block) - first) + 2 * tokens * keys * attn.dim_out
    total += tokens * (_weights(model.multi_scale_fusion_heads) + _weights(model.decoder_embed))
    patches = model.decoder_pos_embed.shape[1]
    total += patches * (_weights(model.decoder_blocks) + _weights(model.decoder_pred))
    total += 2 * config.decoder_depth * patches**2 * config.decoder_width
    return 2 * total


def _weights(module: nn.Module) -> int:
    """Count a module's multiply-adds at one place, in its linear maps and convolutions."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d))

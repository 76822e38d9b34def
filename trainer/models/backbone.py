"""Any backbone of timm's as an encoder of square images of one size: baselines, and our Hiera.

Its weights have timm's names. Batch normalisation sees no empty places; each process normalises by its own micro-batch,
and running statistics are the mean over processes. Stochastic depth is drawn from the plan's seeds. Dropout, which no
recipe has, is drawn from torch's random numbers, whose state is in checkpoints: a run goes on exactly, but another
number of processes draws other ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, final

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from trainer.models.backbone_files import as_timm
from trainer.models.backbone_layout import arguments, create, forward_flops, layers, layout, sized
from trainer.models.base import Batch, Channels, Grey, Grid, Weights
from trainer.models.blocks import check_drop_path
from trainer.models.encoder import Encoder, Features, real_tokens
from trainer.models.formats import to_colour, to_grey
from trainer.models.places import count_filled, filled, put_back
from trainer.models.running import Running
from trainer.models.stochastic_depth import planned
from trainer.models.timm_names import parted
from trainer.values import require

_LAST_NORMS = ("norm", "fc_norm", "head.norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmConfig:
    """A model of timm's, as a baseline on images of one size.

    Parameters
    ----------
    name
        timm's name. With a tag, as in densenet121.tv_in1k, a run begins with those weights; without, at random.
    side
        Height and width of an image in pixels.
    drop_path
        Stochastic depth in training, for models that have it; 0 is none, also where timm's own default is another.
    channels
        Channels of its first layer: 1, or 3, which are shown the grey image three times.
    any_size
        Take images of other sizes, too, as crops of several sizes are: a vision transformer interpolates its positions.
    changes
        Arguments of timm's that make another architecture of its model, as name=value: embed_dim=384 num_heads=6.
    """

    name: str
    side: int = 224
    drop_path: float = 0.0
    channels: Channels = 1
    any_size: bool = False
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values of which no model can be made."""
        require("model.side", self.side, self.side >= 1, "1 or more")
        require("model.channels", self.channels, self.channels in (1, 3), "1 or 3")
        check_drop_path(self.drop_path)
        arguments(self.changes)

    def build(self) -> "TimmEncoder":
        """Build the model, with random weights."""
        return self.encoder()

    def encoder(self, last_norm: bool = True) -> "TimmEncoder":
        """See `ModelConfig`."""
        parted(self.name)
        return TimmEncoder(
            self.name,
            self.side,
            self.drop_path,
            last_norm,
            channels=self.channels,
            any_size=self.any_size,
            changes=self.changes,
        )


@final
class TimmEncoder(Encoder):
    """A backbone.

    Parameters
    ----------
    name
        timm's, with or without a tag.
    side
        Height and width of an image in pixels.
    drop_path
        Stochastic depth.
    last_norm
        Whether features are normalised last, in the backbone or in its own pooling; without, there is no such norm.
    norm_eps
        Added to the variance of layer norms; None leaves it to timm.
    channels
        Channels of its first layer.
    any_size
        Whether it takes images of other sizes, too.
    changes
        Arguments of timm's, see `TimmConfig`.
    """

    def __init__(
        self,
        name: str,
        side: int,
        drop_path: float = 0.0,
        last_norm: bool = True,
        norm_eps: float | None = None,
        channels: Channels = 1,
        any_size: bool = False,
        changes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.name, self.side, self.channels, self._eps, self._any_size = name, side, channels, norm_eps, any_size
        self._changes, self.layout = changes, layout(name, side, changes)
        given: dict[str, Any] = {"drop_path_rate": drop_path, "in_chans": channels, **self._architecture}
        if norm_eps is not None:
            given["norm_layer"] = partial(nn.LayerNorm, eps=norm_eps)
        self.encoder: Any = create(name, side, **given)
        self._running, self._drawn = Running(self.encoder), planned(self.encoder)
        for place in () if last_norm else _LAST_NORMS:
            owner, _, attribute = f"encoder.{place}".rpartition(".")
            held: Any = self.get_submodule(owner) if _has(self, owner) else None
            if isinstance(getattr(held, attribute, None), nn.Module):
                setattr(held, attribute, nn.Identity())

    @property
    def _architecture(self) -> dict[str, Any]:
        """The arguments of timm's, beside the size of images, that decide which weights it has and what they do."""
        dynamic = {"dynamic_img_size": True} if self._any_size and self.layout.order == "NLC" else {}
        return {**arguments(self._changes), **dynamic}

    @property
    def patch(self) -> int:
        """Side of a token of its features in pixels."""
        return self.side // self.layout.rows

    @property
    def width(self) -> int:
        """Channels of a feature."""
        return self.layout.width

    @property
    def own_width(self) -> int:
        """Channels of what its own pooling gives."""
        return self.layout.own_width

    @property
    def all_blocks(self) -> Sequence[nn.Module]:
        """No parts, so that nothing is compiled.

        What compiles as one graph differs from model to model. Blocks of a vision transformer would, but
        `PlannedDropPath` counts its calls in Python, which would be a graph for every block, and methods put hooks on
        blocks.
        """
        return ()

    @property
    def norm_eps(self) -> float:
        """Number added to the variance of a layer norm."""
        return 1e-6 if self._eps is None else self._eps

    def check_batching(self, batching: Any) -> None:
        """See `Model`: images have to be square, and of one size; the size of patches does not matter."""
        side = getattr(batching, "side", None)
        if side != self.side and not hasattr(batching, "per_step"):  # a view of a batching
            raise ArgumentError(
                f"{self.name} takes images of {self.side} pixels a side, and a view has {side}: write that side in"
                f" views=... of --loader.batching multiview, or use --model.side {side}"
            )
        if side != self.side:
            raise ArgumentError(
                f"{self.name} takes images of {self.side} pixels a side: use --loader.batching resized:side={self.side}"
                " with its batch_size and per_step"
            )

    def train(self, mode: bool = True) -> "TimmEncoder":
        """Switch to training; batch normalisation of a frozen backbone keeps its statistics."""
        super().train(mode)
        if not any(p.requires_grad for p in self.parameters()):
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    # --- features

    def forward(self, batch: Batch) -> Features:
        """See `features`."""
        return self.features(batch)

    def features(self, batch: Batch) -> Features:
        """See `Encoder`."""
        batch = self._fitting(batch)
        images = self.coloured(batch.images).to(next(self.parameters()).dtype)
        found, of = self._run(images, batch), self.layout
        tokens, before, count = of.tokens(found), found[:, : of.prefix], len(images)
        grid = of.grid(found, images.shape[2] / self.side, images.shape[3] / self.side)
        yx = torch.cartesian_prod(*(torch.arange(n, device=images.device) for n in grid))
        image = torch.arange(count, device=images.device).repeat_interleave(len(yx))
        yx = yx.repeat(count, 1)
        return Features(
            tokens=tokens.reshape(-1, self.width),
            image=image,
            yx=yx,
            real=real_tokens(yx, batch.sizes[image], self.patch) & (batch.weight[image] > 0),
            places=count,
            stride=self.patch,
            class_token=found[:, 0] if of.class_token else None,
            own=lambda tokens: self.encoder.forward_head(
                of.features(tokens.view(count, -1, self.width), before), pre_logits=True
            ),
        )

    def coloured(self, images: Tensor) -> Tensor:
        """Return images in the channels of the first layer, grey ones three times: (B, channels, H, W)."""
        return images.expand(-1, self.channels, -1, -1)

    def _fitting(self, batch: Batch) -> BinnedBatch:
        found = "packed" if not isinstance(batch, BinnedBatch) else "{}x{}".format(*batch.images.shape[2:])
        if self._any_size and isinstance(batch, BinnedBatch):
            return batch
        if not isinstance(batch, BinnedBatch) or found != f"{self.side}x{self.side}":
            raise ArgumentError(
                f"images are {found} and {self.name} takes {self.side}x{self.side}: choose batching"
                f" resized:side={self.side}"
            )
        return batch

    def _run(self, images: Tensor, batch: BinnedBatch) -> Tensor:
        """Return timm's features; empty places are not run in training, so that they are in no statistics."""
        if not self.training:
            return self.encoder.forward_features(images)  # type: ignore[no-any-return]
        self._running.begin()
        count = count_filled(batch)
        if not count:
            self.eval()
            found: Tensor = self.encoder.forward_features(images)
            self.train()
            return found
        if count == len(images):
            self._drawn.begin(batch.seeds)
            return self._trained_on(images)
        at = filled(batch)
        self._drawn.begin(batch.seeds[at])
        return put_back(self._trained_on(images[at]), batch)

    def _trained_on(self, images: Tensor) -> Tensor:
        try:
            found: Tensor = self.encoder.forward_features(images)
            return found
        except ValueError as error:  # torch's, of batch normalisation
            if len(images) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise ArgumentError(
                f"{self.name} normalises over the images of a micro-batch, and one image of {self.side} x {self.side}"
                " pixels has a single value a channel: use a greater --model.side, or a --loader.batching with"
                " batch_size of 2 or more and remainder=drop"
            ) from error

    def own_pooling(self, how: Literal["mean", "token"]) -> Sequence[nn.Parameter]:
        """See `Encoder`."""
        there = dict(self.encoder.named_parameters())
        return [there[name] for name in self.layout.unused.get(how, ()) if name in there]

    def stepped(self) -> None:
        """Average the running statistics of batch normalisation over processes."""
        self._running.stepped()

    def skipped(self) -> None:
        """Take back what the step made of the running statistics."""
        self._running.skipped()

    # --- layers

    @property
    def layers(self) -> int:
        """See `Encoder`: as timm numbers them, a classifier being the last."""
        return max(layers(self.name, self.side, self._changes).values())

    def layer_of(self, name: str) -> int:
        """See `Encoder`."""
        return layers(self.name, self.side, self._changes).get(name.removeprefix("encoder."), self.layers)

    def no_weight_decay(self) -> frozenset[str]:
        """Return what timm names."""
        own: set[str] = getattr(self.encoder, "no_weight_decay", set)()
        return frozenset(f"encoder.{name}" for name in own)

    # --- what it costs

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Model`: the same for every image of its size."""
        return (tokens > 0) * self.flops_at(self.side, self.side)

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Model`: the same for every place of a batch."""
        assert isinstance(batch, BinnedBatch)
        own = self.flops_at(int(batch.images.shape[2]), int(batch.images.shape[3]))
        return batch.weight.new_full((), own * len(batch.weight), dtype=torch.float64)

    def view_flops(self, view: BinnedBatch, tokens: Tensor) -> Tensor:
        """See `Encoder`: by the size of the view's images."""
        return (tokens > 0) * self.flops_at(int(view.images.shape[2]), int(view.images.shape[3]))

    def flops_at(self, height: int, width: int) -> float:
        """Return the operations of training on one image of a size."""
        return self.passes * forward_flops(self.name, self.side, self._changes, self.channels, height, width)

    # --- weights of other programs, out

    def exported_size(self, grid: Grid | None) -> tuple[int, int]:
        """See `Model`: its images have one size."""
        if grid is not None:
            raise ArgumentError(
                f"--grid is not for {self.name}: its images have {self.side} pixels a side, leave it out"
            )
        return self.side, self.side

    @property
    def exported_eps(self) -> float | None:
        """See `Model`: timm's own, which the call leaves as they are, unless others were asked for."""
        return self._eps

    def encoder_weights(self, grid: Grid | None, channels: Channels = 1) -> Weights:
        """See `Model`."""
        state, first = dict(self.encoder.state_dict()), self.first_kernel
        if channels == self.channels:
            return state
        layer = self.encoder.get_submodule(first.rpartition(".")[0])
        if not isinstance(layer, nn.Conv2d) or "Std" in type(layer).__name__:
            raise ArgumentError(
                f"the first layer of {self.name} is no plain convolution, whose kernels could be those of {channels}"
                f" channels: export with --in-chans {self.channels}"
            )
        state[first] = to_colour(state[first]) if channels == 3 else to_grey(state[first])
        return state

    def timm_call(self, grid: Grid | None) -> tuple[str, dict[str, Any]]:
        """See `Model`."""
        return parted(self.name)[0], {**sized(self.name, self.side), **self._architecture}

    # --- weights of other programs, in

    @property
    def first_kernel(self) -> str:
        """See `Model`."""
        of = self.encoder.pretrained_cfg["first_conv"]
        return f"{of if isinstance(of, str) else of[0]}.weight"

    @property
    def initial(self) -> str | None:
        """See `Model`: the weights that its tag names."""
        return self.name if parted(self.name)[1] else None

    def load_weights(self, state: Mapping[str, Tensor], channels: Grey = "sum") -> list[str]:
        """Load weights of timm's, or what timm's own filters make of other programs' files.

        Returns
        -------
        list of str
            No names: all of the backbone has to be there.

        Raises
        ------
        ArgumentError
            For weights of another model.
        """
        own = self.encoder.state_dict()
        found = as_timm(dict(state), self.name, self.side, self._changes, self.first_kernel, own)
        for name in own:
            value, wanted = found[name], own[name]
            if value.shape != wanted.shape and value.ndim == 4:
                value = adapt_input_conv(self.channels, value)
                value = value / (3 if self.channels == 1 and channels == "mean" else 1)
            if value.shape != wanted.shape:
                raise ArgumentError(
                    f"{name} is {tuple(value.shape)} there and {tuple(wanted.shape)} in {self.name}: choose the model"
                    " and side that it is of; weights of three colours fit where the first layer is a convolution"
                )
            own[name] = value
        self.encoder.load_state_dict(own)
        return []


def _has(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return True

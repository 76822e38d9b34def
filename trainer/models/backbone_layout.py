"""What a model of timm's makes of an image: shape and order of its features, its layers, its operations.

All of it is found by running the model once without values (torch's meta device): timm has no one record of it.
"""

import ast
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Any, Literal

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from shardkit.errors import ArgumentError

Order = Literal["NCHW", "NHWC", "NLC", "NC"]


@dataclass(frozen=True)
class Layout:
    """What a model makes of an image.

    Attributes
    ----------
    order : {"NCHW", "NHWC", "NLC", "NC"}
        Order of the dimensions of its features.
    rows, cols : int
        The grid of its tokens.
    prefix : int
        Number of tokens before those of the grid.
    class_token : bool
        Whether the first of them is a class token; registers are none.
    width, own_width : int
        Channels of its features, and of what its own pooling gives.
    flops : int
        Operations of one image's forward pass, a multiply-add being two.
    unused : dict of str to frozenset of str
        Names of the parameters that take no part where the mean, or the class token, is pooled.
    """

    order: Order
    rows: int
    cols: int
    prefix: int
    class_token: bool
    width: int
    own_width: int
    flops: int
    unused: dict[str, frozenset[str]]

    def tokens(self, found: Tensor) -> Tensor:
        """Return features as tokens, row by row: (B, rows * cols, width)."""
        if self.order == "NCHW":
            return found.flatten(2).transpose(1, 2)
        if self.order == "NLC":
            return found[:, self.prefix :]
        return found.reshape(len(found), -1, self.width)

    def grid(self, found: Tensor, down: float = 1.0, across: float = 1.0) -> tuple[int, int]:
        """Return rows and columns of the tokens in features of images that are so many times as large."""
        if self.order == "NCHW":
            return int(found.shape[2]), int(found.shape[3])
        if self.order == "NHWC":
            return int(found.shape[1]), int(found.shape[2])
        return round(self.rows * down), round(self.cols * across)

    def features(self, tokens: Tensor, before: Tensor) -> Tensor:
        """Return tokens as the model has its features; the inverse of `tokens`.

        Parameters
        ----------
        tokens
            (B, rows * cols, width).
        before
            (B, prefix, width), the tokens before them.
        """
        if self.order == "NCHW":
            return tokens.transpose(1, 2).reshape(len(tokens), -1, self.rows, self.cols)
        if self.order == "NHWC":
            return tokens.reshape(len(tokens), self.rows, self.cols, -1)
        return torch.cat([before, tokens], 1) if self.order == "NLC" else tokens[:, 0]


def arguments(changes: tuple[str, ...]) -> dict[str, Any]:
    """Return arguments of timm's by name, from texts such as embed_dim=384: values are Python's, else words.

    Raises
    ------
    ArgumentError
        For a text that is no name=value.
    """
    found: dict[str, Any] = {}
    for text in changes:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise ArgumentError(f"--model.changes {text} must be name=value, as in embed_dim=384")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def sized(name: str, side: int) -> dict[str, Any]:
    """Return the argument of timm's that makes a model for images of one size, where it needs one."""
    usual = timm.models.get_pretrained_cfg(name) or timm.models.get_pretrained_cfg(name.partition(".")[0])
    fixed = usual is None or (usual.fixed_input_size and usual.input_size[-1] != side)
    return {"img_size": (side, side)} if fixed else {}


def create(name: str, side: int, **changes: Any) -> nn.Module:
    """Make a model of timm's for images of one size, without a classifier unless `changes` say so.

    Raises
    ------
    ArgumentError
        Where it takes no images of that size, or no such changes.
    """
    own = {"pretrained": False, "in_chans": 1, "num_classes": 0, **sized(name, side), **changes}
    try:
        made = timm.create_model(name, **own)
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        if "drop_path_rate" in str(error):
            if changes["drop_path_rate"] == 0:
                return create(name, side, **{key: value for key, value in changes.items() if key != "drop_path_rate"})
            raise ArgumentError(f"{name} has no stochastic depth: use --model.drop-path 0") from error
        raise ArgumentError(f"{name} cannot be made for images of {side} x {side} pixels: {error}") from error
    assert isinstance(made, nn.Module)
    return made


@lru_cache
def layout(name: str, side: int, changes: tuple[str, ...] = ()) -> Layout:
    """Find out what a model makes of an image; `changes` as of `arguments`.

    Raises
    ------
    ArgumentError
        Where its features are no grid of tokens, or it cannot be run on such an image.
    """
    refused = ArgumentError(f"the features of {name} are no grid of tokens: choose another model")
    with torch.device("meta"):
        model: Any = create(name, side, **arguments(changes))
        image = torch.empty(2, 1, side, side)
    with FlopCounterMode(display=False) as counter:
        try:
            found = model.forward_features(image)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            usual = model.pretrained_cfg.get("input_size", (0, 0, 224))[-1]
            cause = str(error).strip().partition("\n")[0]
            raise ArgumentError(
                f"{name} takes no images of {side} x {side} pixels ({cause}): use --model.side {usual} with"
                f" --loader.batching resized:side={usual}, or another model"
            ) from error
        if not isinstance(found, Tensor):
            raise refused
        own = model.forward_head(found, pre_logits=True)
    flops, width = counter.get_total_flops() // 2, int(model.num_features)
    order, prefix = _order(found, width, model), 0
    if order is None or own.ndim != 2:
        raise refused
    if order == "NLC":
        prefix = _before(found.shape[1], model)
        rows = cols = isqrt(found.shape[1] - prefix)
        if rows * cols + prefix != found.shape[1]:
            raise refused
    else:
        rows, cols = {"NCHW": found.shape[2:], "NHWC": found.shape[1:3], "NC": (1, 1)}[order]
    class_token = prefix > 0 and _has_class_token(model)
    made = Layout(order, rows, cols, prefix, class_token, width, int(own.shape[1]), flops, {})
    made.unused["mean"] = _unused(model, made.tokens(found))
    if class_token:
        made.unused["token"] = _unused(model, found[:, 0])
    return made


@lru_cache
def forward_flops(name: str, side: int, changes: tuple[str, ...], channels: int, height: int, width: int) -> int:
    """Return the operations of the features of one image, a multiply-add being two.

    Parameters
    ----------
    name, side, changes
        Of the model, as of `layout`.
    channels
        Of its first layer.
    height, width
        Of the image in pixels; where they are not the model's side, it takes images of other sizes.
    """
    if channels == 1 and height == width == side:
        return layout(name, side, changes).flops
    dynamic = layout(name, side, changes).order == "NLC" and (height, width) != (side, side)
    own = {"in_chans": channels, **arguments(changes), **({"dynamic_img_size": True} if dynamic else {})}
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        create(name, side, **own).forward_features(torch.empty(2, channels, height, width))  # type: ignore[operator]
    return int(counter.get_total_flops()) // 2


def _order(found: Tensor, width: int, model: Any) -> Order | None:
    last = found.shape[-1] == width
    if found.ndim == 4:
        if last and (found.shape[1] != width or getattr(model, "output_fmt", "NCHW") == "NHWC"):
            return "NHWC"
        return "NCHW" if found.shape[1] == width else None
    if not last:
        return None
    return "NLC" if found.ndim == 3 else "NC" if found.ndim == 2 else None


def _before(count: int, model: Any) -> int:
    known = getattr(model, "num_prefix_tokens", None)
    return int(known) if known is not None else count - isqrt(count) ** 2


def _has_class_token(model: nn.Module) -> bool:
    """Of models that do not say how many tokens go before, the one that does is a class token."""
    known = hasattr(model, "num_prefix_tokens")
    return not known or any(name.rpartition(".")[2] == "cls_token" for name, _ in model.named_parameters())


def _unused(model: nn.Module, used: Tensor) -> frozenset[str]:
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parts = torch.autograd.grad(
        used.sum(), [model.get_parameter(n) for n in names], retain_graph=True, allow_unused=True
    )
    return frozenset(name for name, part in zip(names, parts, strict=True) if part is None)


@lru_cache
def layers(name: str, side: int, changes: tuple[str, ...] = ()) -> dict[str, int]:
    """Return the layer of each parameter, for learning rates that decay towards the first, as timm groups them.

    The last layer is that of a classifier.

    Raises
    ------
    ArgumentError
        For a model whose layers timm does not know.
    """
    with torch.device("meta"):
        model: Any = create(name, side, num_classes=1, **arguments(changes))
    if not hasattr(model, "group_matcher"):
        raise ArgumentError(f"timm does not number the layers of {name}: use --optim.layer-decay 1")
    found: dict[str, int] = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return found

"""How an exported file is used: the call of timm's that it loads into, and how an image is prepared for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional

from shardkit import from_text, prepare
from shardkit.commands.normalising import normalise_of
from shardkit.errors import ArgumentError
from trainer.models.base import Grid

OF_MEMBER = "loader.normalise."
"""Before the name of a mixture's member, in a file's metadata: how its grey levels were normalised."""
_GREY = {
    "none": "grey levels as they are",
    "percentile": "the 0.5th percentile of its grey levels at 0 and the 99.5th at 1, cut off",
    "minmax": "its least grey level at 0 and its greatest at 1",
    "fullscale": "grey levels divided by the greatest that its bits can hold",
    "zscore": "the mean of its grey levels at 0 and their standard deviation 1",
}


def call(model: tuple[str, dict[str, Any]], norm_eps: float | None, channels: int, out: Path) -> str:
    """Return Python code that makes timm's model and loads the encoder into it.

    Parameters
    ----------
    model
        Name and arguments, see `Model.timm_call`.
    norm_eps
        Number added to a norm's variance; None leaves norms to timm.
    channels
        Channels of the images.
    out
        File of the weights.
    """
    name, own = model
    kept = {"in_chans": channels, "num_classes": 0, **own}
    words = ", ".join(f"{key}={value!r}" for key, value in kept.items())
    safe = out.suffix == ".safetensors"
    norm = "" if norm_eps is None else ", norm_layer=norm"
    load = f"load_file({str(out)!r})" if safe else f"torch.load({str(out)!r}, weights_only=True)"
    return "\n".join(
        [
            "import functools, timm, torch" if norm else "import timm, torch",
            *(["from safetensors.torch import load_file"] if safe else []),
            *([f"norm = functools.partial(torch.nn.LayerNorm, eps={norm_eps!r})"] if norm else []),
            f"model = timm.create_model({name!r}, {words}{norm})",
            f"model.load_state_dict({load})",
            "model.eval()",
        ]
    )


def preparation(options: dict[str, Any], members: Mapping[str, str], size: Grid, channels: int) -> str:
    """Return sentences on how an image looked to the run.

    Parameters
    ----------
    options
        Dotted names and values of the run.
    members
        How the members of its mixture were normalised, by name.
    size
        Rows and columns of an image in pixels.
    channels
        Channels of the images.
    """
    batching, normalise = from_text(options["loader.batching"]).plain(), options["loader.normalise"]
    side = batching.augmentation.side
    others = {name: how for name, how in members.items() if how != normalise}
    own = "".join(f"; of {name} instead, {_grey(how)}" for name, how in others.items())
    parts = [
        f"An image is float32 (batch, {channels}, {size[0]}, {size[1]}), MONOCHROME2"
        + (", the same three times" if channels == 3 else ""),
        f"{_grey(normalise)} (--loader.normalise {normalise}; blank border and padding do not count){own}",
    ]
    if side is not None:
        parts.append(f"resized to {side} x {side} pixels (--loader.batching {batching})")
    elif isinstance(batching.level, int) and batching.level:
        step = 1 << batching.level
        parts.append(
            f"halved {batching.level} times by the low-pass of the reversible 5/3 wavelet, which the dataset's streams"
            f" hold as level {batching.level}: its pixel (i, j) lies at ({step} i, {step} j) of the full image, not in"
            " the middle of what it stands for, as a resize would have it"
        )
    parts.append("padded with 0 at the bottom and right")
    return (
        "; ".join(parts)
        + f". trainer.commands.usage.image(pixels, bits, about{', member=NAME' if others else ''}) gives such an image"
        " of (rows, cols) uint16 pixels, about being a .safetensors file's metadata; and shardkit.Loader with these"
        " options does."
    )


def _grey(normalise: str) -> str:
    """Say what becomes of grey levels."""
    how = normalise_of(normalise, f"--loader.normalise {normalise}")
    return _GREY[how] if isinstance(how, str) else f"(x / (2**bits - 1) - {how[0]}) / {how[1]} of grey levels x"


def image(
    pixels: npt.NDArray[np.uint16], bits: int, about: Mapping[str, str], padded: bool = False, member: str = ""
) -> Tensor:
    """Prepare an image for the model of an exported file, as the run's loader did.

    Parameters
    ----------
    pixels, bits, padded
        As of `shardkit.prepare`.
    about
        The file's metadata, `safetensors.safe_open(file, "pt").metadata()`.
    member
        Which member of the run's mixture the image is of: its grey levels may have been normalised in a way of its own.

    Returns
    -------
    Tensor
        float32 (1, channels, rows, cols).

    Raises
    ------
    ArgumentError
        For an image that is larger than those that the file was exported for, or a member that the file does not name.
    """
    members = {name.removeprefix(OF_MEMBER): how for name, how in about.items() if name.startswith(OF_MEMBER)}
    if member and member not in members:
        raise ArgumentError(
            f"the file names no member {member} of a mixture: {', '.join(sorted(members)) or 'it names none'}"
        )
    how = members[member] if member else about["loader.normalise"]
    normalise = normalise_of(how, f"--loader.normalise {how}")
    ready = prepare(pixels, bits, batching=about["loader.batching"], normalise=normalise, padded=padded)
    height, width = int(about["height"]), int(about["width"])
    below, right = height - ready.shape[1], width - ready.shape[2]
    if below < 0 or right < 0:
        raise ArgumentError(
            f"the image has {ready.shape[1]} x {ready.shape[2]} pixels for the model, and the file is for {height} x"
            f" {width}: export with a larger --grid"
        )
    return functional.pad(ready, (0, right, 0, below)).expand(1, int(about["channels"]), height, width)

"""Files of weights through timm's own loading, which renames what other programs named and resamples positions."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from shardkit.errors import ArgumentError
from trainer.models.backbone_layout import arguments, create


def as_timm(
    state: dict[str, Tensor], name: str, side: int, changes: tuple[str, ...], first: str, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a file's weights by timm's names for a model.

    Which of them the file has, timm does not say. So the file is loaded once more with nothing but NaN in it.

    Parameters
    ----------
    state
        What the file holds.
    name, side, changes
        timm's name of the model, pixels of its images' side, and arguments of timm's, see `TimmConfig`.
    first
        Name of its first kernel.
    own
        Its weights.

    Raises
    ------
    ArgumentError
        For weights of another model.
    """
    model = name.partition(".")[0]
    kernel = next((value for key, value in state.items() if key.endswith(first)), None)
    given = {"in_chans": 3 if kernel is None or kernel.shape[1] % 3 == 0 else 1, "pretrained": True}
    nothing = {n: torch.full_like(v, torch.nan) if v.is_floating_point() else v for n, v in state.items()}
    try:
        with _quiet():
            loaded, marked = (
                create(
                    model, side, **{**arguments(changes), **given}, pretrained_cfg_overlay={"state_dict": dict(v)}
                ).state_dict()
                for v in (state, nothing)
            )
    except (ArgumentError, KeyError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise ArgumentError(f"these are no weights of {model} ({cause}): choose the model they are of") from error
    for key in own:
        if marked[key].is_floating_point() and not marked[key].isnan().any():
            raise ArgumentError(f"the checkpoint lacks {key} of {model}: choose the model it is of")
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep timm's warnings on names that it leaves out to itself."""
    log = logging.getLogger("timm.models._builder")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)

"""From a run and samples to maps: batch by batch, each image by itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardkit import Loader
from shardkit.errors import ArgumentError
from trainer.explain.anomaly import Anomaly, anomaly
from trainer.explain.gradcam import gradcam, see
from trainer.explain.maps import Frame, Map, Tokens, fine, frames
from trainer.explain.opened import Opened
from trainer.explain.rollout import By, rollout
from trainer.models.backbone import TimmEncoder
from trainer.models.base import Batch, Model
from trainer.models.classifier import Classifier
from trainer.models.decoder import MaskedAutoencoder
from trainer.models.encoder import Encoder

Method = Literal["anomaly", "rollout", "gradcam"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
ANY: Final = ""
"""In place of a class, for a map that is the same for all."""
Picture = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted of each image.

    Attributes
    ----------
    method : Method
        How maps are made.
    classes : Mapping of str to tuple of str
        Classes by sample key, for Grad-CAM; of others the one with the greatest score.
    layer : str
        Of Grad-CAM; empty for the usual one.
    masks : int
        Of anomaly maps, at least.
    """

    method: Method
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    layer: str = ""
    masks: int = 16


@dataclass(frozen=True, slots=True)
class Explained:
    """One image with its maps.

    Attributes
    ----------
    key : str
        The sample's.
    picture : ndarray
        float32 (rows, cols), grey levels as the model was given them.
    frame : Frame
        Where it lies in the image.
    stride : int
        Side of a token in its pixels.
    maps : dict of str to Map
        By class, or under an empty name for all.
    raw : dict of str to ndarray
        float32 (tokens' rows, cols), what the maps are made of, before they are scaled.
    probabilities : dict of str to float
        Of the classes of maps; scores of a regression.
    made, errors : ndarray or None
        Reconstruction and absolute error, as `picture`; of anomaly maps.
    """

    key: str
    picture: Picture
    frame: Frame
    stride: int
    maps: dict[str, Map]
    raw: dict[str, Picture]
    probabilities: dict[str, float] = field(default_factory=dict)
    made: Picture | None = None
    errors: Picture | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What a method made of a batch: values of tokens by image and class, and pixels of anomaly maps."""

    tokens: Tokens
    values: dict[int, dict[str, Tensor]]
    probabilities: dict[int, dict[str, float]] = field(default_factory=dict)
    of: Anomaly | None = None


def explain(opened: Opened, loader: Loader, asked: Asked) -> Iterator[Explained]:
    """Yield images with their maps, each once, in the loader's order.

    An image that cannot be read has none. In its place its batch shows another of its images a second time.

    Parameters
    ----------
    opened
        A run.
    loader
        Its loader on the samples that are wanted, from its first step.
    asked
        What is wanted.

    Raises
    ------
    ArgumentError
        For a method that the run's model has no maps by.
    """
    check(opened, asked.method)
    opened.model.check_batching(loader.batching)
    plan, resized = loader.plan, loader.batching.augmentation.side is not None
    for batch in loader:
        rows = batch.rows.tolist()
        keys = {slot: loader.key(row) for slot, row in enumerate(rows) if row >= 0 and row not in rows[:slot]}
        if not keys:
            continue
        found, where = _run(opened, batch, asked, keys), frames(batch, plan, resized)
        for slot, key in keys.items():
            yield _explained(batch, found, slot, key, where[slot])


def check(opened: Opened, method: Method) -> None:
    """Raise ArgumentError where the run has no maps by a method."""
    if method == "gradcam" and not isinstance(opened.model, Classifier):
        raise ArgumentError(
            f"Grad-CAM needs classes, and {opened.checkpoint} is a run without labels: name a run of finetune or probe,"
            " or, of a masked autoencoder, use --method anomaly or rollout"
        )
    if method == "rollout" and isinstance(opened.model, TimmEncoder):
        raise ArgumentError(
            f"roll-out is made of our own vision transformer only, and {opened.checkpoint} is a run of timm's"
            f" {opened.model.name}: name a run of finetune or probe that began with it, and use --method gradcam"
        )
    if method == "anomaly" and isinstance(opened.model, Classifier):
        raise ArgumentError(
            f"anomaly maps need a decoder, and {opened.checkpoint} is a run of a task, which has none: name the run of"
            " pretrain that it began with, or use --method gradcam"
        )
    if method == "anomaly" and isinstance(opened.model, Encoder) and not isinstance(opened.model, MaskedAutoencoder):
        raise ArgumentError(
            f"anomaly maps need a masked autoencoder, and {opened.checkpoint} is a run of another method: name a run of"
            " finetune or probe that began with it"
        )


def pooling(model: Model) -> By:
    """Return whose output roll-out follows: what the head is given, and the mean of patches where there is none."""
    return "mean" if not isinstance(model, Classifier) or model.head.config.pool == "mean" else "token"


def _run(opened: Opened, batch: Batch, asked: Asked, keys: dict[int, str]) -> _Found:
    model = opened.model
    if asked.method == "anomaly":
        of = anomaly(model, batch, asked.masks)
        return _Found(of.tokens, {slot: {ANY: of.patches} for slot in keys}, of=of)
    if asked.method == "rollout":
        share, tokens = rollout(model.encoder if isinstance(model, Classifier) else model, batch, pooling(model))
        return _Found(tokens, {slot: {ANY: share} for slot in keys})
    assert isinstance(model, Classifier)
    seen = see(model, batch, asked.layer)
    scores = seen.scores.detach()
    probabilities = {"multilabel": scores.sigmoid(), "multiclass": scores.softmax(1)}.get(opened.kind, scores)
    number = {name: at for at, name in enumerate(opened.classes)}
    wanted = {slot: [number[n] for n in asked.classes.get(key, ())] for slot, key in keys.items()}
    wanted = {slot: own or [int(scores[slot].argmax())] for slot, own in wanted.items()}
    values: dict[int, dict[str, Tensor]] = {slot: {} for slot in keys}
    for turn in range(max(map(len, wanted.values()))):  # a pass serves one class of every image
        chosen = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        for slot, own in wanted.items():
            chosen[slot] = own[min(turn, len(own) - 1)]
        cam = gradcam(seen, chosen)
        for slot, own in wanted.items():
            if turn < len(own):
                values[slot][opened.classes[own[turn]]] = cam
    said = {s: {opened.classes[k]: float(probabilities[s, k]) for k in own} for s, own in wanted.items()}
    return _Found(seen.tokens, values, said)


def _explained(batch: Batch, found: _Found, slot: int, key: str, frame: Frame) -> Explained:
    grids = {name: found.tokens.grid(values, slot) for name, values in found.values[slot].items()}
    made = errors = None
    if found.of is not None:
        made, errors = (_pixels(found.tokens, pixels, slot, frame) for pixels in (found.of.made, found.of.pixels))
    return Explained(
        key=key,
        picture=batch.pixels(slot).float().cpu().numpy().copy(),
        frame=frame,
        stride=found.tokens.stride,
        maps={name: fine(grid, found.tokens.stride, frame) for name, grid in grids.items()},
        raw={name: grid.numpy() for name, grid in grids.items()},
        probabilities=found.probabilities.get(slot, {}),
        made=made,
        errors=errors,
    )


def _pixels(tokens: Tokens, values: Tensor, slot: int, frame: Frame) -> Picture:
    """Lay out the pixels of an image's patches: (T, p * p) -> (rows, cols)."""
    own = tokens.of(slot)
    yx, p = tokens.yx[own].long().cpu(), tokens.stride
    rows, cols = (int(side) + 1 for side in yx.max(0).values)
    grid = torch.zeros(rows, cols, p, p)
    grid[yx[:, 0], yx[:, 1]] = values[own].float().cpu().view(-1, p, p)
    whole = grid.permute(0, 2, 1, 3).reshape(rows * p, cols * p)
    return whole[: frame.height, : frame.width].numpy().copy()

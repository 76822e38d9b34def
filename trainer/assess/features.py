"""One feature an image: of a frozen encoder, or of the image itself at 32 x 32 pixels; read once and kept in a file.

A file's name is the hash of all that its values depend on: the dataset, how its images come in, and the weights.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from shardkit import Loader, from_text
from shardkit.commands.normalising import normalise_text
from trainer.models.base import Batch
from trainer.models.classifier import pooled
from trainer.models.encoder import Encoder
from trainer.runs.files import atomic_write

Matrix = npt.NDArray[np.float32]
Pool = Literal["mean", "token"]

PIXELS = 32
"""Side of the images that stand for themselves."""
_FORMAT = 1
_PIXEL_BATCHING = f"resized:batch_size=64,level=auto,patch={PIXELS},per_step=1,remainder=fill,side={PIXELS}"


@dataclass(frozen=True, slots=True)
class Images:
    """All images of a dataset, as a run has them.

    Attributes
    ----------
    open
        Opens them by a batching's text.
    batching
        How they come in.
    folder
        Where features are kept.
    """

    open: Callable[[str], Loader]
    batching: str
    folder: Path


def plain(batching: str) -> str:
    """Return a batching that shows each image once, whole."""
    return str(from_text(batching).plain())


def of_encoder(encoder: Encoder, images: Images, pool: Pool) -> Matrix:
    """Return the features of all images of a dataset.

    Parameters
    ----------
    encoder
        Frozen from here on.
    images
        The dataset.
    pool
        What becomes of an image's tokens.

    Returns
    -------
    Matrix
        (rows, D), by row of the manifest; NaN for images that cannot be read.
    """
    loader = images.open(plain(images.batching))
    encoder.check_batching(loader.batching)
    encoder.to(loader.device).eval().requires_grad_(False)
    asked = {"weights": digest(encoder), "pool": pool}
    return _kept(images, loader, asked, lambda batch: pooled(encoder.features(batch), pool))


def of_pixels(images: Images) -> Matrix:
    """Return all images at 32 x 32 pixels, the central square of each: (rows, 1024)."""
    return _kept(images, images.open(_PIXEL_BATCHING), {"pixels": PIXELS}, lambda batch: batch.images.flatten(1))


def digest(model: nn.Module) -> str:
    """Return the SHA-256, in hex, of a model's weights."""
    sha = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


def _kept(images: Images, loader: Loader, asked: Mapping[str, str | int], run: Callable[[Any], torch.Tensor]) -> Matrix:
    """Return what the file holds, or read the images and write it: once all could be read, for they may be mended."""
    normalise = " ".join(map(normalise_text, loader.normalised.values()))  # no digest of a mixture knows its members'
    depends = {"format": _FORMAT, "plan": str(loader.plan_spec), "normalise": normalise, **asked}
    depends["data"] = loader.state_dict()["manifest_digest"]
    path = images.folder / f"{hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:32]}.npy"
    if path.exists() and np.isfinite(kept := np.asarray(np.load(path, allow_pickle=False), np.float32)).all():
        return kept
    found = _read(loader, run)
    if not np.isfinite(found).all():
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as fresh, fresh.open("wb") as file:
        np.save(file, found)
    return found


@torch.no_grad()
def _read(loader: Loader, run: Callable[[Batch], torch.Tensor]) -> Matrix:
    found: Matrix | None = None
    for batch in loader:
        values, there = run(batch).float().cpu().numpy(), batch.rows.cpu().numpy()
        if found is None:
            found = np.full((len(loader.bins()[1]), values.shape[1]), np.nan, np.float32)
        found[there[there >= 0]] = values[there >= 0]
    assert found is not None  # a loader without a step refuses to iterate
    return found

"""`shardkit replay`: the images of one global step as the model saw them, on one page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError, ShardkitError
from shardkit.loader.batch import Batch
from shardkit.loader.loader import Loader
from shardkit.plan.spec import PlanSpec
from shardkit.storage import translate_errors

_CELL, _GAP, _TEXT = 224, 8, 30  # pixels
_COLUMNS = 8
_MOST = 512  # images on a page

Grey = npt.NDArray[np.uint8]


def from_state(url: str, path: Path) -> Loader:
    """Open a loader of the epoch that a saved state stands in, for the whole world.

    Parameters
    ----------
    url : str
        Folder or bucket of the dataset.
    path : Path
        JSON file with the state.

    Raises
    ------
    ArgumentError
        For a file that holds none.
    StateError
        For a state of another dataset.
    """
    state, plan_spec, seed, epoch = _read(path)
    loader = open_loader(url, plan_spec, seed, epoch)
    loader.load_state_dict(state)
    return loader


def _read(path: Path) -> tuple[dict[str, Any], PlanSpec, int, int]:
    """Read the state; returns it, what decides the plan, seed and epoch."""
    try:
        state = json.loads(path.read_text())
        return state, PlanSpec.read(str(state["format"])), int(state["seed"]), int(state["epoch"])
    except OSError as error:
        raise ArgumentError(f"--state {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ShardkitError):
            raise
        raise ArgumentError(f"--state {path} holds no loader's state: write json.dumps(loader.state_dict())") from None


def open_loader(url: str, plan_spec: PlanSpec, seed: int, epoch: int) -> Loader:
    """Open a loader that stands for the whole world at the start of an epoch."""
    if plan_spec.rows:
        raise ArgumentError(
            "the state is of a run that filtered its samples: replay it in Python, with the same filter"
        )
    return Loader(
        url,
        batching=plan_spec.batching,
        seed=seed,
        epoch=epoch,
        split=plan_spec.split or "all",
        window=plan_spec.window,
        rank=0,
        world_size=1,
        device="cpu",
        read_ahead=1,
        max_bad=1.0,
    )


def replay(loader: Loader, step: int, out: Path) -> str:
    """Write a step's images as a PNG.

    Augmentations come from the plan, so these are the very crops of the run, each stretched to its own grey levels;
    what could not be read then and can now is shown.

    Parameters
    ----------
    loader : Loader
        One that stands for the whole world: rank 0 of 1.
    step : int
        Step of its epoch, from 0.
    out : Path
        File to write.

    Returns
    -------
    str
        A line about it.

    Raises
    ------
    ArgumentError
        Where there is no such step.
    """
    plan, epoch = loader.plan, loader.epoch
    if step < 0 or not plan.has(step):
        raise ArgumentError(f"epoch {epoch} has {len(plan):,} steps, and no step {step}")
    loader.load_state_dict({**loader.state_dict(), "step": step})
    cells: list[tuple[Grey, str]] = []
    count = 0
    for batch in loader:
        for pixels, row in _images(batch):
            count += 1
            if len(cells) < _MOST:
                label = f"micro-batch {batch.position.micro}, {pixels.shape[0]} x {pixels.shape[1]}"
                cells.append((_grey(pixels), f"{loader.key(row)[:20]}\n{label}"))
        if batch.position.last:
            break
    page = _page(cells)
    with translate_errors(str(out)):
        page.save(out, "PNG")
    left = f", the first {_MOST} of them shown" if count > _MOST else ""
    return f"{out}: {count:,} images of step {step:,} of epoch {epoch}{left}"


def _images(batch: Batch) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Go through a batch's images: pixels, and manifest row."""
    for at, row in enumerate(batch.rows.tolist()):
        if row >= 0:
            yield batch.pixels(at).float().numpy(), row


def _grey(pixels: npt.NDArray[np.float32]) -> Grey:
    """Stretch to 0..255 and shrink into a cell."""
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels - low) * (255.0 / max(high - low, 1e-6))
    image = Image.fromarray(np.rint(scaled).astype(np.uint8))
    image.thumbnail((_CELL, _CELL), Image.Resampling.BOX)
    return np.asarray(image)


def _page(cells: list[tuple[Grey, str]]) -> Image.Image:
    columns = min(_COLUMNS, max(len(cells), 1))
    rows = ceil_div(max(len(cells), 1), columns)
    height = _CELL + _TEXT + _GAP
    page = Image.new("L", (columns * (_CELL + _GAP) + _GAP, rows * height + _GAP), 24)
    pen = ImageDraw.Draw(page)
    for number, (pixels, label) in enumerate(cells):
        left, top = _GAP + number % columns * (_CELL + _GAP), _GAP + number // columns * height
        page.paste(Image.fromarray(pixels), (left + (_CELL - pixels.shape[1]) // 2, top))
        pen.text((left, top + _CELL + 2), label, fill=230)
    return page

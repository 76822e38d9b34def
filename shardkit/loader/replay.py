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
_VIEWS = 12  # views of a sample on a line
_MOST = 512  # images on a page, views counted one by one

Pixels = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]
Cell = tuple[Grey, str]


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

    Augmentations come from the plan, so these are the very crops of the run, each stretched to its own grey levels,
    or to those of all views of its sample; what could not be read then and can now is shown.

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
    samples: list[list[Cell]] = []
    count = most = 0
    for batch in loader:
        for views, row in _images(batch):
            count, most = count + 1, max(most, len(views))
            if len(samples) * most < _MOST:
                samples.append(_cells(views, f"{loader.key(row)[:20]}\nmicro-batch {batch.position.micro}"))
        if batch.position.last:
            break
    page = _page(samples)
    with translate_errors(str(out)):
        page.save(out, "PNG")
    each = f", {most} views of each" if most > 1 else ""
    left = f", the first {len(samples)} of them shown" if count > len(samples) else ""
    return f"{out}: {count:,} images of step {step:,} of epoch {epoch}{each}{left}"


def _images(batch: Batch) -> Iterator[tuple[list[Pixels], int]]:
    """Go through a batch's images: pixels of each view, and manifest row."""
    for at, row in enumerate(batch.rows.tolist()):
        if row >= 0:
            yield [view.float().numpy() for view in batch.every_view(at)], row


def _cells(views: list[Pixels], label: str) -> list[Cell]:
    """Stretch the grey levels of a sample to 0..255, those of its views alike, so that changes of them are seen."""
    low, high = min(float(view.min()) for view in views), max(float(view.max()) for view in views)
    cells = []
    for number, view in enumerate(views, 1):
        name = f" view {number}" if len(views) > 1 else ""
        cells.append((_grey(view, low, high), f"{label},{name} {view.shape[0]} x {view.shape[1]}"))
    return cells


def _grey(pixels: Pixels, low: float, high: float) -> Grey:
    """Stretch to 0..255 and shrink into a cell."""
    scaled = (pixels - low) * (255.0 / max(high - low, 1e-6))
    image = Image.fromarray(np.rint(scaled).astype(np.uint8))
    image.thumbnail((_CELL, _CELL), Image.Resampling.BOX)
    return np.asarray(image)


def _page(samples: list[list[Cell]]) -> Image.Image:
    """Lay out the views of a sample side by side, each sample on lines of its own; single views one after another."""
    views = max(map(len, samples), default=1)
    lines = ceil_div(views, _VIEWS) if views > 1 else 1
    columns = ceil_div(views, lines) if views > 1 else min(_COLUMNS, max(len(samples), 1))
    rows = lines * len(samples) if views > 1 else ceil_div(max(len(samples), 1), columns)
    tall = max((len(pixels) for cells in samples for pixels, _ in cells), default=_CELL)
    height = tall + _TEXT + _GAP
    page = Image.new("L", (columns * (_CELL + _GAP) + _GAP, rows * height + _GAP), 24)
    pen = ImageDraw.Draw(page)
    for sample, cells in enumerate(samples):
        for view, (pixels, label) in enumerate(cells):
            number = sample * lines * columns + view if views > 1 else sample
            left, top = _GAP + number % columns * (_CELL + _GAP), _GAP + number // columns * height
            page.paste(Image.fromarray(pixels), (left + (_CELL - pixels.shape[1]) // 2, top))
            pen.text((left, top + _CELL + 2), label, fill=230)
    return page

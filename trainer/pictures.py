"""What a masked autoencoder sees and makes of it, side by side: input, masked, reconstruction, difference."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainer.output import Output
from trainer.sequences import Sequences

Grey = npt.NDArray[np.uint8]

HIDDEN = 110  # grey level of hidden patches: neither background nor bone
_MARGIN, _HEADING = 6, 22
_WIDEST = 1.5  # of a cell's width by its height


@torch.no_grad()
def triptychs(of: Sequences, output: Output, patch: int, norm_pix: bool, images: int = 6, height: int = 240) -> Grey:
    """A grid as uint8 (rows, cols): a line for each of the first `images` images, `height` pixels high.

    Reconstruction: hidden patches as predicted (with norm_pix brought back to the patch's own mean and deviation),
    visible ones as they were. Grey levels: the image's own range; difference: absolute, on that range.
    """
    shown = torch.nonzero(of.weight > 0).flatten()[:images].tolist()
    cells = [[_scaled(view, height) for view in _views(of, output, patch, norm_pix, at)] for at in shown]
    width = max((cell.shape[1] for line in cells for cell in line), default=height)
    return _framed(
        cells,
        ("input", f"masked {100 * _hidden_share(of, output, shown):.0f} %", "reconstruction", "difference"),
        height,
        width,
    )


def save(picture: Grey, path: Path) -> None:
    """As a PNG that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    Image.fromarray(picture).save(fresh, "PNG")
    fresh.replace(path)


def _hidden_share(of: Sequences, output: Output, shown: list[int]) -> float:
    chosen = torch.isin(of.image.cpu(), torch.tensor(shown, dtype=of.image.dtype))
    return float(output.masked.cpu()[chosen].float().mean()) if shown else 0.0


def _views(of: Sequences, output: Output, patch: int, norm_pix: bool, at: int) -> list[Grey]:
    """The four pictures of one image."""
    own = slice(*of.cu_seqlens[at : at + 2].tolist())
    target, masked = of.patches[own].float().cpu(), output.masked[own].cpu()[:, None]
    predicted = output.prediction[own].float().cpu()
    if norm_pix:
        predicted = predicted * (target.var(-1, keepdim=True) + 1e-6).sqrt() + target.mean(-1, keepdim=True)
    made = torch.where(masked, predicted, target)
    yx, (rows, cols) = of.yx[own].cpu().long(), of.hw[at].tolist()
    image = _laid_out(target, yx, patch)[:rows, :cols]
    low, high = float(image.min()), float(image.max())

    def grey(values: Tensor) -> Tensor:
        return ((values - low) / max(high - low, 1e-12)).clamp(0, 1) * 255

    views = (
        grey(target),
        torch.where(masked, torch.tensor(float(HIDDEN)), grey(target)),
        grey(made),
        (grey(made) - grey(target)).abs(),
    )
    return [_laid_out(view, yx, patch)[:rows, :cols].round().to(torch.uint8).numpy() for view in views]


def _laid_out(patches: Tensor, yx: Tensor, patch: int) -> Tensor:
    """Patches (n, p * p) at rows and columns (n, 2) -> an image of whole patches."""
    high, wide = (int(side) + 1 for side in yx.max(0).values)
    grid = torch.zeros(high, wide, patch, patch)
    grid[yx[:, 0], yx[:, 1]] = patches.view(-1, patch, patch)
    return grid.permute(0, 2, 1, 3).reshape(high * patch, wide * patch)


def _scaled(view: Grey, height: int) -> Grey:
    rows, cols = view.shape
    scale = min(height / rows, _WIDEST * height / cols)
    size = max(1, round(cols * scale)), max(1, round(rows * scale))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST  # pixels stay pixels
    return np.asarray(Image.fromarray(view).resize(size, how))


def _framed(cells: list[list[Grey]], headings: tuple[str, ...], height: int, width: int) -> Grey:
    page = Image.new(
        "L",
        (len(headings) * (width + _MARGIN) + _MARGIN, _HEADING + len(cells) * (height + _MARGIN) + _MARGIN),
        255,
    )
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for column, heading in enumerate(headings):
        pen.text((_MARGIN + column * (width + _MARGIN), 3), heading, fill=40, font=font)
    for line, views in enumerate(cells):
        for column, view in enumerate(views):
            left = _MARGIN + column * (width + _MARGIN) + (width - view.shape[1]) // 2
            top = _HEADING + line * (height + _MARGIN) + (height - view.shape[0]) // 2
            page.paste(Image.fromarray(view), (left, top))
    return np.asarray(page)

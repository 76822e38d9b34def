"""What a masked autoencoder sees and makes of it, side by side: input, masked, reconstruction, difference."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainer.models.output import MaskedOutput
from trainer.models.sequences import Sequences, valid_pixels
from trainer.objectives.losses import moments
from trainer.runs.files import atomic_write

Grey = npt.NDArray[np.uint8]

HIDDEN = 110  # grey level of hidden patches: neither background nor bone
_CONTRAST = 3  # white is an error of a third of the image's range, or more
_CELL = 238  # around an image, so that its end shows, whatever it is filled with
_MARGIN, _HEADING = 6, 24
_WIDEST = 1.5  # of a cell's width by its height


@torch.no_grad()
def triptychs(
    of: Sequences, output: MaskedOutput, patch: int, norm_pix: bool, images: int = 6, height: int = 240
) -> Grey:
    """Draw a grid with a line for each of the first images.

    Grey levels span the image's own range. The reconstruction shows hidden patches as predicted (with norm_pix brought
    back to the patch's own mean and deviation), and visible ones as they were. The difference is absolute, and white
    from a third of the range on. What is predicted but not finite is black, and its difference white. Padding and
    filler are not shown.

    Parameters
    ----------
    of, output
        Patches and predictions, of any float dtype on any device; one image at a time is brought to the CPU.
    patch
        Side of a patch in pixels.
    norm_pix
        Whether patches normalised by themselves were predicted.
    images
        Number of images to show.
    height
        Height of a line in pixels.

    Returns
    -------
    ndarray of uint8
        (rows, cols).
    """
    shown = torch.nonzero(of.weight > 0).flatten()[:images].tolist()
    lines = [_panels(of, output, patch, norm_pix, at) for at in shown]
    return _page(lines, f"masked {100 * _hidden_share(of, output, shown):.0f} %", height)


@torch.no_grad()
def dense_panels(
    images: Tensor,
    corrupted: Tensor,
    reconstruction: Tensor,
    sizes: Tensor,
    heading: str = "corrupted",
    count: int = 6,
    height: int = 240,
) -> Grey:
    """Draw a grid as `triptychs` does, of images of one size.

    Parameters
    ----------
    images
        float (B, 1, H, W), as they were.
    corrupted
        (B, C, H, W), as the model saw them: the mean over channels is drawn; what is not finite was hidden, and is
        grey.
    reconstruction
        (B, C, H, W), as the model made them; likewise, but what is not finite is black.
    sizes
        int (B, 2), rows and columns of each image in pixels; 0 where there is none, which is left out.
    heading
        Of the second column.
    count
        Number of images to show.
    height
        Height of a line in pixels.

    Returns
    -------
    ndarray of uint8
        (rows, cols).
    """
    lines = []
    for at in torch.nonzero(sizes.prod(1) > 0).flatten()[:count].tolist():
        rows, cols = sizes[at].tolist()
        image, seen, made = (x[at, :, :rows, :cols].float().mean(0).cpu() for x in (images, corrupted, reconstruction))
        drawn = _drawn(image, image, seen, made)
        lines.append([panel.numpy() for panel in drawn])
    return _page(lines, heading, height)


def _page(lines: list[list[Grey]], second: str, height: int) -> Grey:
    cells = [[_scaled(panel, height) for panel in line] for line in lines]
    width = max((cell.shape[1] for line in cells for cell in line), default=height)
    return _framed(cells, ("input", second, "reconstruction", f"difference x {_CONTRAST}"), height, width)


def _drawn(image: Tensor, whole: Tensor, corrupted: Tensor, made: Tensor) -> list[Tensor]:
    """Return the four pictures of an image as bytes; its own range is that of grey levels.

    Parameters
    ----------
    image
        Its own pixels.
    whole, corrupted, made
        Of any one shape: all pixels, those that the model saw (not finite where hidden), and what it made of them.
    """
    low, high = float(image.min()), float(image.max())

    def grey(values: Tensor) -> Tensor:
        return (values - low).mul_(255 / max(high - low, 1e-12)).clamp_(0, 255)

    seen, shown, guessed, there = grey(whole), grey(corrupted), grey(made), made.isfinite()
    panels = (
        seen,
        torch.where(corrupted.isfinite(), shown, float(HIDDEN)),
        torch.where(there, guessed, 0.0),
        torch.where(there, (_CONTRAST * (guessed - seen).abs()).clamp(max=255), 255.0),
    )
    return [panel.round_().to(torch.uint8) for panel in panels]


def save(picture: Grey, path: Path) -> None:
    """Write uint8 (rows, cols) as a PNG that appears whole; makes the folder.

    Raises
    ------
    OSError
        Where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as fresh:
        Image.fromarray(picture).save(fresh, "PNG")


def _hidden_share(of: Sequences, output: MaskedOutput, shown: list[int]) -> float:
    chosen = torch.isin(of.image.cpu(), torch.tensor(shown, dtype=of.image.dtype))
    return float(output.masked.cpu()[chosen].float().mean()) if shown else 0.0


def _panels(of: Sequences, output: MaskedOutput, patch: int, norm_pix: bool, at: int) -> list[Grey]:
    """Draw the four pictures of one image."""
    own = slice(*of.cu_seqlens[at : at + 2].tolist())
    target, masked = of.patches[own].float().cpu(), output.masked[own].cpu()[:, None]
    predicted = output.prediction[own].float().cpu()
    if norm_pix:
        mean, deviation = moments(target, valid_pixels(of, patch)[own].cpu())
        predicted = predicted * deviation + mean
    made = torch.where(masked, predicted, target)
    yx, (rows, cols) = of.yx[own].cpu().long(), of.hw[at].tolist()
    image = _laid_out(target, yx, patch)[:rows, :cols]
    # As bytes before they are laid out: a radiograph may have ten million pixels.
    drawn = _drawn(image, target, target.masked_fill(masked, torch.nan), made)
    return [_laid_out(panel, yx, patch)[:rows, :cols].numpy() for panel in drawn]


def _laid_out(patches: Tensor, yx: Tensor, patch: int) -> Tensor:
    """Lay patches (n, p * p) out at their rows and columns (n, 2): an image of whole patches."""
    rows, cols = (int(side) + 1 for side in yx.max(0).values)
    grid = torch.zeros(rows, cols, patch, patch, dtype=patches.dtype)
    grid[yx[:, 0], yx[:, 1]] = patches.view(-1, patch, patch)
    return grid.permute(0, 2, 1, 3).reshape(rows * patch, cols * patch)


def _scaled(panel: Grey, height: int) -> Grey:
    rows, cols = panel.shape
    scale = min(height / rows, _WIDEST * height / cols)
    size = max(1, round(cols * scale)), max(1, round(rows * scale))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST  # pixels stay pixels
    return np.asarray(Image.fromarray(panel).resize(size, how))


def _framed(cells: list[list[Grey]], headings: tuple[str, ...], height: int, width: int) -> Grey:
    page = Image.new(
        "L",
        (len(headings) * (width + _MARGIN) + _MARGIN, _HEADING + len(cells) * (height + _MARGIN) + _MARGIN),
        255,
    )
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for column, heading in enumerate(headings):
        pen.text((_MARGIN + column * (width + _MARGIN), 3), heading, fill=40, font=font)
    for line, panels in enumerate(cells):
        for column, panel in enumerate(panels):
            corner = _MARGIN + column * (width + _MARGIN), _HEADING + line * (height + _MARGIN)
            page.paste(_CELL, (*corner, corner[0] + width, corner[1] + height))
            left, top = corner[0] + (width - panel.shape[1]) // 2, corner[1] + (height - panel.shape[0]) // 2
            page.paste(Image.fromarray(panel), (left, top))
    return np.array(page)  # a copy, to be written to


def grey_of(image: Tensor) -> Grey:
    """Return an image as grey levels, black where it is least and white where it is greatest.

    Parameters
    ----------
    image
        Float (rows, cols), on the CPU.
    """
    least, most = float(image.min()), float(image.max())
    return ((image - least) * (255 / max(most - least, 1e-12))).clamp(0, 255).round().to(torch.uint8).numpy()


def table(lines: Sequence[Sequence[Grey]], headings: Sequence[str], height: int = 160) -> Grey:
    """Draw lines of pictures below headings.

    Parameters
    ----------
    lines
        uint8 (rows, cols) each, as many a line as there are headings; fewer leave the rest empty.
    headings
        One a column.
    height
        Height of a line in pixels.
    """
    cells = [[_scaled(panel, height) for panel in line] for line in lines]
    width = max((cell.shape[1] for line in cells for cell in line), default=height)
    return _framed(cells, tuple(headings), height, width)

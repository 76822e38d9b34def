"""Grids of pictures, pixel by pixel: at the image's own height nothing is scaled, and every column is exact."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from shardkit.dataset.rounding import ceil_div
from trainer.models.output import MaskedOutput
from trainer.models.sequences import Sequences, sequences, valid_pixels
from trainer.objectives import losses, pictures
from trainer.objectives.pictures import HIDDEN, dense_panels, save, triptychs

PATCH = 8
INPUT, MASKED, MADE, ERROR = range(4)
TAIL = 28  # patches that belong to no image, at most


@pytest.fixture
def make(make_packed: Any) -> Any:
    """(sizes, seed) -> (sequences, images without padding), the last sequence filler."""

    def of(sizes: list[tuple[int, int]], seed: int = 0) -> tuple[Sequences, list[Tensor]]:
        tokens = sum(ceil_div(h, PATCH) * ceil_div(w, PATCH) for h, w in sizes) + TAIL
        batch, images = make_packed(sizes, PATCH, tokens, len(sizes) + 2, seed)
        cut = [image[:h, :w] for image, (h, w) in zip(images, sizes, strict=True)]
        return sequences(batch, PATCH), cut

    return of


def _output(of: Sequences, prediction: Tensor, hidden: float = 0.75) -> MaskedOutput:
    masked = torch.rand(len(of.image), generator=torch.Generator().manual_seed(1)) < hidden
    return MaskedOutput(torch.zeros_like(of.weight), of.weight, prediction, masked)


def _cells(picture: Any, height: int, width: int) -> Any:
    """uint8 (lines, 4, height, width) of a grid whose images all have this size."""
    margin, heading = pictures._MARGIN, pictures._HEADING
    lines = (picture.shape[0] - heading) // (height + margin)
    return np.stack([
        [
            picture[y : y + height, x : x + width]
            for x in (margin + column * (width + margin) for column in range(4))
        ]
        for y in (heading + line * (height + margin) for line in range(lines))
    ])  # fmt: skip


def _hidden(of: Sequences, output: MaskedOutput, at: int, height: int, width: int) -> Any:
    """bool (height, width): pixels of hidden patches."""
    found = np.zeros((int(of.grid[at, 0]) * PATCH, int(of.grid[at, 1]) * PATCH), bool)
    for place in range(int(of.cu_seqlens[at]), int(of.cu_seqlens[at + 1])):
        y, x = (of.yx[place] * PATCH).tolist()
        found[y : y + PATCH, x : x + PATCH] = bool(output.masked[place])
    return found[:height, :width]


def _levels(image: Tensor) -> Any:
    """uint8: the image on its own range."""
    return ((image - image.min()) / (image.max() - image.min()) * 255).round().to(torch.uint8).numpy()


def test_the_first_column_is_the_image_on_its_own_range(make: Any) -> None:
    of, images = make([(40, 28), (40, 28)])
    cells = _cells(triptychs(of, _output(of, torch.zeros_like(of.patches)), PATCH, False, height=40), 40, 28)
    assert len(cells) == 2
    for line, image in zip(cells, images, strict=True):
        assert np.abs(line[INPUT].astype(int) - _levels(image)).max() <= 1
        assert line[INPUT].min() == 0
        assert line[INPUT].max() == 255


def test_hidden_patches_are_mid_grey_and_visible_ones_as_they_were(make: Any) -> None:
    of, _ = make([(40, 28)])
    output = _output(of, torch.zeros_like(of.patches))
    (line,) = _cells(triptychs(of, output, PATCH, False, height=40), 40, 28)
    hidden = _hidden(of, output, 0, 40, 28)
    assert hidden.any()
    assert not hidden.all()
    assert (line[MASKED][hidden] == HIDDEN).all()
    assert np.array_equal(line[MASKED][~hidden], line[INPUT][~hidden])
    assert 64 <= HIDDEN <= 192, "neither black nor white"


def test_only_hidden_patches_are_predicted(make: Any) -> None:
    of, _ = make([(40, 28)])
    output = _output(of, torch.full_like(of.patches, 7.0))
    (line,) = _cells(triptychs(of, output, PATCH, False, height=40), 40, 28)
    hidden = _hidden(of, output, 0, 40, 28)
    assert (line[MADE][hidden] == 255).all(), "beyond the image's range is its brightest"
    assert np.array_equal(line[MADE][~hidden], line[INPUT][~hidden])
    assert (line[ERROR][~hidden] == 0).all()
    assert line[ERROR][hidden].max() == 255


def test_a_perfect_prediction_has_a_black_difference(make: Any) -> None:
    of, _ = make([(40, 28), (40, 28)])
    for line in _cells(triptychs(of, _output(of, of.patches.clone()), PATCH, False, height=40), 40, 28):
        assert np.array_equal(line[MADE], line[INPUT])
        assert not line[ERROR].any()


def test_a_perfect_normalised_prediction_gives_the_image_back(make: Any) -> None:
    of, _ = make([(40, 28)])
    targets = losses.targets(of, norm_pix=True)
    output = _output(of, targets)
    (line,) = _cells(triptychs(of, output, PATCH, True, height=40), 40, 28)
    assert np.abs(line[MADE].astype(int) - line[INPUT]).max() <= 1
    (raw,) = _cells(triptychs(of, output, PATCH, False, height=40), 40, 28)
    assert np.abs(raw[MADE].astype(int) - raw[INPUT]).max() > 50, "taken for pixels they are something else"


def test_the_difference_grows_with_the_error(make: Any) -> None:
    of, _ = make([(40, 28)])
    means = []
    for error in (0.0, 0.02, 0.05, 0.1):
        output = _output(of, of.patches + error * (1 - 2 * (of.patches > 0.5).float()))  # towards the middle
        (line,) = _cells(triptychs(of, output, PATCH, False, height=40), 40, 28)
        means.append(line[ERROR].mean())
    assert means[0] == 0
    assert all(one + 1 < two for one, two in pairwise(means))


def test_a_change_of_brightness_and_contrast_changes_nothing(make: Any) -> None:
    of, _ = make([(40, 28)])
    prediction = torch.rand(of.patches.shape, generator=torch.Generator().manual_seed(2))
    one = triptychs(of, _output(of, prediction), PATCH, False, height=40)
    other = replace(of, patches=of.patches * 30 - 4)
    two = triptychs(other, _output(other, prediction * 30 - 4), PATCH, False, height=40)
    assert np.abs(one.astype(int) - two).max() <= 3


def test_filler_is_not_shown_wherever_it_lies(make: Any) -> None:
    of, _ = make([(40, 28)] * 3)
    output = _output(of, torch.zeros_like(of.patches))
    cells = _cells(triptychs(of, output, PATCH, False, height=40), 40, 28)
    without = replace(of, weight=of.weight * torch.tensor([1.0, 0, 1, 1, 1]))
    fewer = _cells(triptychs(without, output, PATCH, False, height=40), 40, 28)
    assert len(cells) == 3
    assert np.array_equal(fewer, cells[[0, 2]])


def test_no_more_images_than_asked_for(make: Any) -> None:
    of, _ = make([(40, 28)] * 3)
    output = _output(of, torch.zeros_like(of.patches))
    cells = _cells(triptychs(of, output, PATCH, False, height=40), 40, 28)
    assert np.array_equal(_cells(triptychs(of, output, PATCH, False, 2, 40), 40, 28), cells[:2])


def test_padding_is_not_shown_and_does_not_set_the_range(make: Any) -> None:
    of, _ = make([(37, 21)])
    output = _output(of, torch.zeros_like(of.patches))
    odd = replace(of, patches=torch.where(valid_pixels(of, PATCH), of.patches, 50.0))
    one, two = (triptychs(each, output, PATCH, False, height=37) for each in (of, odd))
    assert one.shape[1] == 4 * (21 + pictures._MARGIN) + pictures._MARGIN
    assert np.array_equal(one, two)


def test_a_binned_batch_looks_as_a_packed_one(make: Any, make_binned: Any) -> None:
    of, images = make([(40, 28), (37, 21)])
    padded = make_binned(images, [(40, 28), (37, 21)], 48, 40, 3)
    binned = sequences(padded, PATCH)
    one, two = (
        triptychs(each, _output(each, each.patches.square(), hidden=2.0), PATCH, False, height=40)
        for each in (of, binned)
    )
    assert np.array_equal(one, two)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_will_do(make: Any, kind: torch.dtype) -> None:
    of, _ = make([(40, 28)])
    prediction = torch.rand(of.patches.shape, generator=torch.Generator().manual_seed(2))
    wanted = triptychs(of, _output(of, prediction), PATCH, True, height=40)
    other = replace(of, patches=of.patches.to(kind))
    found = triptychs(other, _output(other, prediction.to(kind).requires_grad_()), PATCH, True, height=40)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).max() <= 10


def test_images_are_brought_to_one_height_unless_too_wide(make: Any) -> None:
    of, _ = make([(80, 40), (32, 160)])
    picture = triptychs(of, _output(of, of.patches.clone()), PATCH, False, height=60)
    margin, heading = pictures._MARGIN, pictures._HEADING
    assert picture.shape == (heading + 2 * (60 + margin) + margin, 4 * (90 + margin) + margin)
    tall, wide = (picture[heading + at * (60 + margin) :][:60, margin : margin + 90] for at in (0, 1))
    around = tall[0, 0]
    assert (tall[:, :30] == around).all()
    assert (tall[:, -30:] == around).all()
    assert (tall[:, 30:60] != around).mean() > 0.9, "30 x 60 pixels in the middle"
    assert (wide[:20] == around).mean() > 0.99
    assert (wide[22:38] != around).mean() > 0.9, "90 x 18 pixels in the middle"


def test_the_heading_tells_the_share_that_is_hidden(make: Any) -> None:
    of, _ = make([(160, 160)])
    half, most = (
        triptychs(of, _output(of, of.patches, hidden), PATCH, False, height=160)[: pictures._HEADING]
        for hidden in (0.5, 0.9)
    )
    second = np.arange(160 + 2 * pictures._MARGIN, 2 * 160 + 2 * pictures._MARGIN)
    assert not np.array_equal(half[:, second], most[:, second])
    assert np.array_equal(np.delete(half, second, 1), np.delete(most, second, 1))


def test_a_batch_of_filler_gives_headings_alone(make: Any) -> None:
    of, _ = make([])
    picture = triptychs(of, _output(of, torch.zeros_like(of.patches)), PATCH, False)
    assert picture.shape[0] < 40
    assert picture.min() < 128


def test_a_large_radiograph_becomes_a_small_picture(make_packed: Any) -> None:
    batch, _ = make_packed([(2000, 3072)], 48, 42 * 64, 1)
    of = sequences(batch, 48)
    picture = triptychs(of, _output(of, of.patches), 48, False)
    assert picture.shape[0] < 300
    assert picture.shape[1] < 4 * 375


def test_a_picture_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pictures" / "step_00000100.png"
    before = np.arange(200, dtype=np.uint8).reshape(10, 20)
    save(before, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]

    def full(self: Any, target: Any, *_: Any, **__: Any) -> None:
        Path(target).write_bytes(b"\x89PNG")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space"):
        save(before + 1, path)
    assert np.array_equal(np.asarray(Image.open(path)), before)


def test_what_is_not_finite_is_an_error_and_not_a_crash(make: Any) -> None:
    of, _ = make([(40, 28)])
    for value in (float("nan"), float("inf"), float("-inf")):
        output = _output(of, torch.full_like(of.patches, value))
        (line,) = _cells(triptychs(of, output, PATCH, False, height=40), 40, 28)
        hidden = _hidden(of, output, 0, 40, 28)
        assert not line[MADE][hidden].any()
        assert (line[ERROR][hidden] == 255).all()
        assert not line[ERROR][~hidden].any()


def test_an_error_of_a_sixth_of_the_range_is_half_as_bright_as_white(make: Any) -> None:
    of, _ = make([(40, 28)])
    of.patches[0, :2] = torch.tensor([0.0, 1.0])
    output = _output(of, of.patches + (1 - 2 * (of.patches > 0.5).float()) / 6)
    (line,) = _cells(triptychs(of, output, PATCH, False, height=40), 40, 28)
    assert set(line[ERROR][_hidden(of, output, 0, 40, 28)].tolist()) <= {127, 128}


def test_dense_images_are_drawn_as_patches_are(make: Any, make_binned: Any) -> None:
    _, images = make([(40, 28), (37, 21)])
    batch = make_binned(images, [(40, 28), (37, 21)], 40, 32, 3)
    of = sequences(batch, PATCH)
    output = _output(of, of.patches.square())
    wanted = triptychs(of, output, PATCH, False, height=40)
    hidden, made = torch.zeros(3, 1, 40, 32, dtype=torch.bool), batch.images.clone()
    for at in range(2):
        own = _hidden(of, output, at, *batch.sizes[at].tolist())
        hidden[at, 0, : own.shape[0], : own.shape[1]] = torch.from_numpy(own)
    made = torch.where(hidden, batch.images.square(), batch.images)
    seen = batch.images.masked_fill(hidden, torch.nan)
    share = float(output.masked[of.image < 2].float().mean())
    found = dense_panels(batch.images, seen, made, batch.sizes, f"masked {100 * share:.0f} %", height=40)
    assert np.array_equal(found, wanted)
    colours = (made + torch.tensor([-0.1, 0.0, 0.1])[:, None, None]).double()
    third = dense_panels(batch.images, seen.expand(-1, 3, -1, -1), colours, batch.sizes, height=40)
    head = pictures._HEADING
    assert np.abs(third[head:].astype(int) - wanted[head:]).max() <= 2, "the mean over channels"
    assert len(_cells(dense_panels(batch.images, seen, made, batch.sizes, count=1, height=40), 40, 28)) == 1


def test_what_replaced_pixels_is_shown_in_the_image_s_range_and_errors_of_what_is_not_finite_are_white() -> None:
    image = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    noise, made = image.clone(), image.clone()
    noise[..., :2] = torch.tensor([-5.0, 5.0])
    made[..., 0] = torch.inf
    (line,) = _cells(dense_panels(image, noise, made, torch.tensor([[8, 8]]), height=8), 8, 8)
    assert (line[MASKED][:, 0] == 0).all()
    assert (line[MASKED][:, 1] == 255).all()
    assert np.array_equal(line[MASKED][:, 2:], line[INPUT][:, 2:])
    assert (line[MADE][:, 0] == 0).all()
    assert (line[ERROR][:, 0] == 255).all()
    assert not line[ERROR][:, 1:].any()

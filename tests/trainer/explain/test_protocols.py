"""AP25 and AP50 by both protocols, against loops on invented maps; searched thresholds; intervals; baselines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from trainer.explain import baselines
from trainer.explain.boxes import Box, by_mask, largest
from trainer.explain.maps import Frame, Map
from trainer.explain.protocols import THRESHOLDS, Fit, Fits, intervals

SIDE = 48


def blobs(seed: int) -> Map:
    """Return a map of pixels with some smooth blobs."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.random((SIDE, SIDE)), 4)
    values = (values - values.min()) / (values.max() - values.min())
    lines = np.arange(SIDE + 1.0)
    return Map(values, lines, lines)


def invented(count: int = 30) -> tuple[list[Map], list[Box]]:
    """Return maps, and boxes of whole pixels, some of which lie on a map's greatest blob."""
    maps, boxes = [blobs(seed) for seed in range(count)], []
    rng = np.random.default_rng(7)
    for number, of in enumerate(maps):
        at = largest(of, 0.6)
        assert at is not None
        if number % 3 == 2:
            top, left = rng.integers(0, SIDE - 20, 2).tolist()
            boxes.append(Box(top, left, 16, 12))
        else:
            boxes.append(Box(at.top, at.left, at.height + number % 5, at.width))
    return maps, boxes


def counted(maps: list[Map], boxes: list[Box], protocol: str, threshold: float, level: float) -> float:
    """Count hits pixel by pixel, as the public code does for masks."""
    hits = 0
    for of, box in zip(maps, boxes, strict=True):
        mask = np.zeros((SIDE, SIDE), bool)
        above = of.values > threshold
        if protocol == "mask":
            mask = above
        elif above.any():
            labels, _ = ndimage.label(above)
            sizes = [(labels == n).sum() for n in range(1, labels.max() + 1)]
            y, x = np.nonzero(labels == 1 + int(np.argmax(sizes)))
            mask[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
        truth = np.zeros((SIDE, SIDE), bool)
        truth[int(box.top) : int(box.top + box.height), int(box.left) : int(box.left + box.width)] = True
        cut = max(0, int(box.top + box.height) - SIDE) * int(box.width)  # of the box, outside the picture
        hits += (mask & truth).sum() / ((mask | truth).sum() + cut) > level
    return hits / len(maps)


def fits(maps: list[Map], boxes: list[Box]) -> Fits:
    names = [f"p{number // 2}" for number in range(len(maps))]
    return Fits.together(
        [Fit.of(m, b) for m, b in zip(maps, boxes, strict=True)],
        ["A" if n % 4 else "B" for n in range(len(maps))],
        names,
    )


@pytest.fixture(scope="module")
def found() -> Fits:
    return fits(*invented())


@pytest.mark.parametrize("protocol", ["component", "mask"])
def test_curves_are_the_counts_of_a_loop_over_boxes_and_pixels(protocol: str, found: Fits) -> None:
    maps, boxes = invented()
    for level in (0.25, 0.5):
        curve = found.curve(protocol, level)  # type: ignore[arg-type]
        for at in (4, 24, 59, 84):
            assert curve[at] == pytest.approx(counted(maps, boxes, protocol, THRESHOLDS[at], level))
    other = "mask" if protocol == "component" else "component"
    assert not np.allclose(found.curve(protocol, 0.25), found.curve(other, 0.25)), "protocols differ"  # type: ignore[arg-type]


def test_the_box_around_everything_is_another_protocol(found: Fits) -> None:
    """A wrong variant that people write: the box of all that is above, whatever it is connected to."""
    maps, boxes = invented()
    wrong = []
    for of, box in zip(maps, boxes, strict=True):
        y, x = np.nonzero(of.values > 0.6)
        whole = Map(np.zeros((SIDE, SIDE)), of.ys, of.xs)
        whole.values[y.min() : y.max() + 1, x.min() : x.max() + 1] = 1
        wrong.append(by_mask(whole, box, THRESHOLDS)[0] > 0.25)
    assert np.mean(wrong) < found.curve("component", 0.25)[59]


def test_the_searched_threshold_is_the_best_of_the_loop_over_the_published_range(found: Fits) -> None:
    maps, boxes = invented()
    best, at = -1.0, 0
    for number in range(60):
        quality = np.mean([counted(maps, boxes, "mask", (number + 1) / 100, level) for level in (0.25, 0.5)])
        if quality > best + 1e-12:
            best, at = float(quality), number
    assert found.searched("mask") == at
    score = found.score("mask", at)
    assert (score.ap25 + score.ap50) / 2 == pytest.approx(best)
    assert score.threshold == (at + 1) / 100


def test_a_threshold_of_the_others_never_sees_the_patients_own_boxes(found: Fits) -> None:
    score = found.held_out("component")
    assert score is not None
    hits = []
    for patient in sorted(set(found.patients)):
        own = np.array(found.patients) == patient
        ious = found.component[:, :60]
        quality = ((ious[~own] > 0.25).mean(0) + (ious[~own] > 0.5).mean(0)).round(9)
        hits += (ious[own, int(quality.argmax())] > 0.25).tolist()
    assert score.ap25 == pytest.approx(np.mean(hits))
    assert score.ap25 <= found.score("component", found.searched("component")).ap25 + 1e-12
    assert found.of_class("B").held_out("mask") is not None
    assert Fits(found.component[:2], found.mask[:2], ("A", "A"), ("p", "p")).held_out("mask") is None


def test_boxes_that_only_their_own_patient_would_find_are_not_found() -> None:
    """Three boxes of one patient fit above .11, one box of each of two others above .41 only."""
    ious = np.zeros((5, len(THRESHOLDS)))
    ious[:3, 10] = ious[3:, 40] = 0.9
    of = Fits(ious, ious, ("A",) * 5, ("p", "p", "p", "q", "r"))
    assert of.score("mask", of.searched("mask")).ap25 == pytest.approx(3 / 5)
    held = of.held_out("mask")
    assert held is not None
    assert held.ap25 == 0


def test_classes_part_the_boxes(found: Fits) -> None:
    assert found.classes == ("A", "B")
    parts = [found.of_class(label) for label in found.classes]
    assert sum(map(len, parts)) == len(found) == 30
    both = sum(len(part) * part.curve("mask", 0.25) for part in parts) / 30
    assert np.allclose(both, found.curve("mask", 0.25))


def test_intervals_draw_patients_and_not_boxes() -> None:
    hits = np.repeat([True, False, True, False, False, True], 10)[:, None]
    by_box = intervals(hits, [str(n) for n in range(60)])
    by_patient = intervals(hits, [str(n // 10) for n in range(60)])
    assert by_box is not None
    assert by_patient is not None
    (low, high), (lower, higher) = by_box[0], by_patient[0]
    assert low < 0.5 < high
    assert higher - lower > 1.8 * (high - low), "boxes of a patient are not independent"
    assert intervals(hits, ["one"] * 60) is None
    assert intervals(hits, [str(n) for n in range(60)]) == by_box


def test_the_centre_map_is_a_box_of_the_middle_at_every_threshold() -> None:
    frame = Frame(top=100, left=50, down=2, across=2, height=200, width=100)
    of = baselines.centre(frame)
    for threshold in (0.25, 0.5, 0.75):
        box = largest(of, threshold)
        assert box is not None
        assert box.height == pytest.approx(400 * (1 - threshold), abs=8)
        assert box.width == pytest.approx(200 * (1 - threshold), abs=8)
        assert box.top + box.height / 2 == pytest.approx(300)
        assert box.left + box.width / 2 == pytest.approx(150)


def test_the_random_map_follows_seed_and_name() -> None:
    frame = Frame(0, 0, 1, 1, 64, 48)
    one = baselines.random(frame, (8, 6), 8, 0, "a")
    assert np.array_equal(one.values, baselines.random(frame, (8, 6), 8, 0, "a").values)
    for seed, name in ((1, "a"), (0, "b")):
        assert not np.array_equal(one.values, baselines.random(frame, (8, 6), 8, seed, name).values)

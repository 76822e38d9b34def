"""What an image holds: content box, intensity statistics, perceptual hash, and signs of burned-in text."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

Pixels = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
Reduced = npt.NDArray[np.float32]

THUMB = 32
"""Side of the thumbnail that near-duplicates and polarity are judged on."""
ANALYSIS = 512
"""Longest side, in pixels, of the reduced image that borders are found on."""
_LEVEL_TOLERANCE = 0.02  # of the image's range
_CHUNK = 1 << 16  # pixels
_EDGE_SHARE = 0.10  # a grey level must fill this share of the edge to count as border
_PARTS = 0.10  # a second body part (other leg, other hand) counts from this share of the largest


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the full image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Content:
    """`box` encloses all but constant border; `area` is the share of the image that is not border, in [0, 1].

    `structure` is the share of contrast (standard deviation) that survives averaging to 32 x 32: pure noise loses
    nearly all of it. Measured: noise 0.06-0.24, test patterns 0.6, clinical images 0.91 and more.
    """

    box: Box
    area: float
    structure: float
    contrast: float  # range of the reduced image, in grey levels


@dataclass(frozen=True, slots=True)
class Statistics:
    """Intensities inside the content box, in grey levels; percentiles are exact grey levels (inverted CDF)."""

    min: int
    max: int
    mean: float
    std: float
    p0_5: int
    p1: int
    p99: int
    p99_5: int


def reduce(pixels: Pixels, longest: int) -> Reduced:
    """Mean of k x k blocks, k such that the longest side comes to at most `longest`; a partial block is cut."""
    k = -(-max(pixels.shape) // longest)
    rows, cols = max(1, pixels.shape[0] // k), max(1, pixels.shape[1] // k)
    if k == 1:
        return pixels.astype(np.float32)
    ky, kx = min(k, pixels.shape[0]), min(k, pixels.shape[1])
    total = pixels[0 : rows * ky : ky, : cols * kx].astype(np.uint32)
    for row in range(1, ky):
        total += pixels[row : rows * ky : ky, : cols * kx]
    columns = total[:, 0::kx].copy()
    for col in range(1, kx):
        columns += total[:, col::kx]
    means: Reduced = columns.astype(np.float32) / np.float32(ky * kx)
    return means


def find_content(pixels: Pixels, small: Reduced | None = None) -> Content:
    """Border = regions at one of the edge's one or two commonest grey levels that touch the edge.

    Works for black borders and for the white ones that inversion leaves around a collimated field. Measured on a
    reduction to at most 512 pixels a side; the box is rounded outwards to whole blocks of it.
    """
    small = reduce(pixels, ANALYSIS) if small is None else small
    low, high = float(small.min()), float(small.max())
    if high <= low:
        return Content(Box(0, 0, *pixels.shape), 0.0, 0.0, 0.0)
    structure = float(_resize(small).std() / small.std())
    content = _opened(~_border(small, (high - low) * _LEVEL_TOLERANCE))
    labels, count = ndimage.label(content)
    if count == 0:
        return Content(Box(0, 0, *pixels.shape), 0.0, structure, high - low)
    sizes = np.bincount(labels.ravel())[1:]
    kept = np.flatnonzero(sizes >= _PARTS * sizes.max())
    slices = ndimage.find_objects(labels)
    top, bottom = min(slices[i][0].start for i in kept), max(slices[i][0].stop for i in kept)
    left, right = min(slices[i][1].start for i in kept), max(slices[i][1].stop for i in kept)
    rows, cols = pixels.shape
    scale = -(-max(rows, cols) // ANALYSIS)
    box_bottom = rows if bottom == small.shape[0] else min(rows, bottom * scale)
    box_right = cols if right == small.shape[1] else min(cols, right * scale)
    box = Box(top * scale, left * scale, box_bottom - top * scale, box_right - left * scale)
    return Content(box, float(sizes[kept].sum()) / small.size, structure, high - low)


def _opened(mask: Mask) -> Mask:
    """Binary opening by 3 x 3: what is thinner than that goes. By shifts, ten times faster than scipy's."""
    return _grown(~_grown(~mask, edge=True), edge=False)


def _grown(mask: Mask, edge: bool) -> Mask:
    """Binary dilation by 3 x 3; `edge` is what lies outside."""
    padded = np.pad(mask, 1, constant_values=edge)
    tall = padded[:-2] | padded[1:-1] | padded[2:]
    return tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:]


def _border(small: Reduced, tolerance: float) -> Mask:
    edge = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    flat = np.zeros(small.shape, bool)
    for _ in range(2):
        if edge.size == 0:
            break
        # The commonest level: centre of the densest window of the sorted edge values.
        ordered = np.sort(edge)
        ends = np.searchsorted(ordered, ordered + 2 * tolerance, side="right")
        counts = ends - np.arange(ordered.size)
        start = int(np.argmax(counts))
        if counts[start] < _EDGE_SHARE * 2 * sum(small.shape):
            break
        level = float(np.median(ordered[start : ends[start]]))
        flat |= np.abs(small - level) <= tolerance
        edge = edge[np.abs(edge - level) > tolerance]
    labels, count = ndimage.label(flat)
    outside = np.zeros(count + 1, bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[side] = True
    outside[0] = False
    return np.asarray(outside[labels])


def statistics(pixels: Pixels, box: Box) -> Statistics:
    """Exact statistics from one histogram of the box."""
    inside = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    histogram = np.zeros(int(inside.max()) + 1, np.int64)
    rows = max(1, _CHUNK // box.width)
    for start in range(0, box.height, rows):  # bincount widens to int64: keep that copy in the cache
        histogram += np.bincount(inside[start : start + rows].ravel(), minlength=histogram.size)
    # Whole numbers to the end: a float product would wake BLAS threads and differ in its last bit between machines.
    levels = np.flatnonzero(histogram)
    counts = histogram[levels]
    cumulative = np.cumsum(counts)
    n, total, squares = int(cumulative[-1]), int((counts * levels).sum()), int((counts * levels * levels).sum())
    std = ((n * squares - total * total) / (n * n)) ** 0.5
    p = [int(levels[np.searchsorted(cumulative, q * n)]) for q in (0.005, 0.01, 0.99, 0.995)]
    return Statistics(int(levels[0]), int(levels[-1]), total / n, std, *p)


def thumbnail(small: Reduced) -> npt.NDArray[np.uint8]:
    """(32, 32) uint8, stretched to its own range: area mean of a reduced image, nearest where that is smaller."""
    resized = _resize(small)
    low, high = float(resized.min()), float(resized.max())
    stretched: npt.NDArray[np.uint8] = np.rint((resized - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)
    return stretched


def _resize(small: Reduced) -> Reduced:
    for axis in (0, 1):
        n = small.shape[axis]
        if n >= THUMB:
            cuts = np.linspace(0, n, THUMB + 1)[:-1].astype(int)
            widths = np.diff(np.append(cuts, n)).astype(np.float32)
            small = (np.add.reduceat(small, cuts, axis) / np.expand_dims(widths, 1 - axis)).astype(np.float32)
        else:
            nearest = ((np.arange(THUMB) + 0.5) * n / THUMB).astype(int)
            small = np.take(small, nearest, axis)
    return small


def perceptual_hash(thumb: npt.NDArray[np.uint8]) -> int:
    """63 bits: which of the 8 x 8 lowest DCT-II coefficients but the mean exceed their median."""
    spectrum = fft.dctn(thumb.astype(np.float64), norm="ortho")
    low = np.asarray(spectrum)[:8, :8].ravel()[1:]
    bits = low > np.median(low)
    return int("".join("01"[int(b)] for b in bits), 2)


def burned_in_suspect(pixels: Pixels, bits: int) -> bool:
    """A line of letter-sized, equally bright, separate marks near the top or bottom edge.

    A heuristic for review lists, not a detector of identifiers: text elsewhere or of varied grey escapes it.
    """
    rows, _ = pixels.shape
    band = max(16, rows // 6)
    for strip in (pixels[:band], pixels[-band:]):
        peak = int(strip.max())
        marks = strip == peak
        share = np.count_nonzero(marks) / marks.size
        if peak < (1 << bits) // 3 or not 1e-5 < share < 0.06:
            continue
        labels, count = ndimage.label(marks, np.ones((3, 3)))
        if not 5 <= count <= 4000:
            continue
        boxes = ndimage.find_objects(labels)
        limit = max(12, rows // 20)
        letters = [
            (b[0].stop, b[0].stop - b[0].start)
            for b in boxes
            if 6 <= b[0].stop - b[0].start <= limit and 2 <= b[1].stop - b[1].start <= 1.5 * limit
        ]
        # Letters stand on one line and have about one height.
        for bottom, height in letters:
            line = [h for at, h in letters if abs(at - bottom) <= 0.25 * height and 0.7 <= h / height <= 1.4]
            if len(line) >= 5:
                return True
    return False

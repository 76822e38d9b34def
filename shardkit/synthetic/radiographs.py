"""Synthetic radiographs: sizes as published, contents that look and compress like the real thing.

`synth_sizes` draws (height, width, region) from a compact fit to the published size histograms of a large set
of radiographs, knees to skulls (the notebook outputs of github.com/niklasbuehler/radiograph-pretraining).
`radiograph` draws one picture: thickness maps of flesh and bone (anatomy.py) become attenuation, scatter, a
tone curve, a lead marker, detector noise and a collimated field.  A picture is a pure function of its
arguments and its generator.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shardkit.dataset.rounding import ceil_div
from shardkit.synthetic.phantom.anatomy import REGION_DRAWERS
from shardkit.synthetic.phantom.attenuation import F32, Canvas

IntArray: TypeAlias = npt.NDArray[np.int64]

MAX_SIDE, MIN_HEIGHT, MIN_WIDTH = 3072, 246, 219  # the published set's limits, pixels

# region, share, median height, median width, sigma of log height, of log width, their correlation.
# The shares are published; sizes per region are not, only their sum is fitted.
_FIT: tuple[tuple[str, float, float, float, float, float, float], ...] = (
    ("knee", 0.2650, 2012, 1379, 0.168, 0.255, 0.63),
    ("shoulder", 0.1673, 1575, 1479, 0.264, 0.307, 0.05),
    ("ankle", 0.1275, 1816, 981, 0.175, 0.235, 0.30),
    ("elbow", 0.0874, 1351, 1010, 0.229, 0.220, 0.64),
    ("foot", 0.0834, 2430, 1695, 0.112, 0.192, 0.31),
    ("wrist", 0.0676, 1028, 703, 0.257, 0.263, -0.16),
    ("hand", 0.0644, 2479, 2107, 0.102, 0.112, 0.37),
    ("cervical spine", 0.0549, 1997, 1530, 0.155, 0.144, 0.59),
    ("clavicle", 0.0320, 1181, 2219, 0.305, 0.107, 0.40),
    ("thoracic spine", 0.0219, 2822, 1504, 0.070, 0.158, 0.11),
    ("lumbar spine", 0.0168, 2662, 1719, 0.096, 0.136, 0.18),
    ("skull", 0.0049, 2456, 2833, 0.109, 0.102, 0.32),
    ("ribs", 0.0042, 2491, 2864, 0.107, 0.100, 0.27),
    ("scapula", 0.0026, 2317, 1867, 0.137, 0.144, 0.29),
)
REGIONS: tuple[str, ...] = tuple(row[0] for row in _FIT)

# Whole-detector read-outs: height, width, share of all images.
_DETECTORS = (
    (3000, 3000, 0.020),
    (3056, 2544, 0.030),
    (2500, 2048, 0.027),
    (2376, 1800, 0.032),
    (1250, 1250, 0.010),
)
_SHARE_WIDTH_1250, _SHARE_HEIGHT_3020, _SHARE_HEIGHT_1250 = (
    0.064,
    0.046,
    0.019,
)  # one side set by the detector


def synth_sizes(n: int, rng: np.random.Generator) -> tuple[IntArray, IntArray, IntArray]:
    """Heights, widths (pixels) and indices into `REGIONS` of `n` images, int64 (n,) each."""
    share = np.array([row[1] for row in _FIT])
    region = rng.choice(len(_FIT), size=n, p=share / share.sum())
    height_0, width_0, sigma_h, sigma_w, rho = np.array([row[2:] for row in _FIT])[region].T
    z_h, z_w = rng.standard_normal((2, n))
    height = height_0 * np.exp(sigma_h * z_h)
    width = width_0 * np.exp(sigma_w * (rho * z_h + np.sqrt(1 - rho**2) * z_w))
    height = np.where(height > MAX_SIDE, MAX_SIDE - rng.integers(0, 90, n), np.maximum(height, MIN_HEIGHT))
    width = np.clip(width, MIN_WIDTH, MAX_SIDE - 1)

    jitter = rng.integers(-10, 11, n)
    width = np.where(rng.random(n) < _SHARE_WIDTH_1250, 1246 + 2 * jitter, width)
    pick = rng.random(n)
    height = np.where(pick < _SHARE_HEIGHT_3020 + _SHARE_HEIGHT_1250, 1250 + jitter, height)
    height = np.where(pick < _SHARE_HEIGHT_3020, 3020 + 3 * jitter, height)
    pick, start = rng.random(n), 0.0
    for full_height, full_width, part in _DETECTORS:
        hit = (pick >= start) & (pick < start + part)
        height, width = np.where(hit, full_height, height), np.where(hit, full_width, width)
        start += part
    return height.astype(np.int64), width.astype(np.int64), region.astype(np.int64)


_CELLS = 420  # the anatomy's grid along the longer side; finer structure comes from texture and noise

# Detector noise (standard deviation in grey values, low and high end) by bit depth.  Chosen so that the
# lossless HTJ2K ratio, 16 bits / coded bits, spreads over what real images gave: 1.6 (15-bit chest) to 4.3
# (10-bit hip).
_NOISE = {
    8: (0.5, 1.4),
    10: (3.2, 7.0),
    12: (7.0, 18.0),
    14: (12.0, 50.0),
    15: (40.0, 160.0),
    16: (60.0, 220.0),
}

# 5x7 lead letters, one string a row.
_LETTERS = {
    "L": ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
    "R": ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#"),
}


def radiograph(
    height: int, width: int, bits: int, rng: np.random.Generator, region: str = "knee"
) -> npt.NDArray[np.uint16]:
    """One radiograph, uint16 (height, width), values 0 .. 2**bits - 1, MONOCHROME2 sense (bone bright).

    `region` is one of `REGIONS`, "chest" or "breast".  The picture depends on nothing else but `rng`.
    """
    if region not in REGION_DRAWERS:
        raise ValueError(f"unknown region {region!r}; choose one of {sorted(REGION_DRAWERS)}")
    if bits not in _NOISE:
        raise ValueError(f"bits must be one of {sorted(_NOISE)}, not {bits}")
    cells = _cells(height, width)
    canvas = _figure(height, width, cells, rng, region)
    shade = _shade(canvas, rng)
    full = _upsample(shade, height, width)
    sponge = _upsample(np.sqrt(canvas.spongy) * np.float32(rng.uniform(0.012, 0.025)), height, width)
    full += sponge * _trabeculae(height, width, rng)
    _mark(full, rng)
    _add_noise(full, bits, rng)
    _collimate(full, bits, rng)
    np.clip(full, 0, 2**bits - 1, out=full)
    return full.astype(np.uint16)


def _cells(height: int, width: int) -> tuple[int, int]:
    """Shape of the coarse grid: at most `_CELLS` along the longer side, never finer than the picture."""
    factor = max(1.0, max(height, width) / _CELLS)
    return max(8, round(height / factor)), max(8, round(width / factor))


def _figure(height: int, width: int, cells: tuple[int, int], rng: np.random.Generator, region: str) -> Canvas:
    """Draw the region's anatomy, posed a little differently each time."""
    (half_w, half_h), draw = REGION_DRAWERS[region]
    unit = min(cells[1] / 2 / half_w, cells[0] / 2 / half_h) * float(rng.uniform(0.85, 1.12))
    upright = region in ("chest", "ribs", "skull", "breast") or region.endswith("spine")
    angle = float(rng.normal(0, 0.025 if upright else 0.11))
    shift = rng.normal(0, 0.04, 2)
    centre = (cells[1] * (0.5 + float(shift[0])), cells[0] * (0.5 + float(shift[1])))
    canvas = Canvas(cells, unit, centre, angle, mirror=bool(rng.random() < 0.5) and region not in ("chest", "ribs"))
    draw(canvas, rng)
    return canvas


def _shade(canvas: Canvas, rng: np.random.Generator) -> F32:
    """Attenuation with scatter through a log-like tone curve: float32 on the coarse grid, about 0 .. 1."""
    flesh = canvas.flesh * (1 + np.float32(0.022) * _mottle(canvas.flesh.shape, rng))  # muscle, fat planes
    solid = flesh * np.float32(rng.uniform(0.42, 0.58)) + canvas.bone * np.float32(rng.uniform(1.05, 1.35))
    solid = ndimage.gaussian_filter(solid, 0.6)
    veil = ndimage.uniform_filter(solid, max(3, canvas.flesh.shape[0] // 8))
    # Scatter flattens, the vendor's enhancement sharpens: what is left is a mild local contrast boost.
    solid = solid + np.float32(0.22) * (solid - veil) * (solid > 0.02)
    top = float(np.percentile(solid, 99.7)) or 1.0
    tone = np.maximum(solid / np.float32(top), 0) ** np.float32(rng.uniform(0.75, 1.0))
    shade: F32 = np.float32(rng.uniform(0.03, 0.09)) + np.float32(rng.uniform(0.72, 0.86)) * np.minimum(tone, 1.08)
    rows = np.linspace(-0.5, 0.5, shade.shape[0], dtype=np.float32)[:, None]
    heel: F32 = 1 + np.float32(rng.normal(0, 0.05)) * rows  # the anode's heel effect
    shade *= heel
    return shade


def _mottle(shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Cloudy texture with unit deviation at two scales, float32."""
    out = np.zeros(shape, np.float32)
    for sigma in (2.5, 9.0):
        cloud = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
        out += cloud / np.float32(cloud.std() + 1e-6)
    return out


def _trabeculae(height: int, width: int, rng: np.random.Generator) -> F32:
    """Fine streaks along the bone: a tile of anisotropic band-passed noise repeated over the picture."""
    side = 256
    grain = rng.standard_normal((side, side), dtype=np.float32)
    fine = ndimage.gaussian_filter(grain, (4.0, 1.2), mode="wrap")
    fine -= ndimage.gaussian_filter(grain, (6.0, 4.0), mode="wrap")
    fine /= np.float32(fine.std())
    rows, cols = ceil_div(height, side), ceil_div(width, side)
    tiled: F32 = np.tile(fine, (rows, cols))[:height, :width]
    return tiled


def _upsample(coarse: F32, height: int, width: int) -> F32:
    """Linear interpolation to float32 (height, width): columns first, the slow ones, while rows are few."""
    low, high, part = _taps(coarse.shape[1], width)
    stretched = coarse[:, low] * (1 - part) + coarse[:, high] * part
    low, high, part = _taps(coarse.shape[0], height)
    out: F32 = stretched[high]
    out -= stretched[low]
    out *= part[:, None]
    out += stretched[low]
    return out


def _taps(size: int, target: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], F32]:
    """Neighbours and weight of each target sample, pixel centres aligned."""
    at = np.clip((np.arange(target) + 0.5) * (size / target) - 0.5, 0, size - 1)
    low = at.astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)


def _mark(full: F32, rng: np.random.Generator) -> None:
    """Draw a lead side marker near an upper corner, on most pictures."""
    dot = min(full.shape) // 130
    if dot < 1 or rng.random() < 0.25:
        return
    letter = np.array([[c == "#" for c in row] for row in _LETTERS["L" if rng.random() < 0.5 else "R"]])
    stamp = np.kron(letter, np.ones((dot, dot), bool))
    row = int(full.shape[0] * rng.uniform(0.08, 0.14))
    col = int(full.shape[1] * (rng.uniform(0.08, 0.12) if rng.random() < 0.5 else rng.uniform(0.84, 0.88)))
    view = full[row : row + stamp.shape[0], col : col + stamp.shape[1]]
    view[stamp[: view.shape[0], : view.shape[1]]] = 0.97


def _add_noise(full: F32, bits: int, rng: np.random.Generator) -> None:
    """Scale to grey values; add quantum noise, stronger behind bone, blurred by the detector."""
    low, high = _NOISE[bits]
    sigma = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    noise = rng.standard_normal(full.shape, dtype=np.float32)
    blur = np.float32(rng.uniform(0.1, 0.45))  # the light spreads to the next pixel
    noise[:, 1:] += blur * noise[:, :-1]
    noise[1:] += blur * noise[:-1]
    noise *= np.float32(sigma / float(1 + blur * blur))
    noise *= np.float32(0.45) + full
    full *= np.float32(2**bits - 1)
    full += noise


def _collimate(full: F32, bits: int, rng: np.random.Generator) -> None:
    """Blacken what the collimator hides: usually to a constant, sometimes to faint scatter."""
    kind = rng.random()
    if kind < 0.35:
        return
    height, width = full.shape
    tilt = float(rng.normal(0, 0.02)) if rng.random() < 0.4 else 0.0
    top, bottom, left, right = (float(v) for v in rng.uniform(0.0, 0.11, 4))
    row = np.arange(height, dtype=np.float32)
    starts = np.clip(left * width + tilt * (row - height / 2), 0, width).astype(int)
    ends = np.clip((1 - right) * width + tilt * (row - height / 2), 0, width).astype(int)
    first = top * height + tilt * (np.arange(width, dtype=np.float32) - width / 2) * -1
    last = (1 - bottom) * height + tilt * (np.arange(width, dtype=np.float32) - width / 2) * -1
    leak = np.float32(0.06 if kind > 0.8 else 0.0)  # a little scatter, or the shutter's zero
    for r in range(height):
        full[r, : starts[r]] *= leak
        full[r, ends[r] :] *= leak
    edge = int(np.ceil(max(first.max(), height - last.min()))) + 1
    for rows in (slice(0, min(edge, height)), slice(max(height - edge, 0), height)):
        outside = (row[rows, None] < first) | (row[rows, None] >= last)
        full[rows][outside] *= leak

"""Maps that know nothing: what a model's maps have to beat."""

import hashlib

import numpy as np
import torch

from trainer.explain.maps import FINE, Frame, Map, fine

NAMES = ("centre", "random")


def centre(frame: Frame) -> Map:
    """Return a map whose part above a threshold t is the picture's middle, a box of 1 - t of its sides."""
    side = max(1.0, max(frame.height, frame.width) / FINE)
    rows, cols = (int(np.ceil(length / side)) for length in (frame.height, frame.width))
    far = [np.abs((np.arange(count) + 0.5) * 2 / count - 1) for count in (rows, cols)]
    return Map(1 - np.maximum(far[0][:, None], far[1][None, :]), *frame.lines((rows, cols), side))


def random(frame: Frame, grid: tuple[int, int], stride: int, seed: int, name: str) -> Map:
    """Return a map of uniform noise for each token, brought to a fine grid as a model's are.

    Parameters
    ----------
    frame
        Of the picture.
    grid, stride
        Rows and columns of tokens, and their side in pixels.
    seed, name
        What is drawn: the same for the same seed and name.
    """
    word = hashlib.sha256(f"{seed} {name}".encode()).digest()
    drawn = np.random.default_rng(int.from_bytes(word[:8], "big")).random(grid)
    return fine(torch.from_numpy(drawn), stride, frame)

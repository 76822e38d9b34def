"""Signs of text that is burned into the pixels of an image."""

import numpy as np
from scipy import ndimage

from shardkit.content import Pixels


def burned_in_suspect(pixels: Pixels, bits: int) -> bool:
    """Look for a line of letter-sized, equally bright, separate marks near the top or bottom edge.

    A heuristic for review lists, not a detector of identifiers: text elsewhere or of varied grey escapes it.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        An image.
    bits : int
        Its depth.
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

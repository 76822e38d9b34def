"""Random numbers by a seed and a purpose: the same on every machine and device, whatever else is drawn."""

from random import Random


def draws(seed: int, purpose: str) -> Random:
    """Return a generator of its own for one purpose of an image.

    What one augmentation draws does not depend on which others there are.

    Parameters
    ----------
    seed
        The plan's, of the image's crop.
    purpose
        Name of what is drawn for.
    """
    return Random(f"{purpose} {seed}")

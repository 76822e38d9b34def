"""Ways to normalise grey levels as commands and files name them: a name, or mean,deviation."""

from typing import Any

from shardkit.errors import ArgumentError


def normalise_of(text: str, option: str) -> Any:
    """Return what `shardkit.Loader` takes as `normalise`: a name as it is, a pair of numbers as such.

    Parameters
    ----------
    text : str
        "zscore", or "0.51,0.25".
    option : str
        What was typed, for the message.

    Returns
    -------
    str or tuple of float
        Whether there is a way of that name, the loader says.

    Raises
    ------
    ArgumentError
        What has a comma is not two numbers.
    """
    mean, comma, deviation = text.partition(",")
    if not comma:
        return text
    try:
        return float(mean), float(deviation)
    except ValueError:
        raise ArgumentError(f"{option} must be two numbers, mean,deviation, or a name") from None


def normalise_text(how: str | tuple[float, float]) -> str:
    """Return the text that `normalise_of` makes the same of."""
    return how if isinstance(how, str) else ",".join(map(str, how))

"""Whether an option's value can be used."""

from typing import Any

from shardkit.errors import ArgumentError


def require(option: str, value: Any, holds: bool, what: str) -> None:
    """Refuse a value.

    Parameters
    ----------
    option
        Its name, as model.drop_path.
    value
        What it was given.
    holds
        Whether that can be used.
    what
        What it must be.

    Raises
    ------
    ArgumentError
        Where it cannot.
    """
    if not holds:
        given = " ".join(map(str, value)) if isinstance(value, tuple) else value
        raise ArgumentError(f"--{option.replace('_', '-')} {given} must be {what}")

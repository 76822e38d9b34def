"""Values of the fields of batchings and views: what they may be, and their text."""

import ast
import math
from dataclasses import is_dataclass
from typing import Any

import numpy as np


def number(value: Any) -> bool:
    """Tell whether it is a finite number."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


def whole(value: Any, least: int) -> bool:
    """Tell whether it is a whole number of at least `least`."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def share(value: Any) -> bool:
    """Tell whether it is a number from 0 to 1."""
    return number(value) and bool(0 <= value <= 1)


def ascending(pair: Any) -> bool:
    """Tell whether it is a tuple of two numbers above 0, least first."""
    return isinstance(pair, tuple) and len(pair) == 2 and all(map(number, pair)) and 0 < pair[0] <= pair[1]


def written(value: Any) -> str:
    """Write the value of a field: a tuple's numbers are parted by a slash, its records by a plus."""
    if isinstance(value, tuple):
        return ("+" if any(map(is_dataclass, value)) else "/").join(map(str, value))
    return str(value)


def read(text: str) -> Any:
    """Read the value of a field from its text: numbers, true, false, none, tuples of these, else a name or a path."""
    if "/" in text and not text.endswith(".json"):
        return tuple(read(part) for part in text.split("/"))
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text

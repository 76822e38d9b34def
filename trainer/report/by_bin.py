"""The loss by bin: the hardest and the easiest stand out, the others are there to compare."""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from trainer.report.curves import Line, Points, chart, smoothed

BINS = 12
"""Bins with a curve, at most: those with the most lines of the log."""
_EXTENT = (640.0, 330.0)

Records = list[dict[str, Any]]


def found(records: Records, how: Callable[[float], str]) -> dict[str, Any] | None:
    """Return curves, their keys and the rows of a table for the page; None where the log has no bin.

    Parameters
    ----------
    records
        Lines of the log.
    how
        A loss as text.
    """
    seen = Counter(name for record in records for name in record["loss_by_bin"])
    names = sorted((name for name, _ in seen.most_common(BINS)), key=_area)
    if not names:
        return None
    # Most lines of the log have no image of a rare bin: the curve goes on over those.
    points = {
        name: [(r["step"], r["loss_by_bin"][name]) for r in records if name in r["loss_by_bin"]] for name in names
    }
    ends = {name: _end(of) for name, of in points.items()}
    known = sorted((end, name) for name, end in ends.items() if end is not None)
    marks = {known[0][1]: "blue", known[-1][1]: "amber"} if len(known) > 1 else {}
    lines = [
        Line(_size(name), smoothed(of), marks.get(name, "pale"), kind=f"bin{at}")
        for at, (name, of) in enumerate(points.items())
    ]
    rows = [
        {"at": at, "colour": marks.get(name, "pale"), "name": _size(name), "lines": len(points[name]),
         "last": "–" if end is None else how(end)}
        for at, (name, end) in enumerate(ends.items())
    ]  # fmt: skip
    words = {"amber": "highest last loss", "blue": "lowest last loss"}
    keys = [replace(line, name=f"{words[line.colour]}: {line.name}") for line in lines if line.colour in words]
    front = sorted(lines, key=lambda line: line.colour != "pale")
    left = f" The {len(names)} most frequent of {len(seen)}." if len(seen) > len(names) else ""
    return {
        "left": left,
        "chart": chart(front, title="Loss by bin", extent=_EXTENT),
        "keys": [*keys, Line("other bins", (), "pale")] if keys else [],
        "rows": rows,
    }


def _end(points: Points) -> float | None:
    """Mean of the finite ones of the last tenth."""
    values = [y for _, y in points[-max(1, len(points) // 10) :] if y is not None and math.isfinite(y)]
    return sum(values) / len(values) if values else None


def _sides(name: str) -> list[int]:
    return [int(side) for side in name.split("x")] if re.fullmatch(r"\d+x\d+", name) else []


def _area(name: str) -> tuple[int, str]:
    return math.prod(_sides(name)), name


def _size(name: str) -> str:
    return " × ".join(f"{side:,}" for side in _sides(name)) or name

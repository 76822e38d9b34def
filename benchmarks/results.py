"""What every benchmark leaves: its figures as JSON, with their machine, date and conditions, and a plot beside them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine

if TYPE_CHECKING:
    from shardkit.report import Plot

Record = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"


def begin(question: str, libraries: tuple[str, ...] = machine.LIBRARIES) -> Record:
    """Begin a result with the benchmark's question, the date, and the machine in words; the caller adds figures."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"question": question, "date": now, "machine": machine.describe(libraries)}


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return median, least and most."""
    found = list(values)
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def save(result: Record, out: Path, plots: Callable[[Record], list[Plot]] | None = None) -> None:
    """Write `out` and, beside it, the plots as PNG of the same name."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    if plots is not None:
        from shardkit.report import save_png  # not where a program is measured

        save_png(plots(result), out.with_suffix(".png"))


def table(titles: list[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table; the first column is words, the others are numbers."""
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

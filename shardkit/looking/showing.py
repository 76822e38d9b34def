"""Samples shown where one looks: below a notebook's cell, or in a PNG file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardkit.errors import ArgumentError
from shardkit.looking.pictures import Sheet
from shardkit.looking.sample import Sample, Window
from shardkit.storage import no_folder, translate_errors


def show(
    samples: Sequence[Sample], side: int | None, window: Window | None, boxes: bool, out: Path | None
) -> Path | None:
    """Show samples. See `shardkit.Dataset.show`.

    Raises
    ------
    ArgumentError
        There is nothing to show, or no folder for the file.
    """
    if not samples:
        raise ArgumentError("there is nothing to show: no sample was chosen")
    given: dict[str, Any] = {"window": window, "boxes": boxes} | ({} if side is None else {"side": side})
    sheet = samples[0].sheet(**given) if len(samples) == 1 else Sheet([sample.tile(**given) for sample in samples])
    if out is None and in_notebook():
        import IPython.display

        display: Any = IPython.display.display
        display(sheet)
        return None
    path = out if out is not None else Path(f"{samples[0].key[:12] if len(samples) == 1 else 'samples'}.png")
    if absent := no_folder(path.absolute().parent):
        raise ArgumentError(f"{path}: {absent}")
    with translate_errors(str(path), writing=True):
        path.write_bytes(sheet.png())
    return path


def in_notebook() -> bool:
    """Return whether a notebook's kernel runs this program, and not a terminal."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None

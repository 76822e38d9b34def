"""A window of steps under torch's profiler."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


class ProfilerWindow:
    """A window of steps under torch's profiler.

    It writes `step_00000010.json` into `folder`, a trace for chrome://tracing or Perfetto.

    Parameters
    ----------
    steps
        The first step, counted from 0, and how many; None profiles nothing.
    folder
        Where the trace goes.
    first
        Whether this is the first process; only that one profiles.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path, first: bool) -> None:
        self._steps, self._folder = steps if first else None, folder
        self._profiler: Any = None

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Run a step, under the profiler if it lies in the window."""
        if self._steps is not None and number == self._steps[0]:
            self._profiler = torch.profiler.profile()
            self._profiler.__enter__()
        yield
        if self._profiler is not None and self._steps is not None and number + 1 >= sum(self._steps):
            profiler, self._profiler = self._profiler, None
            profiler.__exit__(None, None, None)
            self._folder.mkdir(parents=True, exist_ok=True)
            profiler.export_chrome_trace(str(self._folder / f"step_{self._steps[0]:08d}.json"))

"""A build's progress in the terminal: files a second, Mpx a second, compression ratio, time left."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from shardkit.convert import ShardDone

_WORDS = {
    "scan": "scanning headers",
    "plan": "planning shards",
    "convert": "converting",
    "assemble": "settling duplicates",
}


class Shown:
    """Shows a build's stages; a context manager. On a terminal that is none, one line per stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("files {task.fields[rates]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._started = 0.0
        self._files = self._pixels = self._stored = 0

    def __enter__(self) -> "Shown":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._bars.stop()

    def stage(self, name: str, total: int | None) -> None:
        """A new stage begins."""
        self._end()
        self._started = time.monotonic()
        self._files = self._pixels = self._stored = 0
        self._task = self._bars.add_task(_WORDS.get(name, name), total=total, rates="")

    def scanned(self, files: int) -> None:
        """Headers were read."""
        self._files += files
        self._show()

    def converted(self, done: ShardDone) -> None:
        """A shard is finished."""
        self._files += done.files
        self._pixels += done.pixels
        self._stored += done.bytes_out
        self._show()

    def _rates(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-3)
        rates = f"{self._files / seconds:,.0f}/s"
        if self._pixels:
            ratio = 2 * self._pixels / max(self._stored, 1)
            rates += f"  {self._pixels / seconds / 1e6:,.0f} Mpx/s  ratio {ratio:.2f}"
        return rates

    def _show(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._files, rates=self._rates())

    def _end(self) -> None:
        if self._task is None:
            return
        self._bars.update(self._task, total=self._files or 1, completed=self._files or 1, rates=self._rates())
        if not self._console.is_terminal and self._files:
            words = self._bars.tasks[-1].description
            self._console.print(f"{words}: {self._files:,} files, {self._rates()}", highlight=False)
        self._task = None

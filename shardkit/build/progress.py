"""A build's progress in the terminal: files a second, Mpx a second, compression ratio, time left."""

import time
from types import TracebackType

from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.progress import Progress as Bars
from rich.text import Text

from shardkit.build.ingest import ShardDone
from shardkit.terminal.output import Terminal

_WORDS = {
    "scan": "scanning headers",
    "plan": "planning shards",
    "convert": "converting",
    "assemble": "finishing",
}
_WIDTH = max(map(len, _WORDS.values()))
_BAR = 8  # cells


class BuildProgressBar:
    """Shows a build's stages; a context manager. Where output is not a terminal, one line per stage."""

    def __init__(self, console: Terminal) -> None:
        self._console = console
        self._bars = Bars(
            SpinnerColumn(), BarColumn(_BAR), _Facts(console), console=console, disable=not console.is_terminal
        )
        self._task: TaskID | None = None
        self._started = 0.0
        self._files = self._pixels = self._stored = 0

    def __enter__(self) -> "BuildProgressBar":
        """Start to draw."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw the last line."""
        self._end()
        self._bars.stop()

    def stage(self, name: str, total: int | None) -> None:
        """Begin a stage; one that reports no files is a single step, with nothing to count."""
        self._end()
        self._started = time.monotonic()
        self._files = self._pixels = self._stored = 0
        self._task = self._bars.add_task(_WORDS.get(name, name), total=total, rates=[])

    def scanned(self, files: int) -> None:
        """Count files whose headers were read."""
        self._files += files
        self._show()

    def converted(self, done: ShardDone) -> None:
        """Count a finished shard."""
        self._files += done.files
        self._pixels += done.pixels
        self._stored += done.bytes_out
        self._show()

    def _rates(self) -> list[str]:
        """Most telling first; none of a stage without files."""
        seconds = max(time.monotonic() - self._started, 1e-3)
        rates = [f"{_rate(self._files / seconds)}/s"] if self._files else []
        if self._pixels:
            ratio = 2 * self._pixels / max(self._stored, 1)
            rates += [f"{_rate(self._pixels / seconds / 1e6)} Mpx/s", f"ratio {ratio:.2f}"]
        return rates

    def _show(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._files, rates=self._rates())

    def _end(self) -> None:
        if self._task is None:
            return
        done = self._files or 1
        self._bars.update(self._task, total=done, completed=done, rates=self._rates())
        if not self._console.is_terminal and self._files:
            words = self._bars.tasks[-1].description
            self._console.print(f"{words}: {self._files:,} files, {'  '.join(self._rates())}", highlight=False)
        self._task = None


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


class _Facts(ProgressColumn):
    """A stage in words and numbers. What the terminal has no room for is left out whole, the least telling first."""

    max_refresh = 0.5  # seconds

    def __init__(self, console: Terminal) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        """Draw the stage's line, with as many facts as fit beside spinner and bar."""
        room = self._console.width - _BAR - 3
        line = f"{task.description:<{_WIDTH}}"
        for fact in (_count(task), _clock(task), *task.fields["rates"]):
            if fact and len(line) + 2 + len(fact) <= room:
                line += f"  {fact}"
        return Text(line[:room], no_wrap=True)


def _count(task: Task) -> str:
    if not task.fields["rates"]:  # nothing is done yet, or there is nothing to count
        return f"{task.total:,.0f} files" if task.total and not task.finished else ""
    if task.total is None or task.finished:
        return f"{task.completed:,.0f} files"
    return f"{task.completed:,.0f} of {task.total:,.0f}"


def _clock(task: Task) -> str:
    """Time left at the pace so far, else time taken; h:mm:ss."""
    if task.finished or not task.total or not task.completed:
        return _hours(task.finished_time or task.elapsed or 0)
    return f"{_hours((task.elapsed or 0) * (task.total / task.completed - 1))} left"


def _hours(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"

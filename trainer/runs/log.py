"""What a run says: a line every few steps on the terminal, in `metrics.jsonl` and to `trainer.runs.writers`."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shardkit.terminal.output import Terminal
from trainer import metrics
from trainer.objectives import collapse
from trainer.runs.files import atomic_write
from trainer.runs.writers import Writer, writers
from trainer.validation import Measured

_MISSING = "–"
_COUNTS = ("images", "tokens", "padded_tokens", "flops", "padded_flops")
METRICS_FILE, VALIDATION_FILE = "metrics.jsonl", "validation.jsonl"


@dataclass(frozen=True, slots=True)
class Step:
    """One global step, over all processes.

    Attributes
    ----------
    number, epoch, lr
        Number of the step, from 1, its epoch, and its learning rate.
    wait
        Seconds that this process waited for data.
    sums
        float64 by name, on the CPU: loss, summed over images; weight, how many of them count in it; images and tokens
        seen; padded_tokens, those that were run; flops and padded_flops of training, of the images alone and of all
        that is run, which MFU and HFU are shares of (see `trainer.models.flops`); norm of the gradient, before
        clipping; loss_by_bin (2, bins), losses and images; and the objective's metrics.
    """

    number: int
    epoch: int
    lr: float
    wait: float
    sums: Mapping[str, Tensor]

    @property
    def images(self) -> float:
        """Number of images seen."""
        return float(self.sums["images"])

    @property
    def norm(self) -> float:
        """Norm of the gradient, before clipping."""
        return float(self.sums["norm"])

    @property
    def counts(self) -> bool:
        """Whether an image counts in the loss, and loss and norm are finite."""
        return float(self.sums["weight"]) > 0 and math.isfinite(float(self.sums["loss"])) and math.isfinite(self.norm)


@dataclass
class Log:
    """What a run says, line by line.

    Attributes
    ----------
    folder : Path
        Of the run.
    bins : list of str
        Names of the bins.
    steps : int
        Number of global steps of the whole run.
    peak : float or None
        Peak of a device in TFLOP/s, if known.
    devices : int
        Number of devices that train.
    console : Terminal or None
        Of the first process; the others, which have none, write nothing.
    tensorboard, wandb
        Where numbers go besides; see `trainer.runs.writers`.
    seconds, images, skipped, uncounted
        Counts of the whole run so far, for its lines.
    """

    folder: Path
    bins: list[str]
    steps: int
    peak: float | None
    devices: int
    console: Terminal | None
    tensorboard: bool
    wandb: str | None = None
    seconds: float = 0.0
    images: float = 0.0
    skipped: int = 0
    uncounted: int = 0
    _since: list[Step] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _writers: list[Writer] = field(default_factory=list)
    _alarmed: str = ""

    def begin(self, after: int, validated: int) -> None:
        """Drop the lines of what will be done again: of steps after `after`, and validations after `validated`."""
        if self.console is None:
            return
        for name, last in ((METRICS_FILE, after), (VALIDATION_FILE, validated)):
            path = self.folder / name
            kept = [line for line in read(path) if line["step"] <= last]
            if path.exists():
                with atomic_write(path) as fresh:
                    fresh.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._writers = writers(self.folder, after, self.tensorboard, self.wandb)
        self._started = time.monotonic()

    def add(self, step: Step) -> None:
        """Count a step."""
        self._since.append(step)
        self.images += step.images

    def line(self) -> None:
        """Sum up the steps since the last line, and write it."""
        if not self._since:
            return
        took, steps = time.monotonic() - self._started, self._since
        self._since, self._started, self.seconds = [], time.monotonic(), self.seconds + took
        if self.console is None:
            return
        record = self._record(steps, took)
        self._append(METRICS_FILE, record, text(record))
        self._write(record["step"], record, "")
        self._alarm(record)

    def validated(self, step: int, measured: Measured, best: bool = False) -> None:
        """Write what was measured after a step; its time counts as the run's, and not as a line's.

        Parameters
        ----------
        step
            Number of the step.
        measured
            Of it.
        best
            Whether its checkpoint is the best one so far, where one is chosen.
        """
        self.seconds, self._started = self.seconds + measured.seconds, self._started + measured.seconds
        if self.console is None:
            return
        loss = measured.loss if math.isfinite(measured.loss) else None
        found = {"loss": loss, "loss_by_bin": measured.by_bin, **_more(measured.metrics)}
        record = {"step": step, "split": measured.split, "images": measured.images, **found, "best": best}
        shown = _MISSING if loss is None else f"{loss:.5f}"
        images, took = f"{measured.images:,}", duration(measured.seconds)
        words = f"step {step}/{self.steps}  {measured.split} loss {shown}{_told(record)}  on {images} images  in {took}"
        self._append(VALIDATION_FILE, record, f"{words}{'  best so far' if best else ''}")
        self._write(step, found, f"{measured.split}/")

    def close(self) -> None:
        """Close the writers: no line follows."""
        for writer in self._writers:
            writer.close()

    def _alarm(self, record: dict[str, Any]) -> None:
        """Say once that features collapse, and again where they do after they did not."""
        said = collapse.alarm(record.get("metrics", {})) if collapse.settled(record["step"], self.steps) else ""
        if said and not self._alarmed and self.console is not None:
            self.console.print(f"step {record['step']}: {said}", highlight=False, soft_wrap=True)
        self._alarmed = said

    def _append(self, name: str, record: dict[str, Any], said: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(record) + "\n")
        assert self.console is not None
        self.console.print(said, highlight=False, soft_wrap=True)

    def _record(self, steps: list[Step], took: float) -> dict[str, Any]:
        last = steps[-1]
        total = {name: sum(float(s.sums[name]) for s in steps) for name in _COUNTS}
        counted = [s for s in steps if s.counts]
        sums, counts = torch.stack([s.sums["loss_by_bin"] for s in counted]).sum(0).tolist() if counted else ([], [])
        loss, weight = (sum(float(s.sums[name]) for s in counted) for name in ("loss", "weight"))
        rate = total["flops"] / took / self.devices / 1e12
        return {
            "step": last.number,
            "steps": self.steps,
            "epoch": last.epoch,
            "loss": loss / weight if counted else None,
            "lr": last.lr,
            "images_per_s": total["images"] / took,
            "tokens_per_s": total["tokens"] / took,
            "padding": 1 - total["tokens"] / total["padded_tokens"] if total["padded_tokens"] else 0.0,
            "data_wait": sum(s.wait for s in steps) / took,
            "tflops": rate,
            "mfu": rate / self.peak if self.peak else None,
            "hfu": total["padded_flops"] / took / self.devices / 1e12 / self.peak if self.peak else None,
            "grad_norm": sum(s.norm for s in counted) / len(counted) if counted else None,
            "images": self.images,
            "skipped": self.skipped,
            "uncounted": self.uncounted,
            "seconds": self.seconds,
            "eta": (self.steps - last.number) * took / len(steps),
            "loss_by_bin": {
                name: loss / count for name, loss, count in zip(self.bins, sums, counts, strict=False) if count
            },
            **_more(_metrics(counted or steps)),
        }

    def _write(self, step: int, record: dict[str, Any], group: str) -> None:
        values = {f"{group}{name}": value for name, value in record.items() if isinstance(value, float)}
        for part in ("loss_by_bin", "metrics"):
            of = record.get(part, {}).items()
            values |= {f"{group}{part}/{name}": value for name, value in of if value is not None}
        for writer in self._writers:
            writer.write(step, values)


def text(record: dict[str, Any]) -> str:
    """Return a record as one line for the terminal."""
    loss = _MISSING if record["loss"] is None else f"{record['loss']:.5f}"
    norm = _MISSING if record["grad_norm"] is None else f"{record['grad_norm']:.3g}"
    share = _MISSING if record["mfu"] is None else f"{100 * record['mfu']:.1f} %"
    left = f"  {duration(record['eta'])} to go" if record["step"] < record["steps"] else ""
    skipped = f"  skipped {record['skipped']}" if record["skipped"] else ""
    uncounted = f"  without an image that counts {record['uncounted']}" if record["uncounted"] else ""
    return (
        f"step {record['step']:>{len(str(record['steps']))}}/{record['steps']}  loss {loss}{_told(record)}  "
        f"lr {record['lr']:.2e}  {record['images_per_s']:,.1f} images/s  "
        f"{_thousands(record['tokens_per_s'])} tokens/s  pad {100 * record['padding']:.1f} %  "
        f"wait {100 * record['data_wait']:.0f} %  {record['tflops']:.3g} TFLOP/s  MFU {share}  "
        f"norm {norm}{skipped}{uncounted}{left}"
    )


def duration(seconds: float) -> str:
    """Return seconds in words, such as 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def read(path: Path) -> list[dict[str, Any]]:
    """Read the records of a file of lines; a line that a crash cut off is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _metrics(steps: list[Step]) -> dict[str, float | None]:
    """Return the objective's metrics, as means over steps."""
    total: metrics.Sums = {}
    for step in steps:
        metrics.add(total, {name: value for name, value in step.sums.items() if name.startswith(metrics.PREFIX)})
    return metrics.means(total)


def _more(found: dict[str, float | None]) -> dict[str, Any]:
    """Return the part of a record for metrics; empty where an objective has none beside its loss."""
    return {"metrics": found} if found else {}


def _told(record: dict[str, Any]) -> str:
    """Return a record's metrics, for a line."""
    found = record.get("metrics", {}).items()
    return "".join(f"  {name} {_MISSING if value is None else f'{value:.5g}'}" for name, value in found)


def _thousands(value: float) -> str:
    return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value / 1e3:.1f}k" if value >= 1e3 else f"{value:.0f}"

"""What a run says: a line every few steps on the terminal, in `metrics.jsonl` and to `trainer.runs.writers`."""

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shardkit.terminal.output import Terminal
from trainer.runs.files import whole
from trainer.runs.writers import Writer, writers
from trainer.validation import Measured

_MISSING = "–"
METRICS, VALIDATION = "metrics.jsonl", "validation.jsonl"


@dataclass(frozen=True, slots=True)
class Step:
    """Of one global step, over all processes.

    loss: mean over images. norm: of the gradient, before clipping. images, tokens: seen. slots: tokens with padding.
    flops, padded_flops: of training, of the images alone and of all that is run, which MFU and HFU are shares of: see
    `trainer.models.flops`. wait: seconds this process waited for data. by_bin: float64 (2, bins), summed loss, images.
    """

    number: int
    epoch: int
    lr: float
    loss: float
    norm: float
    images: float
    tokens: float
    slots: float
    flops: float
    padded_flops: float
    wait: float
    by_bin: Tensor


@dataclass
class Log:
    """folder: of the run. bins: their names. steps: of the whole run. peak: TFLOP/s of a device, or None.

    devices: how many train. console: of the first process; others write nothing.
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
    _since: list[Step] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _writers: list[Writer] = field(default_factory=list)

    def begin(self, after: int) -> None:
        """Drop lines of steps that will be trained again, those after `after`."""
        if self.console is None:
            return
        for path in (self.folder / METRICS, self.folder / VALIDATION):
            kept = [line for line in read(path) if line["step"] <= after]
            if path.exists():
                with whole(path) as fresh:
                    fresh.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._writers = writers(self.folder, after, self.tensorboard, self.wandb)
        self._started = time.monotonic()

    def add(self, step: Step) -> None:
        """A step more."""
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
        self._append(METRICS, record, text(record))
        self._write(record["step"], record, "")

    def validated(self, step: int, measured: Measured) -> None:
        """A validation after a step; its time is the run's, and no line's."""
        self.seconds, self._started = self.seconds + measured.seconds, self._started + measured.seconds
        if self.console is None:
            return
        loss = measured.loss if math.isfinite(measured.loss) else None
        record = {"step": step, "loss": loss, "images": measured.images, "loss_by_bin": measured.by_bin}
        shown = _MISSING if loss is None else f"{loss:.5f}"
        self._append(
            VALIDATION, record, f"step {step}/{self.steps}  val loss {shown}  on {measured.images:,} images"
            f"  in {duration(measured.seconds)}",
        )  # fmt: skip
        self._write(step, {"loss": loss, "loss_by_bin": measured.by_bin}, "val/")

    def close(self) -> None:
        """No more lines."""
        for writer in self._writers:
            writer.close()

    def _append(self, name: str, record: dict[str, Any], said: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(record) + "\n")
        assert self.console is not None
        self.console.print(said, highlight=False, soft_wrap=True)

    def _record(self, steps: list[Step], took: float) -> dict[str, Any]:
        last = steps[-1]
        images, tokens, slots, flops, padded = (
            sum(getattr(s, name) for s in steps) for name in ("images", "tokens", "slots", "flops", "padded_flops")
        )
        finite = [s for s in steps if math.isfinite(s.loss) and math.isfinite(s.norm)]
        sums, counts = torch.stack([s.by_bin for s in finite]).sum(0).tolist() if finite else ([], [])
        rate = flops / took / self.devices / 1e12
        return {
            "step": last.number,
            "steps": self.steps,
            "epoch": last.epoch,
            "loss": _mean([s.loss for s in finite]),
            "lr": last.lr,
            "images_per_s": images / took,
            "tokens_per_s": tokens / took,
            "padding": 1 - tokens / slots if slots else 0.0,
            "data_wait": sum(s.wait for s in steps) / took,
            "tflops": rate,
            "mfu": rate / self.peak if self.peak else None,
            "hfu": padded / took / self.devices / 1e12 / self.peak if self.peak else None,
            "grad_norm": _mean([s.norm for s in finite]),
            "images": self.images,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "eta": (self.steps - last.number) * took / len(steps),
            "loss_by_bin": {
                name: loss / count for name, loss, count in zip(self.bins, sums, counts, strict=False) if count
            },
        }

    def _write(self, step: int, record: dict[str, Any], group: str) -> None:
        values = {f"{group}{name}": value for name, value in record.items() if isinstance(value, float)}
        values |= {f"{group}loss_by_bin/{name}": value for name, value in record["loss_by_bin"].items()}
        for writer in self._writers:
            writer.write(step, values)


def text(record: dict[str, Any]) -> str:
    """A record as one line."""
    loss = _MISSING if record["loss"] is None else f"{record['loss']:.5f}"
    norm = _MISSING if record["grad_norm"] is None else f"{record['grad_norm']:.3g}"
    share = _MISSING if record["mfu"] is None else f"{100 * record['mfu']:.1f} %"
    left = f"  {duration(record['eta'])} to go" if record["step"] < record["steps"] else ""
    skipped = f"  skipped {record['skipped']}" if record["skipped"] else ""
    return (
        f"step {record['step']:>{len(str(record['steps']))}}/{record['steps']}  loss {loss}  lr {record['lr']:.2e}  "
        f"{record['images_per_s']:,.1f} images/s  {_thousands(record['tokens_per_s'])} tokens/s  "
        f"pad {100 * record['padding']:.1f} %  wait {100 * record['data_wait']:.0f} %  "
        f"{record['tflops']:.3g} TFLOP/s  MFU {share}  norm {norm}{skipped}{left}"
    )


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def read(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics file; a line that a crash cut off is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _thousands(value: float) -> str:
    return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value / 1e3:.1f}k" if value >= 1e3 else f"{value:.0f}"

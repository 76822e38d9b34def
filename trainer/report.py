"""One page about a run, self-contained: how far the loss fell, what the model sees, where the time went."""

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

from shardkit import charts
from shardkit.charts import number, text
from shardkit.errors import ArgumentError
from trainer.curves import COLOURS, Line, chart, legend, smoothed
from trainer.log import METRICS, read

NAME = "report.html"
_PICTURES, _BINS = 6, 12
_STYLE = """<style>
.curve{width:100%;height:auto;max-width:760px} .curve text{font-size:12px;fill:#667} .curve .grid{stroke:#e4e8ee}
.curve path{fill:none} .curve .thin{stroke-width:1;opacity:.3} .curve .thick{stroke-width:2}
.curve .level{stroke:#b00020;stroke-dasharray:5 4} .curve text.level{fill:#b00020;stroke:none}
.key{margin-right:1em;white-space:nowrap} .key i{display:inline-block;width:.8em;height:.8em;margin-right:.35em}
.quad{display:flex;flex-wrap:wrap;gap:24px} .quad>div{flex:1 1 340px} img.grid{max-width:100%;height:auto}
</style>"""

Records = list[dict[str, Any]]


def write(run: Path) -> Path:
    """Write `report.html` into a run's folder. Raises ArgumentError for a folder that holds no run."""
    facts, records = run / "run.json", read(run / METRICS)
    if not facts.exists() or not records:
        raise ArgumentError(f"{run} has no {'steps' if facts.exists() else 'run'} to report: name the --out of a run")
    about: dict[str, Any] = json.loads(facts.read_text())
    body = [
        _STYLE,
        _head(about, records),
        _loss(about, records),
        _seen(run),
        _time(records),
        _bins(records),
        _config(about),
    ]
    path = run / NAME
    fresh = path.with_suffix(".part")
    fresh.write_text(charts.page(f"{about['recipe']}: training run", "\n".join(body)), "utf-8")
    fresh.replace(path)
    return path


def last_loss(records: Records) -> float | None:
    """Mean of the last tenth of the lines."""
    values = [r["loss"] for r in records[-max(1, len(records) // 10) :] if r["loss"] is not None]
    return sum(values) / len(values) if values else None


def _head(about: dict[str, Any], records: Records) -> str:
    last, loss = records[-1], last_loss(records)
    base = about["baseline"]["mean_image"] if about["baseline"] else None
    took = max(last["seconds"], 1e-9)
    tail = records[len(records) // 2 :]

    def mean(name: str) -> float:
        return float(sum(r[name] for r in tail) / len(tail))

    share = f"{100 * loss / base:.0f} % of the mean image's" if loss and base else "mean of the last tenth"
    mfu = "not known for this device" if last["mfu"] is None else f"MFU {100 * mean('mfu'):.1f} %"
    tiles = [
        ("Steps", f"{number(last['step'])} of {number(last['steps'])}", f"epoch {last['epoch']}"),
        ("Images seen", number(last["images"]), f"{took / 60:.1f} minutes"),
        ("Loss", "–" if loss is None else f"{loss:.4f}", share),
        ("Mean image's error", "–" if base is None else f"{base:.4f}", "what guessing the mean image costs"),
        ("Images a second", f"{mean('images_per_s'):,.1f}", f"{mean('tokens_per_s') / 1e3:,.1f}k tokens a second"),
        ("Waiting for data", f"{100 * mean('data_wait'):.0f} %", "of the time"),
        ("Padding", f"{100 * mean('padding'):.1f} %", "of tokens"),
        ("Compute", f"{mean('tflops'):.3g} TFLOP/s", mfu),
        ("Skipped", number(last["skipped"]), "steps without a finite loss"),
    ]
    boxes = "".join(
        f'<div class="tile"><span class="name">{text(name)}</span><b>{value}</b><span>{text(note)}</span></div>'
        for name, value, note in tiles
    )
    return (
        f"<h1>Training run: {text(about['recipe'])}</h1><p class=soft>{about['parameters'] / 1e6:,.1f} M parameters · "
        f"{about['world_size']} × {text(about['device'])} · dataset <code>{text(about['digest'][:12])}</code></p>"
        f'<div class="tiles">{boxes}</div>'
    )


def _points(records: Records, name: str) -> list[tuple[float, float | None]]:
    return [(r["step"], r[name]) for r in records]


def _loss(about: dict[str, Any], records: Records) -> str:
    points = _points(records, "loss")
    base = about["baseline"]
    level = ("mean image", base["mean_image"]) if base else None
    lines = [Line("each line of the log", points, thin=True), Line("mean over 5 %", smoothed(points))]
    return (
        "<h2>Loss</h2><p>Mean squared error over hidden patches by step, each image counting the same.</p>"
        f"{chart(lines, level=level)}<p>{legend(lines[1:])}</p>"
    )


def _seen(run: Path) -> str:
    paths = sorted((run / "pictures").glob("step_*.png"))
    if not paths:
        return ""
    earlier = paths[:-1]
    if len(earlier) > _PICTURES - 1:
        earlier = [earlier[round(i * (len(earlier) - 1) / (_PICTURES - 2))] for i in range(_PICTURES - 1)]
    more = "".join(_picture(path) for path in earlier)
    fold = f"<details><summary>Earlier steps</summary>{more}</details>" if more else ""
    return f"<h2>What the model sees and makes of it</h2>{_picture(paths[-1])}{fold}"


def _picture(path: Path) -> str:
    step = int(path.stem.removeprefix("step_"))
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p>Step {number(step)}</p><img class="grid" alt="step {step}" src="data:image/png;base64,{data}">'


def _time(records: Records) -> str:
    size = (420.0, 200.0)
    parts = [
        ("Images a second", Line("", _points(records, "images_per_s"))),
        ("Share of time waiting for data", Line("", _points(records, "data_wait"))),
        ("Learning rate", Line("", _points(records, "lr"))),
        ("Norm of the gradient", Line("", _points(records, "grad_norm"))),
    ]
    cells = "".join(f"<div><h3>{title}</h3>{chart([line], size=size)}</div>" for title, line in parts)
    return f'<h2>On the way</h2><div class="quad">{cells}</div>'


def _bins(records: Records) -> str:
    seen = Counter(name for r in records for name in r["loss_by_bin"])
    names = sorted(name for name, _ in seen.most_common(_BINS))
    lines = [
        Line(
            name,
            smoothed([(r["step"], r["loss_by_bin"].get(name)) for r in records if name in r["loss_by_bin"]]),
            COLOURS[at],
        )
        for at, name in enumerate(names)
    ]
    return (
        f"<h2>Loss by bin</h2><p>By the bin an image is stored in, height × width; the {len(lines)} fullest.</p>"
        f"{chart(lines)}<p>{legend(lines)}</p>"
    )


def _config(about: dict[str, Any]) -> str:
    rows = [[f"<code>--{text(name)}</code>", text(value)] for name, value in about["config"].items()]
    return "<h2>Configuration</h2>" + charts.table(["Option", "Value"], rows, kind="arguments")

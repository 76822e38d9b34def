"""One page about a run, self-contained: how far the loss fell, what the model sees, where the time went."""

import base64
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardkit.errors import ArgumentError
from shardkit.report import charts
from shardkit.report.charts import number, text
from trainer.report import curves
from trainer.report.curves import COLOURS, WINDOW, Line, Points, chart, legend, smoothed
from trainer.runs.files import whole
from trainer.runs.folder import facts
from trainer.runs.log import METRICS, VALIDATION, duration, read

NAME = "report.html"
_EARLIER, _BINS = 6, 12
_SMOOTH = f"{100 * WINDOW:.0f} %"
_STYLE = f"""{curves.STYLE}
@media(min-width:641px){{.tiles{{grid-template-columns:repeat(4,1fr)}}}}
.quad{{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:26px 44px;margin-top:16px}}
.split{{display:grid;grid-template-columns:minmax(0,1fr) 300px;gap:40px;align-items:start}}
.split .dot{{height:4px;vertical-align:middle}}
img.grid{{display:block;max-width:100%;height:auto;margin:4px 0 18px}}
summary{{cursor:pointer;color:var(--blue);margin:6px 0 14px}}
.options{{columns:3 330px;column-gap:44px;margin-top:16px}}.options div{{break-inside:avoid;padding-bottom:26px}}
.options td{{overflow-wrap:anywhere}}.options th{{white-space:nowrap}}.options td,.options th{{padding:3px 8px 3px 0}}
@media(max-width:980px){{.quad,.split{{grid-template-columns:minmax(0,1fr)}}}}
"""

Record = dict[str, Any]
Records = list[Record]


def write(run: Path) -> Path:
    """Write `report.html` into a run's folder, whole or not at all; returns its path.

    Raises ArgumentError where run.json is missing or not a run's, or no step has been logged.
    """
    about, records = facts(run), read(run / METRICS)
    if not records:
        raise ArgumentError(f"{run / METRICS} holds no whole line: report once the run has logged its first step")
    body = [
        _head(about, records),
        _loss(about, records, read(run / VALIDATION)),
        _seen(run),
        _way(records),
        _bins(records),
        _options(about),
    ]
    page = charts.page(f"{about['recipe']}: training run", "\n".join(part for part in body if part))
    path = run / NAME
    with whole(path) as fresh:
        # The first of them is the page's own: its title is escaped.
        fresh.write_bytes(page.replace("</style>", f"{_STYLE}</style>", 1).encode("utf-8", "backslashreplace"))
    return path


def last_loss(records: Records) -> float | None:
    """Mean of the finite losses of the last tenth of the lines; None where there are none."""
    return _mean(records[-max(1, len(records) // 10) :], "loss")


# ------------------------------------------------------------------------------------------------- numbers


def _value(record: Record, name: str) -> float | None:
    """A finite number, or None."""
    found = record.get(name)
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def _mean(records: Records, name: str) -> float | None:
    values = [v for v in (_value(record, name) for record in records) if v is not None]
    return sum(values) / len(values) if values else None


def _shown(value: float | None, how: Callable[[float], str]) -> str:
    return "–" if value is None else how(value)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _loss_value(value: float) -> str:
    return f"{value:.4f}" if 0.001 <= value < 1000 or not value else f"{value:.3g}"


def _baseline(about: dict[str, Any]) -> float | None:
    return _value(about["baseline"] or {}, "mean_image")


def _points(records: Records, name: str, scale: float = 1.0) -> Points:
    values = ((r["step"], _value(r, name)) for r in records)
    return [(step, None if value is None else scale * value) for step, value in values]


# --------------------------------------------------------------------------------------------------- parts


def _head(about: dict[str, Any], records: Records) -> str:
    last, late = records[-1], records[len(records) // 2 :]  # the first steps compile, and fill caches
    loss, base, mfu = last_loss(records), _baseline(about), _mean(late, "mfu")
    of_peak = "not known for this device" if mfu is None else f"HFU {_shown(_mean(late, 'hfu'), _percent)}"
    compute = f"{_shown(_mean(late, 'tflops'), '{:.3g}'.format)} TFLOP/s a device"
    of_base = f"{100 * loss / base:.0f} % of the mean-image baseline" if loss is not None and base else ""
    skipped = int(_value(last, "skipped") or 0)
    tiles = [
        ("Steps", number(last["step"]), f"of {number(last['steps'])}, in epoch {last['epoch']}"),
        ("Images seen", number(last["images"]), f"in {duration(last['seconds'])}"),
        ("Loss", _shown(loss, _loss_value), of_base or "mean of the last tenth of the log"),
        ("Mean-image baseline", _shown(base, _loss_value), "not measured" if base is None else "without a model"),
        ("Images a second", _shown(_mean(late, "images_per_s"), "{:,.1f}".format),
         f"{_shown(_mean(late, 'tokens_per_s'), number)} tokens a second"),
        ("Waiting for data", _shown(_mean(late, "data_wait"), _percent), "of the time"),
        ("Padding", _shown(_mean(late, "padding"), _percent), "of tokens"),
        ("MFU", _shown(mfu, _percent), f"{of_peak}; {compute}"),
    ]  # fmt: skip
    boxes = "".join(
        f'<div class="tile"><span class="name">{text(name)}</span><b>{text(value)}</b><span>{text(note)}</span></div>'
        for name, value, note in tiles
    )
    alert = (
        f'<p class="note alert">{number(skipped)} step{" was" if skipped == 1 else "s were"} skipped: the loss or the '
        "gradient was not finite, and the weights stayed as they were.</p>"
    )
    return (
        f'<h1>Training run: {text(about["recipe"])}</h1><p class="soft">{about["parameters"] / 1e6:,.1f} M parameters '
        f"· {text(about['world_size'])} × {text(about['device'])} · dataset <code>{text(about['data'])}</code>, digest "
        f'<code title="{text(about["digest"])}">{text(about["digest"][:12])}</code></p>'
        f'<div class="tiles">{boxes}</div><p class="soft">Loss: mean of the last tenth of the log. Speeds and shares: '
        f"means of its second half. MFU: operations that the images need, as a share of the device's peak; HFU: all "
        f"that are run, padding and filler too, without what attention computes again.</p>{alert if skipped else ''}"
    )


def _loss(about: dict[str, Any], records: Records, validations: Records) -> str:
    config, points, base = _flat(about["config"]), _points(records, "loss"), _baseline(about)
    over = "all patches, padding too" if config.get("model.loss") == "all" else "hidden patches"
    of = ", of patches normalised by their own mean and deviation" if config.get("model.norm_pix") else ""
    level = None if base is None else (f"mean image {_loss_value(base)}", base)
    lines = _calmed(points)
    if validations:
        lines.append(Line("on the val split", _points(validations, "loss"), COLOURS[7]))
    return (
        f"<h2>Loss</h2><p>Mean squared error over {over}{of}, each image counting the same. It does not say how "
        "useful the features are: only a task with labels does.</p>"
        f"{chart(lines, level=level, about='Loss by step')}<p>{legend(lines)}</p>"
    )


def _seen(run: Path) -> str:
    found = (re.fullmatch(r"step_(\d+)\.png", path.name) for path in (run / "pictures").glob("step_*.png"))
    steps = sorted((int(match[1]), match[0]) for match in found if match)
    if not steps:
        return ""
    *earlier, last = steps
    if len(earlier) > _EARLIER:
        earlier = [earlier[round(i * (len(earlier) - 1) / (_EARLIER - 1))] for i in range(_EARLIER)]
    folder = run / "pictures"
    more = "".join(_picture(folder / name, step) for step, name in earlier)
    fold = f"<details><summary>Earlier steps ({len(earlier)})</summary>{more}</details>" if more else ""
    return (
        "<h2>What the model sees and makes of it</h2><p>Hidden patches are grey in the second column and predicted in "
        "the third. In the fourth, black is no error, and white one of a third of the image’s range or more. Each "
        "line has its own image’s range of grey levels.</p>"
        '<p class="note">This page holds pictures of the data: share it only with those who may see them.</p>'
        f"{_picture(folder / last[1], last[0])}{fold}{_held_out(folder)}"
    )


def _held_out(folder: Path) -> str:
    """The last picture of images that are not trained on."""
    found = sorted(folder.glob("val_????????.png"))
    return f"<p>Of the val split:</p>{_picture(found[-1], int(found[-1].stem[4:]))}" if found else ""


def _picture(path: Path, step: int) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<h3>Step {number(step)}</h3><img class="grid" alt="step {step}" src="data:image/png;base64,{data}">'


def _way(records: Records) -> str:
    rate = _points(records, "lr")
    parts: list[tuple[str, list[Line], float | None, str]] = [
        ("Learning rate", [Line("learning rate", rate, COLOURS[0])], 0.0, ""),
        ("Norm of the gradient, before clipping", _calmed(_points(records, "grad_norm")), None, ""),
        ("Images a second", _calmed(_points(records, "images_per_s")), 0.0, ""),
        ("Waiting for data, share of the time", _calmed(_points(records, "data_wait", 100)), 0.0, " %"),
    ]
    cells = "".join(
        f"<div><h3>{title}</h3>{chart(lines, size=(560, 220), floor=floor, unit=unit, about=title)}</div>"
        for title, lines, floor, unit in parts
    )
    return (
        f"<h2>On the way</h2><p>Pale: lines of the log. Dark: means over {_SMOOTH} of them.</p>"
        f'<div class="quad">{cells}</div>'
    )


def _calmed(points: Points) -> list[Line]:
    return [Line("lines of the log", points, thin=True), Line(f"mean over {_SMOOTH}", smoothed(points), COLOURS[0])]


def _bins(records: Records) -> str:
    seen = Counter(name for record in records for name in record["loss_by_bin"])
    names = sorted((name for name, _ in seen.most_common(_BINS)), key=_area)
    if not names:
        return ""
    lines, rows = [], []
    for at, name in enumerate(names):
        # Most lines of the log have no image of a rare bin: the curve goes on over those.
        points = [(r["step"], _value(r["loss_by_bin"], name)) for r in records if name in r["loss_by_bin"]]
        lines.append(Line(_size(name), smoothed(points), COLOURS[at * len(COLOURS) // len(names)]))
        ends = [value for _, value in points[-max(1, len(points) // 10) :] if value is not None]
        last = _shown(sum(ends) / len(ends) if ends else None, _loss_value)
        rows.append([f'<i class="dot" style="background:{lines[-1].colour}"></i>{text(_size(name))}',
                     number(len(points)), last])  # fmt: skip
    left = f" The {len(names)} most frequent of {len(seen)}." if len(seen) > len(names) else ""
    table = charts.table(["Bin, height × width", "Lines", "Last loss"], rows, kind="dense")
    return (
        f"<h2>Loss by bin</h2><p>By the bin an image is stored in; means over {_SMOOTH} of a bin’s lines.{left}</p>"
        f'<div class="split">{chart(lines, size=(840, 380), about="Loss by step and bin")}<div>{table}</div></div>'
    )


def _sides(name: str) -> list[int]:
    return [int(side) for side in name.split("x")] if re.fullmatch(r"\d+x\d+", name) else []


def _area(name: str) -> tuple[int, str]:
    return math.prod(_sides(name)), name


def _size(name: str) -> str:
    return " × ".join(f"{side:,}" for side in _sides(name)) or name


def _options(about: dict[str, Any]) -> str:
    groups: dict[str, list[list[str]]] = {"run.json": []}
    for name in ("recipe", "init", "data", "digest", "parameters", "device", "world_size"):
        groups["run.json"].append([f"<code>{name}</code>", text(_plain(about.get(name)))])
    for name, value in _flat(about["config"]).items():
        groups.setdefault(name.partition(".")[0], []).append([f"<code>{text(name)}</code>", text(_plain(value))])
    tables = "".join(f"<div>{charts.table([text(name), ''], rows)}</div>" for name, rows in groups.items())
    return f'<h2>Configuration</h2><div class="options">{tables}</div>'


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value, of a nested dict or one that is flat already."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

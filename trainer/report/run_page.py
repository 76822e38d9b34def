"""One page about a run: how far the loss fell, what the model sees, where the time went."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardkit.errors import ArgumentError
from shardkit.report import Tile, number, render
from trainer.objectives import collapse
from trainer.objectives.losses import Loss
from trainer.objectives.masked import loss_meaning, picture_meaning
from trainer.report import by_bin, pictures, task
from trainer.report.curves import SMALL, WINDOW, Level, Line, Points, chart, smoothed
from trainer.runs.files import atomic_write
from trainer.runs.folder import facts
from trainer.runs.log import METRICS_FILE, VALIDATION_FILE, duration, read
from trainer.runs.training_data import members_normalised

NAME = "report.html"
_SMOOTH = f"{100 * WINDOW:.0f} %"

Record = dict[str, Any]
Records = list[Record]


def write(run: Path) -> Path:
    """Write `report.html` into a run's folder, whole or not at all.

    Parameters
    ----------
    run
        The folder, with `run.json`, `metrics.jsonl` and, where there are any, `validation.jsonl` and `pictures`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ArgumentError
        If run.json is missing or not a run's, or no step has been logged.
    """
    about, records = facts(run), read(run / METRICS_FILE)
    if not records:
        raise ArgumentError(f"{run / METRICS_FILE} holds no whole line: report once the run has logged its first step")
    config, validations = _flat(about["config"]), read(run / VALIDATION_FILE)
    objective, chosen = about.get("objective") or _masked(config), task.choice(config, validations)
    parts = {
        "classes": ("What it learns from", task.classes(about)),
        "loss": ("Loss", _loss(about, records, validations, chosen)),
        "metrics": ("Metrics", _metrics(records, validations, chosen)),
        "pictures": ("What the model sees and makes of it", pictures.found(run / "pictures")),
        "way": ("On the way", _way(records)),
        "bins": ("Loss by bin", by_bin.found(records, _loss_value)),
        "configuration": ("Configuration", _options(about, config)),
    }
    page = render(
        "run.html",
        "trainer.report",
        title=f"{run.resolve().name}: training run of {about['recipe']}",
        kind="Training run",
        name=f"{run.resolve().name}: {about['recipe']}",
        contents={id: title for id, (title, found) in parts.items() if found},
        about=about,
        objective=objective,
        smooth=_SMOOTH,
        held_out=task.split(validations),
        headline=_headline(about, records, validations, chosen),
        verdicts=[*task.verdicts(about, chosen), *_verdicts(about, records)],
        **{id: found for id, (_, found) in parts.items()},
    )
    path = run / NAME
    with atomic_write(path) as fresh:
        fresh.write_bytes(page)
    return path


def last_loss(records: Records) -> float | None:
    """Return the mean of the finite losses of the last tenth of the lines; None where there are none."""
    return _mean(records[-max(1, len(records) // 10) :], "loss")


# ------------------------------------------------------------------------------------------------- numbers


def _value(record: Record, name: str) -> float | None:
    """Return a finite number, or None."""
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


def _baseline(about: Record) -> tuple[str, float] | None:
    """Name and loss of what uses no model; None where it was not measured."""
    found = about["baseline"] or {}
    known = ((name.replace("_", " "), _value(found, name)) for name in found)
    return next(((name, value) for name, value in known if value is not None), None)


def _points(records: Records, name: str, scale: float = 1.0) -> Points:
    values = ((r["step"], _value(r, name)) for r in records)
    return [(step, None if value is None else scale * value) for step, value in values]


# ------------------------------------------------------------------------------------------------ headline


def _headline(about: Record, records: Records, validations: Records, chosen: Record | None) -> list[Tile]:
    last, late = records[-1], records[len(records) // 2 :]  # the first steps compile, and fill caches
    loss, base, mfu = last_loss(records), _baseline(about), _mean(late, "mfu")
    of_peak = "not known for this device" if mfu is None else f"HFU {_shown(_mean(late, 'hfu'), _percent)}"
    compute = f"{_shown(_mean(late, 'tflops'), '{:.3g}'.format)} TFLOP/s a device"
    tokens = f"{_shown(_mean(late, 'tokens_per_s'), number)} tokens a second"
    held = [("Loss", loss, "mean of the last tenth of the log")]
    if validations:
        held.append(
            (
                f"Loss on the {task.split(validations)} split",
                _value(validations[-1], "loss"),
                f"at step {validations[-1]['step']:,}",
            )
        )
    return [
        *task.tiles(chosen),
        Tile("Steps", number(last["step"]), f"of {number(last['steps'])}, in epoch {last['epoch']}"),
        Tile("Images seen", number(last["images"]), f"in {duration(last['seconds'])}"),
        *(_held(name, value, base, note) for name, value, note in held),
        *([_of_baseline(base)] if base else []),
        Tile("Images a second", _shown(_mean(late, "images_per_s"), "{:,.1f}".format), tokens),
        Tile("Waiting for data", _shown(_mean(late, "data_wait"), _percent), "of the time"),
        Tile("Padding", _shown(_mean(late, "padding"), _percent), "of tokens"),
        Tile("MFU", _shown(mfu, _percent), f"{of_peak}; {compute}"),
    ]


def _of_baseline(base: tuple[str, float]) -> Tile:
    return Tile(f"{base[0]} baseline".replace(" ", "-", 1).capitalize(), _loss_value(base[1]), "without a model")


def _held(name: str, value: float | None, base: tuple[str, float] | None, note: str) -> Tile:
    """Hold a loss against the baseline, where there is one."""
    if value is not None and base and base[1]:
        note = f"{100 * value / base[1]:.0f} % of the {base[0].replace(' ', '-')} baseline"
    return Tile(name, _shown(value, _loss_value), note, value is None or (base is not None and value > base[1]))


def _verdicts(about: Record, records: Records) -> list[tuple[str, str]]:
    """(kind, sentence): what a reader should know before any number."""
    loss, base, found = last_loss(records), _baseline(about), []
    skipped = int(_value(records[-1], "skipped") or 0)
    if loss is None:
        found.append(("alert", "No loss of the last tenth of the log is finite."))
    elif base is not None:
        name, value = base
        words = f"{_loss_value(loss)} against {_loss_value(value)} of the {name}"
        above = f"The loss stands above its baseline, {words}: so far the model is worse than none."
        below = f"The loss stands below its baseline, {words}: the model is better than none."
        found.append(("alert", above) if loss > value else ("good", below))
    if skipped:
        steps = "step was" if skipped == 1 else "steps were"
        why = "the loss or the gradient was not finite, and the weights stayed as they were"
        found.append(("alert", f"{skipped} {steps} skipped: {why}."))
    if said := _collapsed(records):
        found.append(("alert", f"{said[0].upper()}{said[1:]}."))
    if uncounted := int(_value(records[-1], "uncounted") or 0):
        steps, own = ("step", "its") if uncounted == 1 else ("steps", "their")
        why = f"no image of {own} batches counts in the loss, and the weights stayed as they were"
        found.append(("", f"{uncounted} {steps} changed nothing: {why}."))
    return found


def _collapsed(records: Records) -> str:
    """Say that features of the last tenth of the log have collapsed; empty where they have not."""
    last = [record["metrics"] for record in records[-max(1, len(records) // 10) :] if record.get("metrics")]
    means = {name: _mean(last, name) for name in dict.fromkeys(name for each in last for name in each)}
    return collapse.alarm(means) if collapse.settled(records[-1]["step"], records[-1]["steps"]) else ""


def _masked(config: Record) -> dict[str, str]:
    """Say what the objective of a run is that was begun before objectives said so."""
    over: Loss = "all" if config.get("model.loss") == "all" else "masked"
    norm_pix = bool(config.get("model.norm_pix"))
    return {"loss": loss_meaning(norm_pix, over), "picture": picture_meaning(norm_pix)}


# ------------------------------------------------------------------------------------------------- sections


def _loss(about: Record, records: Records, validations: Records, chosen: Record | None) -> Record:
    base, lines = _baseline(about), task.marked(_both(records, validations, "loss"), "loss", chosen)
    level = Level(f"{base[0]} {_loss_value(base[1])}", base[1]) if base else None
    keys = [*lines, Line("above the baseline", (), "red")] if base else lines
    return {"chart": chart(lines, title="Loss", level=level), "keys": keys}


def _metrics(records: Records, validations: Records, chosen: Record | None) -> Record | None:
    """Draw what else the objective measures, in training and on the val split, the metric chosen by first."""
    trained, held = (
        [{**r["metrics"], "step": r["step"], "split": r.get("split", "val")} for r in of if r.get("metrics")]
        for of in (records, validations)
    )
    found = dict.fromkeys(name for r in (*trained, *held) for name in r if name not in ("step", "split"))
    names = sorted(found, key=lambda name: chosen is None or name != chosen["metric"])
    drawn = [(name, task.marked(_both(trained, held, name), name, chosen)) for name in names]
    if not drawn:
        return None
    charts = [{"title": name, "chart": chart(of, title=name, extent=SMALL)} for name, of in drawn]
    keys = {line.name: line for _, of in sorted(drawn, key=lambda each: len(each[1])) for line in of}
    return {"charts": charts, "keys": list(keys.values())}


def _both(records: Records, validations: Records, name: str) -> list[Line]:
    """Return the curves of a value: the log's lines, and the val split where it was measured."""
    trained, *mean = _calmed(_points(records, name))
    held = [Line(f"on the {task.split(validations)} split", _points(validations, name), "amber")] if validations else []
    return [trained, *held, *mean] if any(value is not None for _, value in trained.points) else held


def _way(records: Records) -> list[Record]:
    parts: list[tuple[str, list[Line], float | None, str]] = [
        ("Learning rate", [Line("learning rate", _points(records, "lr"))], 0.0, ""),
        ("Norm of the gradient, before clipping", _calmed(_points(records, "grad_norm")), None, ""),
        ("Images a second", _calmed(_points(records, "images_per_s")), 0.0, ""),
        ("Waiting for data, share of the time", _calmed(_points(records, "data_wait", 100)), 0.0, " %"),
    ]
    return [
        {"title": title, "chart": chart(lines, title=title, extent=SMALL, floor=floor, unit=unit)}
        for title, lines, floor, unit in parts
    ]


def _calmed(points: Points) -> list[Line]:
    return [Line("lines of the log", points, thin=True), Line(f"mean over {_SMOOTH}", smoothed(points))]


def _options(about: Record, config: Record) -> dict[str, list[list[str]]]:
    names = ("recipe", "init", "data", "digest", "parameters", "device", "world_size")
    groups = {"run.json": [[name, _plain(about.get(name))] for name in names]}
    for name, value in config.items():
        groups.setdefault(name.partition(".")[0], []).append([name, _plain(value)])
    for member, how in members_normalised(about).items():
        if how != config.get("loader.normalise"):
            groups.setdefault("loader", []).append([f"loader.normalise of {member}", how])
    return groups


def _flat(config: Record, prefix: str = "") -> Record:
    """Dotted name -> value, of a nested dict or one that is flat already."""
    found: Record = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

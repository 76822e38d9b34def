"""What labels add to the page of a run: what it learns from, which checkpoint it chose by what, what to beware of."""

from typing import Any

from shardkit.report import Tile, number
from trainer.report.curves import Line

Record = dict[str, Any]
Records = list[Record]


def split(validations: Records) -> str:
    """Return the name of the split that validations are of."""
    return str(validations[-1].get("split", "val")) if validations else "val"


def choice(config: Record, validations: Records) -> Record | None:
    """Return metric, split, step and value of the best checkpoint; None where none is chosen, or none yet."""
    metric = config.get("select.metric")
    best = [record for record in validations if record.get("best")]
    if not metric or not best:
        return None
    value = best[-1].get("metrics", {}).get(metric, best[-1].get(metric))
    return {"metric": metric, "split": split(best), "step": best[-1]["step"], "value": value}


def tiles(chosen: Record | None) -> list[Tile]:
    """Return the tile of the best checkpoint."""
    if chosen is None:
        return []
    where = f"on the {chosen['split']} split, at step {chosen['step']:,}"
    return [Tile(f"Best {chosen['metric']}", f"{chosen['value']:.4g}", where)]


def verdicts(about: Record, chosen: Record | None) -> list[tuple[str, str]]:
    """(kind, sentence): what to beware of, and which checkpoint is meant where the run is named."""
    found = [("alert", _sentence(note)) for note in about.get("notes", [])]
    found += [("alert", sentence) for sentence in _changed(about)]
    selection = about.get("selection", {})
    if selection.get("ended"):
        why = f"{selection['since']} validations without a better {selection['metric']}"
        found.append(("", f"The run ended early, after {why}."))
    if chosen is not None:
        by = f"by the {chosen['metric']} of the {chosen['split']} split"
        found.append(("good", f"The best checkpoint, {by}, is that of step {chosen['step']:,}: it is kept in best."))
    return found


def _changed(about: Record) -> list[str]:
    """Say where another dataset or other labels came."""
    names = {"digest": "dataset", "targets_digest": "labels"}
    found = []
    for step, change in about.get("changes", {}).items():
        if what := " and the ".join(word for name, word in names.items() if name in change):
            found.append(
                f"The {what} changed after step {int(step):,}: what was measured up to there does not compare."
            )
    return found


def marked(lines: list[Line], name: str, chosen: Record | None) -> list[Line]:
    """Return the lines of a metric with an upright one at the best checkpoint, where it was chosen by this metric."""
    values = [value for line in lines for _, value in line.points if value is not None]
    if chosen is None or chosen["metric"] != name or not values:
        return lines
    here = Line(f"best, step {chosen['step']:,}", [(chosen["step"], at) for at in (min(values), max(values))], "green")
    return [here, *lines]


def classes(about: Record) -> Record | None:
    """Return what the labels say of the training split, as a table; None for a run without labels."""
    of = about.get("objective", {})
    if "classes" not in of:
        return None
    columns = {"Class": of["classes"], "Images known": [number(n) for n in of["known"]]}
    if of["task"] == "regression":
        columns |= {name.capitalize(): [f"{v:.4g}" for v in of[name]] for name in ("mean", "deviation")}
    else:
        columns["Positive"] = [number(n) for n in of["positive"]]
        pairs = zip(of["positive"], of["known"], strict=True)
        columns["Share"] = [f"{100 * one / known:.1f} %" if known else "–" for one, known in pairs]
        if set(of["weight"]) | set(of["negative_weight"]) != {1.0}:
            columns["Weight of a positive"] = [f"{weight:.3g}" for weight in of["weight"]]
    counts = f"{of['labelled']:,} of the {of['trained']:,} images of the training split have a label"
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return {"head": list(columns), "rows": rows, "about": f"{counts}; the others do not count."}


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."

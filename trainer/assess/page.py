"""The tables of an assessment: in the terminal, and with curves over the share of the labels on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Column
from rich.table import Table as Grid

from shardkit.report import SERIES, Plot, colour, render, svg
from shardkit.terminal.output import Terminal
from trainer.assess.record import Table
from trainer.assess.study import LINEAR, Result
from trainer.report.curves import Line
from trainer.runs.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "index.html"


def say(table: Table, console: Terminal) -> None:
    """Print a table."""
    grid = Grid(
        Column("site"),
        Column("features"),
        Column("by"),
        *(Column(_share(fraction), justify="right") for fraction in table.fractions),
        title=f"{table.labels}: {_words(table)}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for site, source, method, results in table.rows():
        *few, whole = results
        grid.add_row(site, source, method, *(_value(result) for result in few), cell(whole))
    console.print(grid)
    for _, sentence in table.notes:
        console.plain(sentence)


def write(out: Path, about: Mapping[str, Any], tables: Sequence[Table]) -> Path:
    """Write the page, whole or not at all."""
    page = render(
        "assess.html",
        "trainer.assess",
        title=f"What {about['weights']} is worth",
        kind="Frozen features",
        name=str(about["weights"]),
        contents={table.labels: table.labels for table in tables},
        about=about,
        sections=[_section(table) for table in tables],
    )
    path = out / NAME
    with atomic_write(path) as fresh:
        fresh.write_bytes(page)
    return path


def _value(result: Result) -> str:
    mean = result.estimates.mean
    return "–" if mean.value is None else f"{mean.value:.3f}"


def cell(result: Result) -> str:
    """Return a score with its interval; in place of one why there is none."""
    mean = result.estimates.mean
    if mean.value is None:
        return mean.reason
    if mean.low is None or mean.high is None:
        return f"{mean.value:.3f}"
    return f"{mean.value:.3f} ({mean.low:.3f}–{mean.high:.3f})"


def _section(table: Table) -> dict[str, Any]:
    rows = [[site, source, method, *map(cell, results)] for site, source, method, results in table.rows()]
    plots = [{"site": site, "svg": svg(_curves(table, site))} for site in table.judged.sites]
    return {
        "labels": table.labels,
        "words": _words(table),
        "notes": table.notes,
        "titles": ["site", "features", "by", *map(_share, table.fractions)],
        "rows": rows,
        "plots": plots,
        "keys": [Line(name, (), tone) for name, tone in zip(_sources(table), SERIES, strict=False)],
        "learnt": _learnt(table),
        "classes": _classes(table),
    }


def _words(table: Table) -> str:
    asked = ", ".join(f"{len(keys):,} images of {site}" for site, keys in table.judged.tested.items())
    score = {"auc": "AUC", "mae": "mean absolute error"}[table.score]
    return f"{score} on {table.judged.asked} ({asked}), by the share of the training patients whose labels are used"


def _share(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _sources(table: Table) -> list[str]:
    return list(dict.fromkeys(result.source for result in table.judged.results))


def _learnt(table: Table) -> str:
    """Say how many patients and images each share is."""
    first = {result.fraction: result for result in reversed(table.judged.results)}
    said = [f"{_share(f)}: {first[f].patients:,.0f} patients, {first[f].images:,.0f} images" for f in table.fractions]
    return "; ".join(said)


def _classes(table: Table) -> dict[str, Any] | None:
    """Return the scores of single classes with all labels, where there are several that differ."""
    whole = [r for r in table.judged.results if r.fraction == max(table.fractions) and r.method == LINEAR]
    names = [one.name for one in whole[0].estimates.of]
    if len(names) < 3 and table.judged.kind != "multilabel":
        return None
    rows = [
        [r.site, r.source, *("–" if one.value is None else f"{one.value:.3f}" for one in r.estimates.of)] for r in whole
    ]
    return {"titles": ["site", "features", *names], "rows": rows}


def _curves(table: Table, site: str) -> Plot:
    """Draw logistic regression solid and neighbours dashed, over the share of the patients."""
    rows = [(source, method, results) for at, source, method, results in table.rows() if at == site]
    tones = dict(zip(_sources(table), SERIES, strict=False))

    def draw(axes: Axes) -> None:
        for source, method, results in rows:
            tone, style = colour(tones[source]), "-" if method == LINEAR else ":"
            there = [(r.fraction, r.estimates.mean) for r in results]
            points = [(share, of.value) for share, of in there if of.value is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], style, marker="o", ms=3.5, color=tone)
            for share, of in there if method == LINEAR else ():
                if of.low is not None and of.high is not None:
                    axes.vlines(share, of.low, of.high, tone, lw=1)
        axes.set_xscale("log")
        axes.set_xticks(table.fractions, list(map(_share, table.fractions)))
        axes.minorticks_off()
        axes.set(xlabel="share of the training patients", ylabel=table.score.upper())

    told = "; ".join(f"{source}, {method}: " + ", ".join(map(cell, results)) for source, method, results in rows)
    return Plot(draw, f"{site}, {table.labels}. {told}", site, (440.0, 280.0))

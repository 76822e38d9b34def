"""Plots with matplotlib, as SVG that belongs to a page, or as a PNG beside it."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from shardkit.report import theme

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 560.0  # points: plots above have larger letters on narrow screens
_COLOURS = {values[0]: f"var(--{name})" for name, values in theme.PALETTE.items()}
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": theme.colour("pale"),
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": theme.colour("soft"),
    "axes.labelpad": 7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 12,
    "figure.facecolor": "none",
    "font.size": 11,
    "grid.color": theme.colour("line"),
    "legend.frameon": False,
    "legend.labelcolor": theme.colour("ink"),
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "path.simplify": False,  # it depends on what is drawn beside
    "svg.fonttype": "none",
    "svg.hashsalt": "shardkit",
    "text.color": theme.colour("ink"),
    "text.parse_math": False,
    "xtick.color": theme.colour("soft"),
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": theme.colour("soft"),
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing, and what it shows in words.

    Parameters
    ----------
    draw
        Draws on axes. Colours are those of `colour`; a `gid` of an artist becomes the class of its SVG element.
    about
        What a reader who does not see the drawing should know, with its numbers.
    title
        Above the drawing.
    extent
        Width and height in points. On a page the drawing is as wide as its place.
    keys
        (name, colour in the palette) of each series, where there are several: the page shows them below.
    """

    draw: Callable[[Axes], None]
    about: str
    title: str = ""
    extent: tuple[float, float] = (440.0, 240.0)
    keys: tuple[tuple[str, str], ...] = ()


def svg(plot: Plot) -> Markup:
    """Return a plot for a page: letters stay text, and colours are the page's variables.

    Parameters
    ----------
    plot : Plot
        What is drawn.

    Returns
    -------
    Markup
        An `<svg>` element.
    """
    with _style():
        figure = _figure(plot.extent)
        axes = figure.add_subplot()
        plot.draw(axes)
        file = io.StringIO()
        _tidy(figure)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    width, height = plot.extent
    parts = _parts(ElementTree.fromstring(file.getvalue()))
    drawn = "".join(ElementTree.tostring(part, "unicode") for part in parts)
    kind = "plot wide" if width > _WIDE else "plot"
    head = Markup('<svg class="{}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">')
    return head.format(kind, width, height, plot.about) + Markup(f"{drawn}</svg>")


def save_png(plots: Sequence[Plot], path: Path) -> None:
    """Write plots beside each other into one PNG, at most three in a row; four make two rows.

    Parameters
    ----------
    plots : sequence of Plot
        What is drawn.
    path : Path
        The file.
    """
    columns = min(len(plots), 3 if len(plots) != 4 else 2)
    rows = [plots[at : at + columns] for at in range(0, len(plots), columns)]
    widths = [max(row[at].extent[0] for row in rows if at < len(row)) for at in range(columns)]
    heights = [max(plot.extent[1] for plot in row) for row in rows]
    with _style():
        keys = dict(key for plot in plots for key in plot.keys)
        figure = _figure((sum(widths), sum(heights) + 24 * len(rows) + 20 * len(keys)))
        grid = figure.add_gridspec(len(rows), columns, width_ratios=widths, height_ratios=heights)
        for at, plot in enumerate(plots):
            axes = figure.add_subplot(grid[at // columns, at % columns])
            plot.draw(axes)
            axes.set_title(plot.title)
        if keys:
            figure.legend(handles=_handles(keys), loc="outside lower center", ncols=min(3, len(keys)))
        figure.savefig(path, format="png", dpi=110, facecolor="white", metadata={"Software": None})


@contextmanager
def _style() -> Iterator[None]:
    """Our settings and nobody else's: a user's or a machine's would change the bytes."""
    with _quiet():
        import matplotlib as mpl

        with mpl.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of letters that its own font lacks: the page's may have them
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            yield


@contextmanager
def _quiet() -> Iterator[None]:
    """No word of where matplotlib keeps its list of fonts."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def load() -> None:
    """Load what `svg` draws with, so that the first drawing need not."""
    with _quiet():
        import matplotlib.backends.backend_svg
        import matplotlib.figure  # noqa: F401


def _figure(extent: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(extent[0] / 72, extent[1] / 72), layout="constrained")


def _handles(keys: dict[str, str]) -> list[Artist]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=theme.colour(name), lw=3, label=label) for label, name in keys.items()]


def _tidy(figure: Figure) -> None:
    """No background, nothing clipped (a clip is a reference within the page), no character that XML does not have."""
    from matplotlib.text import Text

    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    for artist in figure.findobj():
        artist.set_clip_on(False)
        if isinstance(artist, Text):
            artist.set_text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in artist.get_text()))


def _parts(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Return what is drawn, without names that a second drawing of the page would have too."""
    shapes = {element.get("id"): element for element in root.iter() if _tag(element) == "path" and element.get("id")}
    return [part for child in root for part in _converted(child, shapes)]


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _converted(
    element: ElementTree.Element, shapes: dict[str | None, ElementTree.Element]
) -> list[ElementTree.Element]:
    tag = _tag(element)
    if tag in ("defs", "metadata", "style"):
        return []
    if tag == "use":
        shape = shapes[element.get("{http://www.w3.org/1999/xlink}href", "").removeprefix("#")]
        at = f"translate({element.get('x', '0')} {element.get('y', '0')})"
        found = {"d": shape.get("d", ""), "transform": at, "style": element.get("style", shape.get("style", ""))}
        return [_element("path", found)]
    children = [part for child in element for part in _converted(child, shapes)]
    named = re.match(r"class:(.*)", element.get("id", ""))
    if tag == "g" and not named:
        return children
    attributes = {name: value for name, value in element.attrib.items() if name != "id"}
    new = _element(tag, attributes | ({"class": named[1]} if named else {}))
    new.text = (element.text or "").strip() or None
    new.extend(children)
    return [new]


def _element(tag: str, attributes: dict[str, str]) -> ElementTree.Element:
    """One with colours of the page, without fonts, and with a tenth of a point as the finest step."""
    found = {}
    for name, value in attributes.items():
        if name == "style":
            pairs = [pair.strip() for pair in value.split(";")]
            value = ";".join(pair.replace(": ", ":") for pair in pairs if pair and not pair.startswith("font"))
            value = re.sub(r"#[0-9a-f]{6}", lambda match: _COLOURS.get(match[0], match[0]), value)
        elif name in ("d", "x", "y", "transform"):
            value = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), value)
            value = re.sub(r"\s*([MLHVCQZz])\s*", r"\1", value).strip()
        if value and not value.startswith("rotate(-0 "):
            found[name] = value
    return ElementTree.Element(tag, found)

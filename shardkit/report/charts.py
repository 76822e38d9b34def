"""Numbers to HTML and SVG by hand: a report needs no plotting library, no script, no network.

Whatever comes from outside passes `text` on its way into the page.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_SIDE = 700.0  # of the map's longer axis, in units of its drawing
_LEFT, _TOP, _RIGHT, _BOTTOM = 58.0, 14.0, 14.0, 74.0  # the map's margins
_CELLS = 64  # along the map's longer axis
_BLUES = ("#dbe8f4", "#b3d1ea", "#83b4dc", "#4e90c6", "#2569a6", "#0e3f70")
_LETTER, _LINE = 6.1, 12.0  # room that a letter and a line of the map's labels take
_MARGIN = 3.0


def text(value: object) -> str:
    """Anything, made safe inside an element or a quoted attribute."""
    return html.escape(str(value), quote=True)


def number(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{round(value):,}"


def percent(part: float, whole: float) -> str:
    """`part` of `whole` in percent; a dash when there is no whole."""
    if not whole:
        return "–"
    share = 100 * part / whole
    return "&lt; 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def size(count: int) -> str:
    """Bytes in decimal units, three digits or more."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    digits = 0 if units[0] == "bytes" or value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {units[0]}"


def bar(share: float, tone: str = "") -> str:
    """A bar as wide as `share` (0 to 1) of its cell; anything above 0 stays visible."""
    width = min(1.0, max(share, 0.006 if share > 0 else 0.0)) * 100
    return (
        f'<svg class="bar {tone}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{width:.2f}" height="8"/></svg>'
    )


def stacked(parts: Sequence[tuple[str, int]]) -> str:
    """One bar of several (tone, count) parts, to the full width."""
    total, at, rects = sum(count for _, count in parts), 0.0, []
    for tone, count in parts:
        width = 1000 * count / total if total else 0.0
        rects.append(f'<rect class="{tone}" x="{at:.2f}" width="{width:.2f}" height="8"/>')
        at += width
    return (
        f'<svg class="stack" viewBox="0 0 1000 8" preserveAspectRatio="none" aria-hidden="true">{"".join(rects)}</svg>'
    )


def bars(title: str, rows: Sequence[tuple[str, int]], whole: int, note: str = "") -> str:
    """A card of labelled bars: (label, count) as they come, shares of `whole`. `title`, `note` are HTML."""
    top = max((count for _, count in rows), default=0) or 1
    lines = "".join(
        f'<tr><th scope="row">{text(label)}</th><td>{bar(count / top)}</td>'
        f"<td>{number(count)}</td><td class=soft>{percent(count, whole)}</td></tr>"
        for label, count in rows
    )
    body = f"<table class=card-rows>{lines}</table>" if rows else "<p class=soft>none</p>"
    return f"<div class=card><h3>{title}</h3>{body}{f'<p class=soft>{note}</p>' if note else ''}</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str] = (), kind: str = "") -> str:
    """A table; cells are HTML already, the first of a row names it."""
    body = "".join(_line(row) for row in rows)
    end = f"<tfoot>{_line(foot)}</tfoot>" if foot else ""
    start = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return f'<table class="{kind}"><thead><tr>{start}</tr></thead><tbody>{body}</tbody>{end}</table>'


def _line(cells: Sequence[str]) -> str:
    rest = "".join(f"<td>{cell}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{cells[0]}</th>{rest}</tr>'


def figure(row: Mapping[str, Any], source: str | None) -> str:
    """A sample's picture with its content box and caption; a placeholder where there is no `source`.

    `row` is a row of the manifest, `source` a data URI.
    """
    kind = " · ".join(text(row[name]) for name in ("body_part", "view") if row[name]) or "part not stated"
    key = text(row["key"])
    frame = (
        f'<div class="frame missing"><span>cannot be read, run verify<br><code>{key}</code></span></div>'
        if source is None
        else f'<div class="frame">{_picture(row, source)}</div>'
    )
    return (
        f'<figure>{frame}<figcaption><code title="{key}">{text(row["key"][:10])}</code><br>'
        f"{row['height']:,} × {row['width']:,} px · {row['bits']} bit<br>{kind}</figcaption></figure>"
    )


def _picture(row: Mapping[str, Any], source: str) -> str:
    high, wide = row["height"], row["width"]
    sides = (("left", wide), ("top", high), ("width", wide), ("height", high))
    box = "".join(f"{name}:{100 * row[f'box_{name}'] / whole:.2f}%;" for name, whole in sides)
    return (
        f'<div class="picture" style="{"width" if wide >= high else "height"}:100%;aspect-ratio:{wide}/{high}">'
        f'<img alt="{text(row["key"])}" src="{source}"><i style="{box}"></i></div>'
    )


@dataclass(frozen=True, slots=True)
class SizeMap:
    """Where image sizes lie and which bin takes them: a density, never a mark a sample.

    heights, widths: pixels, shape (n,). bins: (height, width, samples) each. patch: pixels a side.
    """

    heights: npt.NDArray[Any]
    widths: npt.NDArray[Any]
    bins: Sequence[tuple[int, int, int]]
    patch: int
    _scale: float = field(init=False)
    _extent: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        tallest = max([b[0] for b in self.bins] + [int(self.heights.max(initial=1))])
        widest = max([b[1] for b in self.bins] + [int(self.widths.max(initial=1))])
        object.__setattr__(self, "_extent", (tallest, widest))
        object.__setattr__(self, "_scale", _SIDE / max(tallest, widest))

    def svg(self) -> str:
        """The drawing: cells, then edges of bins, then counts, with axes and a legend."""
        cells, legend = self._density()
        width = _LEFT + self._extent[1] * self._scale + _RIGHT
        height = _TOP + self._extent[0] * self._scale + _BOTTOM
        return (
            f'<svg class="map" viewBox="0 0 {max(width, 460):.0f} {height:.0f}" role="img" '
            'aria-label="Density of image sizes in pixels, with the bins drawn over">'
            f"{cells}{self._edges()}{self._labels()}{self._axes()}{legend}</svg>"
        )

    def _x(self, pixels: float) -> float:
        return _LEFT + pixels * self._scale

    def _y(self, pixels: float) -> float:
        return _TOP + (self._extent[0] - pixels) * self._scale

    def _density(self) -> tuple[str, str]:
        """(cells, legend). A cell is closed above, as bins are: an image of a bin's very size lies inside."""
        cell = self.patch * max(1, -(-max(self._extent) // (self.patch * _CELLS)))
        rows, cols = (-(-extent // cell) for extent in self._extent)
        flat = (self.heights.astype(np.int64) - 1) // cell * cols + (self.widths.astype(np.int64) - 1) // cell
        counts = np.bincount(flat, minlength=rows * cols)
        used = np.flatnonzero(counts)
        if not len(used):
            return "", self._legend([], cell)
        steps_up = np.geomspace(1, max(2, counts.max()), len(_BLUES) + 1)[:-1]
        floors = np.unique(np.ceil(steps_up - 1e-9)).astype(int)
        tones = np.linspace(0, len(_BLUES) - 1, len(floors)).round().astype(int)
        classes = np.searchsorted(floors, counts[used], side="right") - 1
        paths, side, steps = [], cell * self._scale, []
        for i, tone in enumerate(tones):
            at = used[classes == i]
            corners = zip(self._x(0) + at % cols * side, self._y(0) - (at // cols + 1) * side, strict=True)
            d = "".join(f"M{x:.1f} {y:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z" for x, y in corners)
            paths.append(f'<path fill="{_BLUES[tone]}" d="{d}"/>')
            last = int(floors[i + 1]) - 1 if i + 1 < len(floors) else int(counts.max())
            if last >= floors[i]:
                steps.append((_BLUES[tone], int(floors[i]), last))
        return "".join(paths), self._legend(steps, cell)

    def _legend(self, steps: list[tuple[str, int, int]], cell: int) -> str:
        y, x, out = self._y(0) + 50, _LEFT, []
        for colour, low, high in steps:
            label = number(low) if low == high else f"{number(low)}–{number(high)}"
            out.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="12" height="12" fill="{colour}"/>')
            out.append(f'<text x="{x + 16:.0f}" y="{y + 10:.0f}">{label}</text>')
            x += 30 + _LETTER * len(label)
        out.append(f'<text x="{x:.0f}" y="{y + 10:.0f}">images a cell of {cell} × {cell} px</text>')
        return "".join(out)

    def _owners(self) -> tuple[Ints, Ints, Ints]:
        """(row edges, column edges, index of the smallest bin that holds each field between them, or -1)."""
        rows = np.unique([b[0] for b in self.bins]).astype(np.int64)
        cols = np.unique([b[1] for b in self.bins]).astype(np.int64)
        owners = np.full((len(rows), len(cols)), -1, np.int64)
        # From the largest to the smallest, so that what stays visible is the smallest containing bin.
        for _, i in sorted(((b[0] * b[1], i) for i, b in enumerate(self.bins)), reverse=True):
            owners[(rows <= self.bins[i][0])[:, None] & (cols <= self.bins[i][1])] = i
        return rows, cols, owners

    def _edges(self) -> str:
        """Lines between sizes that go to different bins."""
        if not self.bins:
            return ""
        rows, cols, owners = self._owners()
        down, across = np.append(0, rows), np.append(0, cols)
        framed = np.pad(owners, ((0, 1), (0, 1)), constant_values=-1)
        path = []
        for r, c in np.argwhere(framed[:-1, :-1] != framed[1:, :-1]):
            path.append(f"M{self._x(across[c]):.1f} {self._y(down[r + 1]):.1f}H{self._x(across[c + 1]):.1f}")
        for r, c in np.argwhere(framed[:-1, :-1] != framed[:-1, 1:]):
            path.append(f"M{self._x(across[c + 1]):.1f} {self._y(down[r]):.1f}V{self._y(down[r + 1]):.1f}")
        return f'<path class="edge" d="{"".join(path)}"/>'

    def _labels(self) -> str:
        """A dot at each bin's corner, its count below; where there is no room, fuller bins keep theirs."""
        taken: list[tuple[float, float, float, float]] = []
        out = []
        for high, wide, count in sorted(self.bins, key=lambda b: (-b[2], b)):
            x, y, room = self._x(wide), self._y(high), _LETTER * len(number(count))
            about = f"<title>bin {high:,} × {wide:,} px (height × width): {number(count)} samples</title>"
            out.append(f'<circle class="corner" cx="{x:.1f}" cy="{y:.1f}" r="2.4">{about}</circle>')
            for drop in (0.0, _LINE):
                box = (x - _MARGIN - room, y + drop + 1, x - _MARGIN, y + drop + 1 + _LINE)
                free = all(box[2] < t[0] or t[2] < box[0] or box[3] < t[1] or t[3] < box[1] for t in taken)
                if free and box[0] >= _LEFT and box[3] <= self._y(0):
                    taken.append(box)
                    at = f'x="{box[2]:.1f}" y="{box[3] - 2:.1f}"'
                    out.append(f'<text class="count" {at}>{number(count)}</text>')
                    break
        return "".join(out)

    def _axes(self) -> str:
        """Ticks at round numbers of pixels, with names."""
        tall, wide = self._extent
        x, y = self._x(0), self._y(0)
        step = next((s for s in (16, 32, 64, 128, 256, 512) if max(tall, wide) / s <= 7), 1024)
        while max(tall, wide) / step > 12:
            step *= 2
        out = [f'<path class="axis" d="M{x:.1f} {self._y(tall):.1f}V{y:.1f}H{self._x(wide):.1f}"/>']
        for v in range(0, wide + 1, step):
            out.append(f'<text class="mid" x="{self._x(v):.1f}" y="{y + 16:.1f}">{v:,}</text>')
        for v in range(step, tall + 1, step):
            out.append(f'<text class="end" x="{x - 6:.1f}" y="{self._y(v) + 4:.1f}">{v:,}</text>')
        middle = self._y(tall / 2)
        out.append(f'<text class="mid" x="{self._x(wide / 2):.1f}" y="{y + 35:.1f}">width, pixels</text>')
        turn = f"translate(14 {middle:.1f}) rotate(-90)"
        out.append(f'<text class="mid" transform="{turn}">height, pixels</text>')
        return "".join(out)


STYLE = """
:root{--ink:#1b2430;--soft:#5d6978;--line:#dde3ea;--wash:#f5f7fa;--blue:#2f6fad;--written:#2c7d66;--dropped:#c08a2b;
--quarantined:#b5434d;color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:1280px;margin:0 auto;padding:36px 28px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px;font-weight:650;letter-spacing:-.01em}
h2{font-size:20px;margin:52px 0 6px;padding-top:14px;border-top:2px solid var(--ink);font-weight:650}
h3{font-size:14px;margin:0 0 8px;font-weight:650}
p{margin:6px 0 14px;max-width:78ch}code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.soft{color:var(--soft);font-weight:400}.card p{font-size:12.5px;margin:8px 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));border:solid var(--line);
border-width:1px 0 0 1px;margin:22px 0 18px}
.tile{border:solid var(--line);border-width:0 1px 1px 0;padding:13px 16px 12px}
.tile b{display:block;font-size:25px;line-height:1.25;font-weight:600;letter-spacing:-.01em}
.tile span{display:block;font-size:12.5px;color:var(--soft)}.tile .name{color:var(--ink);font-size:13px}
.note{border-left:4px solid var(--dropped);background:#fcf8ef;padding:11px 16px;margin:16px 0;max-width:none}
.alert{border-left-color:var(--quarantined);background:#fcf1f2}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th,td{padding:5px 10px 5px 0;text-align:right;border-bottom:1px solid var(--line);vertical-align:top;
font-weight:400}
td:last-child,th:last-child{padding-right:0}th:first-child{text-align:left}
thead th{color:var(--soft);font-size:12.5px;vertical-align:bottom}
tfoot th,tfoot td{font-weight:600;border-bottom:0}
.reasons td:nth-child(2),.reasons thead th:nth-child(2){text-align:left}.reasons td:nth-child(3){width:26%}
.reasons td:nth-child(n+4),.reasons thead th:nth-child(n+4){white-space:nowrap}
.reasons td:nth-child(2) code{color:var(--soft)}.reasons .group{font-weight:650}
.bar{display:block;width:100%;height:11px;margin-top:5px;fill:var(--blue)}.stack{display:block;width:100%;height:18px}
.written{fill:var(--written)}.dropped{fill:var(--dropped)}.quarantined{fill:var(--quarantined)}
.dot{display:inline-block;width:10px;height:10px;margin-right:7px}i.written{background:var(--written)}
i.dropped{background:var(--dropped)}i.quarantined{background:var(--quarantined)}
.pair{display:grid;grid-template-columns:minmax(0,1.45fr) minmax(0,1fr);gap:36px;align-items:start}
.scroll{overflow-x:auto}.map{width:100%;min-width:640px;height:auto;font-size:11px;fill:var(--soft)}
.map .mid{text-anchor:middle}.map .end,.map .count{text-anchor:end}.map .axis{fill:none;stroke:var(--soft)}
.map .edge{fill:none;stroke:#1b2430;stroke-opacity:.5;stroke-width:.9;stroke-linecap:square}
.map .count{fill:#101720;font-weight:600;paint-order:stroke;stroke:#fff;stroke-width:3px;
stroke-linejoin:round}.map .corner{fill:#1b2430}
.dense th,.dense td{padding-top:3px;padding-bottom:3px;font-size:13px;white-space:nowrap}
.cards{columns:3 300px;column-gap:40px;margin-top:18px}.card{break-inside:avoid;padding-bottom:30px}
.card-rows{table-layout:fixed;font-size:13px}.card-rows th,.card-rows td{border:0;padding:2px 8px 2px 0}
.card-rows th{width:41%;line-height:1.35}.card-rows td:nth-child(3){width:20%}
.card-rows td:nth-child(4){width:17%}.card-rows td{white-space:nowrap}
.shelf{display:flex;flex-wrap:wrap;gap:26px 34px;margin-top:14px}.row{display:flex;flex-wrap:wrap;gap:12px}
.block{break-inside:avoid;max-width:100%}figure{margin:0;width:186px;break-inside:avoid}
.frame{background:#0c1016;aspect-ratio:1;display:flex;align-items:center;justify-content:center}
.picture{position:relative;max-width:100%;max-height:100%}.picture img{display:block;width:100%;height:100%}
.picture i{position:absolute;border:1px solid #f0b429}
.missing{background:var(--wash);border:1px dashed var(--quarantined);color:var(--quarantined);font-size:12px;
text-align:center;overflow-wrap:anywhere;padding:10px}
figcaption{font-size:12px;line-height:1.4;color:var(--soft);padding-top:5px;overflow-wrap:anywhere}
figcaption code{color:var(--ink)}.arguments{max-width:760px}.arguments td{overflow-wrap:anywhere}
@media(max-width:980px){.pair{grid-template-columns:minmax(0,1fr)}}
@media(max-width:640px){main{padding:22px 16px 40px}.tiles{grid-template-columns:repeat(2,1fr)}
.tile{padding:10px 12px}.tile b{font-size:20px}
.reasons td:nth-child(3),.reasons thead th:nth-child(3){display:none}.reasons th code{overflow-wrap:anywhere}
.shelf{gap:22px}.block{width:100%}figure{width:calc((100% - 24px)/3)}
.dense th,.dense td{padding-right:6px;font-size:12px}}
@media print{body{font-size:11px}main{max-width:none;padding:0}h2{break-after:avoid;margin-top:28px}
.card,tr{break-inside:avoid}figure{width:118px}.map{min-width:0}}
"""


def page(title: str, body: str) -> str:
    """A whole HTML page; `body` is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )

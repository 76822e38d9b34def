"""Pictures of text in images: what lies around the line that is surest, framed."""

from functools import partial
from typing import Any

from shardkit.dataset import contents
from shardkit.errors import ShardkitError
from shardkit.report.gallery import A_FLAG, Album, Group, Mark, Picture, css, data_uri, spread
from shardkit.report.numbers import number, percent

_COLUMNS = (
    *contents.IMAGE_COLUMNS, "p0_5", "p99_5", "text_box", "text_kind", "text_confidence",
)  # fmt: skip
_MARGIN = 24  # pixels around a line, at least; else twice the height of its letters

Line = tuple[tuple[int, int, int, int], str, float]


def suspects(album: Album, flag: str) -> tuple[str, list[Group]]:
    """Return how many samples have a flag for text in them, in words, and pictures of the text of some.

    Parameters
    ----------
    album : Album
        What reads the pictures.
    flag : str
        The flag. Samples that an earlier version flagged, without saying where, are shown whole.
    """
    rows = album.flagged(flag)
    chosen = spread(rows, A_FLAG)
    boxes = album.samples.select(["text_box"]).take(chosen)["text_box"].to_pylist()
    whole = iter(album.pictures(at for at, box in zip(chosen, boxes, strict=True) if not box))
    crops = iter(
        album.drawn((at for at, box in zip(chosen, boxes, strict=True) if box), _COLUMNS, partial(_crop, album))
    )
    shown = [next(crops if box else whole) for box in boxes]
    return f"Shown: {number(len(chosen))} of {number(len(rows))}.", [Group(shown)] if shown else []


def _crop(album: Album, row: Any) -> Picture:
    (top, left, high, wide), kind, sure = max(_lines(row), key=lambda line: (line[1] != "marker", line[2]))
    margin = max(_MARGIN, 2 * min(high, wide))
    first, begin = max(top - margin, 0), max(left - margin, 0)
    rows, cols = min(top + high + margin, row["height"]) - first, min(left + wide + margin, row["width"]) - begin
    try:
        pixels = contents.image(album.store, row, album.description)[first : first + rows, begin : begin + cols]
        source = data_uri(pixels, int(pixels.min()), int(pixels.max()))
    except ShardkitError:  # the page helps to find trouble: one sample's must not cost the page
        source = None
    where, what = f"{high:,} × {wide:,} px at row {top:,}, column {left:,}", f"{kind}, {percent(sure, 1)} sure"
    return Picture(
        row["key"],
        source,
        where,
        what,
        f"{row['key']}: part of a radiograph with a line of text, {what}, {where}",
        f"{'width' if cols >= rows else 'height'}:100%;aspect-ratio:{cols}/{rows}",
        "",
        (Mark("", css(top - first, left - begin, high, wide, rows, cols), "own"),) if source else (),
    )


def _lines(row: Any) -> list[Line]:
    box = row["text_box"]
    boxes = [(box[at], box[at + 1], box[at + 2], box[at + 3]) for at in range(0, len(box), 4)]
    return list(zip(boxes, row["text_kind"], row["text_confidence"], strict=True))

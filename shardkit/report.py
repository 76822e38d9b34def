"""One HTML page that tells what happened to every file: counts, sizes, composition, and pictures to look at.

The page needs nothing but itself and is a pure function of the dataset: no clock, no chance, no path of the store.
"""

import base64
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from pydicom import config
from pydicom.uid import UID

from shardkit import charts, dataset
from shardkit.charts import number, percent, text
from shardkit.dicom import triage
from shardkit.errors import IntegrityError
from shardkit.ledger import VERDICTS
from shardkit.storage import Store

NAME = "report/index.html"
PICTURES = 120
"""Pictures in the gallery of bins, at most."""
A_BIN, A_FLAG, GROUPS, A_GROUP = 6, 24, 12, 4
_READ, _SHOWN = 160, 224  # pixels of the longer side: read at least, shown at most
_PICTURE_BYTES = 12_000
_TOP = 20
_SHOW = (
    "key", "shard", "offset", "level_bytes", "height", "width", "bits", "box_top", "box_left", "box_height",
    "box_width", "p0_5", "p99_5", "body_part", "view",
)  # fmt: skip
_WRITTEN = {
    "ok": "decoded, encoded without loss, read back and found equal",
    "ok_repaired": "the same, after a repair that the charts below name",
}
_MEANINGS = {"written": _WRITTEN, "dropped": triage.DROPS, "quarantined": triage.QUARANTINES}
_TITLES = {"written": "Written", "dropped": "Dropped by a rule", "quarantined": "Quarantined for an error"}

Rows = npt.NDArray[np.int64]


def write(store: Store, samples: pa.Table, description: dict[str, Any]) -> None:
    """Write `report/index.html` of the dataset in `store`: `samples` its manifest, `description` its dataset.json."""
    album = _Album(store, samples, description["codec"])
    bins = _bins(samples, description)
    body = [
        _head(samples, description),
        _files(description),
        _sizes(samples, description, bins),
        _composition(samples, description),
        _gallery(album, bins),
        _suspects(album),
        _near_duplicates(album),
        _arguments(description),
    ]
    store.put(NAME, charts.page("shardkit dataset report", "\n".join(body)).encode("utf-8", "backslashreplace"))


# ------------------------------------------------------------------------------------------------- numbers


def _head(samples: pa.Table, description: dict[str, Any]) -> str:
    verdicts = {v: sum(description["verdicts"].get(v, {}).values()) for v in VERDICTS}
    files, n = sum(verdicts.values()), description["samples"]
    stored, pixels = description["bytes"], description["pixels"]
    splits = description["splits"]
    tiles = [
        ("Files in", number(files), "each has one verdict"),
        ("Samples written", number(n), f"{percent(n, files)} of files"),
        ("Dropped by a rule", number(verdicts["dropped"]), f"{percent(verdicts['dropped'], files)} of files"),
        ("Quarantined", number(verdicts["quarantined"]), f"{percent(verdicts['quarantined'], files)} of files"),
        ("Stored images", charts.size(stored), f"{number(stored)} bytes"),
        ("Lossless ratio", f"{2 * pixels / stored:.2f} : 1" if stored else "–", "2 bytes a pixel to stored bytes"),
        ("Pixels", f"{number(pixels / 1e6)} Mpx", f"{pixels / n / 1e6:.2f} Mpx a sample" if n else "no sample"),
        ("Shards", number(description["shards"]), f"{charts.size(stored // max(1, description['shards']))} on average"),
        (
            "Padding to bins",
            _overhead(description["tokens"], description["padded_tokens"]),
            "tokens on top of those used",
        ),
        *((f"Split: {k}", number(v), f"{percent(v, n)} of samples") for k, v in splits.items()),
    ]
    boxes = "".join(
        f'<div class="tile"><span class="name">{text(a)}</span><b>{b}</b><span>{c}</span></div>' for a, b, c in tiles
    )
    names = f"codec {text(description['codec'])} · patch {number(description['patch'])} px"
    warning = ""
    if verdicts["written"] != n or n != samples.num_rows:
        warning = (
            f'<p class="note alert">Verdicts count {number(verdicts["written"])} files written, the description '
            f"{number(n)} samples and the manifest {number(samples.num_rows)}: run the build again.</p>"
        )
    digest = text(description["digest"])
    return (
        f'<h1>Dataset report</h1><p class=soft>{names} · digest <code title="{digest}">{digest[:12]}</code> · '
        f'decimal units (1 GB = 10<sup>9</sup> bytes)</p><div class="tiles">{boxes}</div>{warning}'
        '<p class="note"><strong>Metadata are allow-listed, pixels are not cleaned.</strong> Only listed codes, '
        "measurements and keyed pseudonyms were taken from the headers. Text burned into an image is still in it, and "
        "this page shows pictures: share it only with those who may see the images.</p>"
    )


def _overhead(used: int, padded: int) -> str:
    return f"{100 * (padded / used - 1):.1f} %" if used else "–"


def _files(description: dict[str, Any]) -> str:
    verdicts = {v: description["verdicts"].get(v, {}) for v in VERDICTS}
    total = sum(sum(reasons.values()) for reasons in verdicts.values())
    top = max((count for reasons in verdicts.values() for count in reasons.values()), default=0) or 1
    rows: list[list[str]] = []
    for verdict, reasons in verdicts.items():
        count = sum(reasons.values())
        title = f'<span class="group"><i class="dot {verdict}"></i>{_TITLES[verdict]}</span>'
        rows.append([title, "", "", f'<span class="group">{number(count)}</span>', percent(count, total)])
        for reason, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            meaning = text(_MEANINGS[verdict].get(reason, ""))
            if verdict == "quarantined":
                meaning += f"<br><code>shardkit retry --class {text(reason)}</code>"
            rows.append(
                [f"<code>{text(reason)}</code>", meaning, charts.bar(n / top, verdict), number(n), percent(n, total)]
            )
    head = ["Verdict and reason", "What it means", "", "Files", "Of all files"]
    return (
        "<h2>What became of every file</h2><p>Every file of the export ends with exactly one verdict. Rules drop by "
        "design; errors quarantine, so that a person may look. Once the cause of an error is mended, the command beside "
        "it takes those files in again.</p>"
        + charts.stacked([(v, sum(reasons.values())) for v, reasons in verdicts.items()])
        + charts.table(head, rows, ["All files", "", "", number(total), percent(total, total)], "reasons")
    )


def _bins(samples: pa.Table, description: dict[str, Any]) -> dict[tuple[int, int], Rows]:
    """Rows of each bin (height, width), sorted by key; bins without samples are there too."""
    order = pc.sort_indices(samples["key"]).to_numpy().astype(np.int64)
    height, width = (samples[f"bin_{axis}"].to_numpy().astype(np.int64) for axis in ("height", "width"))
    code = (height << 32 | width)[order]
    by_bin = np.argsort(code, kind="stable")
    codes, starts = np.unique(code[by_bin], return_index=True)
    parts = np.split(order[by_bin], starts[1:]) if len(codes) else []
    found = {(int(c) >> 32, int(c) & 0xFFFFFFFF): rows for c, rows in zip(codes, parts, strict=True)}
    declared = {(int(h), int(w)): np.zeros(0, np.int64) for h, w in description["bins"]}
    return dict(sorted((declared | found).items()))


def _sizes(samples: pa.Table, description: dict[str, Any], bins: dict[tuple[int, int], Rows]) -> str:
    patch, heights, widths = description["patch"], samples["height"].to_numpy(), samples["width"].to_numpy()
    tokens = -(-heights.astype(np.int64) // patch) * -(-widths.astype(np.int64) // patch)
    lengths = samples["length"].to_numpy()
    shards = _column(samples, "shard").dictionary_encode().indices.to_numpy(zero_copy_only=False)
    rows = []
    for (high, wide), at in bins.items():
        used, padded = int(tokens[at].sum()), len(at) * high * wide // patch**2
        of_shards = number(len(np.unique(shards[at])))
        stored = charts.size(int(lengths[at].sum()))
        rows.append([f"{high:,} × {wide:,}", number(len(at)), of_shards, stored, _overhead(used, padded)])
    used, padded = description["tokens"], description["padded_tokens"]
    total = [number(description["samples"]), number(description["shards"]), charts.size(description["bytes"])]
    head = ["Bin, height × width, px", "Samples", "Shards", "Stored", "Padding"]
    counts = [(high, wide, len(at)) for (high, wide), at in bins.items()]
    return (
        "<h2>Image sizes and bins</h2>"
        f"<p>Cut into patches of {patch} × {patch} px, the images make <b>{number(used)}</b> tokens. Padded to their bins "
        f"they would be <b>{number(padded)}</b>, {_overhead(used, padded)} more; packed batches need no such padding. "
        "Lines part the sizes that go to different bins; a dot marks a bin’s own size, the number beside it its "
        "samples. Numbers that would overlap are left to the table.</p>"
        f'<div class="pair"><div class="scroll">{charts.SizeMap(heights, widths, counts, patch).svg()}</div>'
        f'<div class="scroll">{charts.table(head, rows, ["All", *total, _overhead(used, padded)], "dense")}</div></div>'
    )


def _composition(samples: pa.Table, description: dict[str, Any]) -> str:
    n = samples.num_rows
    bits = [(f"{value} bit", count) for value, count in sorted(_counts(samples, "bits"))]
    lossy = int(pc.sum(samples["lossy"]).as_py() or 0)
    inverted = int(pc.sum(samples["inverted"]).as_py() or 0)
    syntaxes = [(_syntax(value), count) for value, count in _counts(samples, "transfer_syntax")]
    cards = [
        charts.bars("Bit depth of the pixels", bits, n, f"{number(inverted)} inverted to MONOCHROME2 sense"),
        charts.bars("Modality", *_labelled(samples, "modality")),
        charts.bars("View", *_labelled(samples, "view")),
        charts.bars("Body part", *_labelled(samples, "body_part")),
        charts.bars("Manufacturer", *_labelled(samples, "manufacturer")),
        charts.bars("Transfer syntax of the files", syntaxes, n, f"{number(lossy)} compressed with loss at the source"),
        charts.bars("Flags, for a person to look at", *_labelled(samples, "flags")),
        charts.bars("Repairs made to decode", *_labelled(samples, "repairs")),
    ]
    return (
        "<h2>What the samples are</h2><p>Counts and shares of samples. A sample may have several flags or repairs.</p>"
        f'<div class="cards">{"".join(cards)}</div>'
    )


def _column(samples: pa.Table, name: str) -> Any:
    """One column as a single array (a table without rows may have no chunk)."""
    column = samples[name]
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _counts(samples: pa.Table, name: str) -> list[tuple[Any, int]]:
    """(value, samples), most frequent first; of a list column, its entries."""
    column = _column(samples, name)
    if pa.types.is_list(column.type):
        column = column.flatten()
    pairs = [(item["values"], item["counts"]) for item in pc.value_counts(column).to_pylist()]
    return sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))


def _labelled(samples: pa.Table, name: str) -> tuple[list[tuple[str, int]], int]:
    """Rows and whole of a chart: the most frequent values, the rest as one, and what is not stated."""
    counts = _counts(samples, name)
    known = [(str(value), count) for value, count in counts if value is not None]
    rest, rows = known[_TOP:], known[:_TOP]
    if rest:
        rows.append((f"{len(rest)} others", sum(count for _, count in rest)))
    rows += [("not stated", count) for value, count in counts if value is None]
    return rows, samples.num_rows


def _syntax(uid: str | None) -> str:
    return "not stated" if uid is None else UID(uid, validation_mode=config.IGNORE).name


def _arguments(description: dict[str, Any]) -> str:
    values = {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in description["arguments"].items()}
    rows = [[f"<code>{text(k)}</code>", text(v)] for k, v in sorted(values.items())]
    rows.append(["key fingerprint", f"<code>{text(description['key_fingerprint'])}</code>"])
    rows.append(["digest", f"<code>{text(description['digest'])}</code>"])
    return "<h2>How it was built</h2>" + charts.table(["Argument", "Value"], rows, kind="arguments")


# ------------------------------------------------------------------------------------------------ pictures


class _Album:
    """Reads samples' pictures, one at a time."""

    def __init__(self, store: Store, samples: pa.Table, codec: str) -> None:
        self.store, self.samples, self.codec = store, samples, codec

    def figures(self, rows: Iterable[int]) -> str:
        """The rows' pictures with captions, side by side."""
        narrow = self.samples.select(list(_SHOW))
        return f'<div class="row">{"".join(self._figure(narrow.slice(int(i), 1).to_pylist()[0]) for i in rows)}</div>'

    def flagged(self, flag: str) -> Rows:
        """Rows with `flag`, sorted by key."""
        flags = _column(self.samples, "flags")
        rows = pc.list_parent_indices(flags).filter(pc.equal(flags.flatten(), flag))
        order = pc.sort_indices(self.samples["key"].take(rows)).to_numpy()
        return np.asarray(rows.to_numpy()[order], np.int64)

    def _figure(self, row: dict[str, Any]) -> str:
        kind = " · ".join(text(row[name]) for name in ("body_part", "view") if row[name]) or "part not stated"
        return (
            f'<figure>{self._frame(row)}<figcaption><code title="{text(row["key"])}">{text(row["key"][:10])}</code><br>'
            f"{row['height']:,} × {row['width']:,} px · {row['bits']} bit<br>{kind}</figcaption></figure>"
        )

    def _frame(self, row: dict[str, Any]) -> str:
        high, wide = row["height"], row["width"]
        try:
            source = _data_uri(self._pixels(row), row["p0_5"], row["p99_5"])
        except Exception:  # the page is for finding trouble: whatever is wrong with one sample must not cost it
            return f'<div class="frame missing"><span>cannot be read, run verify<br><code>{text(row["key"])}</code></span></div>'
        side = "width" if wide >= high else "height"
        box = "".join(
            f"{name}:{100 * value / whole:.2f}%;"
            for name, value, whole in (
                ("left", row["box_left"], wide), ("top", row["box_top"], high),
                ("width", row["box_width"], wide), ("height", row["box_height"], high),
            )
        )  # fmt: skip
        return (
            f'<div class="frame"><div class="picture" style="{side}:100%;aspect-ratio:{wide}/{high}">'
            f'<img alt="{text(row["key"])}" src="{source}"><i style="{box}"></i></div></div>'
        )

    def _pixels(self, row: dict[str, Any]) -> npt.NDArray[np.uint16]:
        """The smallest level that is large enough to look at."""
        level = len(row["level_bytes"]) - 1
        while level and -(-max(row["height"], row["width"]) >> level) * -1 < _READ:
            level -= 1
        pixels = dataset.image(self.store, row, self.codec, level)
        if pixels.shape != (-(-row["height"] // 2**level), -(-row["width"] // 2**level)):
            raise IntegrityError(f"{row['key']} has other dimensions than the manifest says: run verify")
        return pixels


def _data_uri(pixels: npt.NDArray[np.uint16], low: int, high: int) -> str:
    """Grey levels low to high as a small JPEG."""
    scale = np.float32(255 / max(1, high - low))
    grey = np.clip((pixels.astype(np.float32) - np.float32(low)) * scale, 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((_SHOWN, _SHOWN), Image.Resampling.BOX)
    for quality in (82, 65, 45, 25, 10):
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _PICTURE_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _spread(rows: Rows, most: int) -> Rows:
    """At most `most` rows, evenly spaced, first and last among them."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _gallery(album: _Album, bins: dict[tuple[int, int], Rows]) -> str:
    filled = sorted(((size, rows) for size, rows in bins.items() if len(rows)), key=lambda b: (-len(b[1]), b[0]))
    a_bin = max(1, min(A_BIN, PICTURES // max(1, len(filled))))
    shown = sorted(filled[:PICTURES], key=lambda b: b[0])
    blocks, total = [], 0
    for (high, wide), rows in shown:
        chosen = _spread(rows, a_bin)
        total += len(chosen)
        title = f"{high:,} × {wide:,} px <span class=soft>{number(len(rows))} samples</span>"
        blocks.append(f'<div class="block"><h3>{title}</h3>{album.figures(chosen)}</div>')
    left_out = f" The {len(filled) - len(shown)} least filled bins are left out." if len(shown) < len(filled) else ""
    return (
        f"<h2>Pictures by bin</h2><p>{number(total)} of {number(album.samples.num_rows)} samples: up to {a_bin} a bin and "
        f"{PICTURES} in all, evenly spaced by key.{left_out} Windowed from the 0.5th to the 99.5th percentile of the "
        "content box, which is the thin line. Sizes are height × width.</p>" + _shelf(blocks)
    )


def _shelf(blocks: Sequence[str]) -> str:
    return f'<div class="shelf">{"".join(blocks)}</div>' if blocks else "<p class=soft>None.</p>"


def _suspects(album: _Album) -> str:
    parts = []
    for flag, title, check in (
        ("polarity_suspect", "Polarity suspects", "These look like negatives beside samples of the same kind, or are the "
         "negative of another sample. Check that bone is bright and air dark."),
        ("burned_in_suspect", "Burned-in text suspects", "Marks like a line of letters lie near the top or bottom edge. "
         "Check at full size for names, dates and numbers. No flag is no proof of clean pixels."),
    ):  # fmt: skip
        rows = album.flagged(flag)
        chosen = _spread(rows, A_FLAG)
        parts.append(
            f"<h2>{title}</h2><p>{check} Shown: {number(len(chosen))} of {number(len(rows))}.</p>"
            + _shelf([album.figures(chosen)] if len(rows) else [])
        )
    return "\n".join(parts)


def _near_duplicates(album: _Album) -> str:
    encoded = _column(album.samples, "group").dictionary_encode()
    names = encoded.dictionary.to_pylist()
    label = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    counts = np.bincount(label[label >= 0], minlength=len(names))
    largest = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))[:GROUPS]
    keys, blocks = _column(album.samples, "key"), []
    for i in largest:
        rows = np.flatnonzero(label == i)
        rows = rows[pc.sort_indices(keys.take(pa.array(rows))).to_numpy()]
        more = f" <span class=soft>{A_GROUP} shown</span>" if len(rows) > A_GROUP else ""
        blocks.append(
            f'<div class="block"><h3>{number(len(rows))} alike{more}</h3>{album.figures(_spread(rows, A_GROUP))}</div>'
        )
    return (
        "<h2>Near-duplicates</h2><p>Groups of samples with almost the same picture, or its negative; all of a group share "
        f"one split. Check whether training should see them all. Shown: the {number(len(blocks))} largest of "
        f"{number(len(names))} groups.</p>" + _shelf(blocks)
    )

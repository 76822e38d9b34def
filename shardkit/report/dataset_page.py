"""One HTML page that tells what happened to every file: counts, sizes, composition, and pictures to look at.

The page needs nothing but itself and is a pure function of the dataset: no clock, no chance, no path.
"""

import base64
import shlex
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

from shardkit import triage
from shardkit.build.ledger import VERDICTS
from shardkit.dataset import contents
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.sample_row import SampleRow
from shardkit.errors import IntegrityError, ShardkitError
from shardkit.report import charts
from shardkit.report.charts import number, percent, text
from shardkit.storage import Store

NAME = "report/index.html"
PICTURES = 120
"""Pictures in the gallery of bins, at most."""
A_BIN, A_FLAG, GROUPS, A_GROUP = 6, 24, 12, 4
_READ, _SHOWN = 160, 224  # pixels of the longer side: read at least, shown at most
_PICTURE_BYTES = 12_000
_TOP = 20
_SHOW = (
    "key", "shard", "offset", "level_bytes", "level_hash", "height", "width", "bits", "box_top", "box_left",
    "box_height", "box_width", "bin_height", "bin_width", "p0_5", "p99_5", "body_part", "view",
)  # fmt: skip
_WRITTEN = {
    "ok": "decoded, encoded without loss, read back and found equal",
    "ok_repaired": "the same, after a repair that the charts below name",
}
_MEANINGS = {"written": _WRITTEN, "dropped": triage.DROPS, "quarantined": triage.QUARANTINES}
_TITLES = {"written": "Written", "dropped": "Dropped by a rule", "quarantined": "Quarantined for an error"}
_RAISED = {"decode_timeout": " --time-limit 300", "memory_limit": " --memory-limit 16"}
"""Limits to raise for a second try."""
_CHECKS = {
    "polarity_suspect": ("Polarity suspects", (
        "These look like negatives beside samples of the same kind, or are the negative of another sample. "
        "Check that bone is bright and air dark."
    )),
    "burned_in_suspect": ("Burned-in text suspects", (
        "Marks like a line of letters lie near the top or bottom edge. Check at full size for names, dates and "
        "numbers. A sample without this flag is not proven clean."
    )),
}  # fmt: skip

Rows = npt.NDArray[np.int64]


def write(store: Store, samples: pa.Table, description: DatasetDescription) -> None:
    """Write `report/index.html` for a manifest and the content of dataset.json. Raises StorageError."""
    album = _Album(store, samples, description)
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
    page = charts.page("shardkit dataset report", "\n".join(body))
    store.put(NAME, page.encode("utf-8", "backslashreplace"))


# ------------------------------------------------------------------------------------------------- numbers


def _head(samples: pa.Table, description: DatasetDescription) -> str:
    verdicts = {v: sum(description.verdicts.get(v, {}).values()) for v in VERDICTS}
    files, n = sum(verdicts.values()), description.samples
    stored, pixels = description.bytes, description.pixels
    splits = sorted(description.splits.items(), key=lambda split: (-split[1], split[0]))
    shards = description.shards
    tiles = [
        ("Files in", number(files), "each has one verdict"),
        ("Samples written", number(n), f"{percent(n, files)} of files"),
        *((_TITLES[v], number(verdicts[v]), f"{percent(verdicts[v], files)} of files") for v in VERDICTS[1:]),
        ("Stored images", charts.size(stored), f"{number(stored)} bytes"),
        ("Lossless ratio", f"{2 * pixels / stored:.2f} : 1" if stored else "–", "at 2 bytes a pixel"),
        ("Pixels", f"{number(pixels / 1e6)} Mpx", f"{pixels / max(1, n) / 1e6:.2f} Mpx a sample"),
        ("Shards", number(shards), f"{charts.size(stored // max(1, shards))} on average"),
        ("Padding to bins", _overhead(description.tokens, description.padded_tokens), "of tokens used"),
        *((f"Split: {name}", number(count), f"{percent(count, n)} of samples") for name, count in splits),
    ]
    boxes = "".join(
        f'<div class="tile"><span class="name">{text(name)}</span><b>{value}</b><span>{about}</span></div>'
        for name, value, about in tiles
    )
    names = f"codec {text(description.codec)} · patch {number(description.patch)} px"
    warning = ""
    if verdicts["written"] != n or n != samples.num_rows:
        warning = (
            f'<p class="note alert">Verdicts count {number(verdicts["written"])} files written, the description '
            f"{number(n)} samples and the manifest {number(samples.num_rows)}: run "
            "<code>shardkit verify DATASET</code>.</p>"
        )
    digest = description.digest
    return (
        f"<h1>Dataset report</h1><p class=soft>{names} · decimal units (1 GB = 10<sup>9</sup> bytes) · "
        f'digest <code title="{text(digest)}">{text(digest[:12])}</code></p><div class="tiles">{boxes}</div>{warning}'
        '<p class="note"><strong>Metadata are allow-listed, pixels are not cleaned.</strong> Only listed codes, '
        "measurements and keyed pseudonyms were taken from the headers. Text burned into an image is still in "
        "it, and this page shows pictures: share it only with those who may see the images.</p>"
    )


def _overhead(used: int, padded: int) -> str:
    return f"{100 * (padded / used - 1):.1f} %" if used else "–"


def _files(description: DatasetDescription) -> str:
    verdicts = {v: description.verdicts.get(v, {}) for v in VERDICTS}
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
                meaning += "".join(f"<br><code>{text(words)}</code>" for words in _commands(reason))
            share = charts.bar(n / top, verdict)
            rows.append([f"<code>{text(reason)}</code>", meaning, share, number(n), percent(n, total)])
    head = ["Verdict and reason", "What it means", "", "Files", "Of all files"]
    foot = ["All files", "", "", number(total), percent(total, total)]
    return (
        "<h2>What became of every file</h2><p>Every file of the export ends with exactly one verdict. Rules drop "
        "by design; errors quarantine, so that a person may look. The first command beside an error lists its files; "
        "once the cause is mended, the second takes them in again. Put your places for EXPORT, DATASET and PRIVATE "
        "(the folder of ledger and key): this page names none.</p>"
        + charts.stacked([(v, sum(reasons.values())) for v, reasons in verdicts.items()])
        + charts.table(head, rows, foot, "reasons")
    )


def _commands(reason: str) -> tuple[str, str]:
    """What to type to see the files of an error, and to take them in again."""
    places, name = "DATASET --private PRIVATE", shlex.quote(reason)
    retry = f"shardkit retry --class {name} --source EXPORT --out {places}{_RAISED.get(reason, '')}"
    return f"shardkit ledger {places} --class {name}", retry


def _bins(samples: pa.Table, description: DatasetDescription) -> dict[tuple[int, int], Rows]:
    """Rows of each bin (height, width), sorted by key; bins without samples are there too."""
    order = pc.sort_indices(samples["key"]).to_numpy().astype(np.int64)
    height, width = (samples[f"bin_{axis}"].to_numpy().astype(np.int64) for axis in ("height", "width"))
    code = (height << 32 | width)[order]
    by_bin = np.argsort(code, kind="stable")
    codes, starts = np.unique(code[by_bin], return_index=True)
    parts = np.split(order[by_bin], starts[1:]) if len(codes) else []
    found = {(int(c) >> 32, int(c) & 0xFFFFFFFF): rows for c, rows in zip(codes, parts, strict=True)}
    declared = {(bin.height, bin.width): np.zeros(0, np.int64) for bin in description.bins.bins}
    return dict(sorted((declared | found).items()))


def _sizes(samples: pa.Table, description: DatasetDescription, bins: dict[tuple[int, int], Rows]) -> str:
    patch = description.patch
    heights, widths = (samples[name].to_numpy().astype(np.int64) for name in ("height", "width"))
    tokens, lengths = -(-heights // patch) * -(-widths // patch), samples["length"].to_numpy()
    shards = _column(samples, "shard").dictionary_encode().indices.to_numpy(zero_copy_only=False)
    rows = []
    for (high, wide), at in bins.items():
        padding = _overhead(int(tokens[at].sum()), len(at) * high * wide // patch**2)
        in_shards, stored = len(np.unique(shards[at])), int(lengths[at].sum())
        name = f"{high:,} × {wide:,}"
        rows.append([name, number(len(at)), number(in_shards), charts.size(stored), padding])
    padding = _overhead(description.tokens, description.padded_tokens)
    whole = [number(description.samples), number(description.shards), charts.size(description.bytes)]
    head = ["Bin, height × width, px", "Samples", "Shards", "Stored", "Padding"]
    table = charts.table(head, rows, ["All", *whole, padding], "dense")
    counts = [(high, wide, len(at)) for (high, wide), at in bins.items()]
    return (
        f"<h2>Image sizes and bins</h2><p>Cut into patches of {patch} × {patch} px, the images make "
        f"<b>{number(description.tokens)}</b> tokens. Padded to their bins they would be "
        f"<b>{number(description.padded_tokens)}</b>, {padding} more; packed batches need no such padding. "
        "Lines part the sizes that go to different bins; a dot marks a bin’s own size, the number beside it its "
        "samples. Numbers that would overlap are left to the table.</p>"
        f'<div class="pair"><div class="scroll">{charts.SizeMap(heights, widths, counts, patch).svg()}</div>'
        f'<div class="scroll">{table}</div></div>'
    )


def _composition(samples: pa.Table, description: DatasetDescription) -> str:
    n = samples.num_rows
    bits = [(f"{value} bit", count) for value, count in sorted(_counts(samples, "bits"))]
    lossy = int(pc.sum(samples["lossy"]).as_py() or 0)
    inverted = int(pc.sum(samples["inverted"]).as_py() or 0)
    syntaxes = [(_syntax(value), count) for value, count in _counts(samples, "transfer_syntax")]
    cards = [
        charts.bars("Bit depth of the pixels", bits, n, f"{number(inverted)} inverted to MONOCHROME2"),
        charts.bars("Modality", *_labelled(samples, "modality")),
        charts.bars("View", *_labelled(samples, "view")),
        charts.bars("Body part", *_labelled(samples, "body_part")),
        charts.bars("Manufacturer", *_labelled(samples, "manufacturer")),
        charts.bars("Transfer syntax of the files", syntaxes, n, f"{number(lossy)} came compressed with loss"),
        charts.bars("Flags, for a person to look at", *_labelled(samples, "flags")),
        charts.bars("Repairs made to decode", *_labelled(samples, "repairs")),
    ]
    return (
        "<h2>What the samples are</h2><p>Counts and shares of samples. A sample may have several flags or "
        f'repairs.</p><div class="cards">{"".join(cards)}</div>'
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


def _arguments(description: DatasetDescription) -> str:
    rows = []
    for name, value in sorted(description.arguments.items()):
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        rows.append([f"<code>{text(name)}</code>", text(shown)])
    rows.append(["key fingerprint", f"<code>{text(description.key_fingerprint)}</code>"])
    rows.append(["digest", f"<code>{text(description.digest)}</code>"])
    return "<h2>How it was built</h2>" + charts.table(["Argument", "Value"], rows, kind="arguments")


# ------------------------------------------------------------------------------------------------ pictures


class _Album:
    """Reads samples' pictures, one at a time."""

    def __init__(self, store: Store, samples: pa.Table, description: DatasetDescription) -> None:
        self.store, self.samples, self.description = store, samples, description

    def figures(self, rows: Iterable[int]) -> str:
        """The rows' pictures with captions, side by side."""
        narrow = self.samples.select(list(_SHOW))
        figures = "".join(self._figure(narrow.slice(int(i), 1).to_pylist()[0]) for i in rows)
        return f'<div class="row">{figures}</div>'

    def flagged(self, flag: str) -> Rows:
        """Rows with `flag`, sorted by key."""
        flags = _column(self.samples, "flags")
        rows = pc.list_parent_indices(flags).filter(pc.equal(flags.flatten(), pa.scalar(flag)))
        order = pc.sort_indices(self.samples["key"].take(rows)).to_numpy()
        return np.asarray(rows.to_numpy()[order], np.int64)

    def _figure(self, row: SampleRow) -> str:
        try:
            source = _data_uri(self._pixels(row), row["p0_5"], row["p99_5"])
        except ShardkitError:  # the page helps to find trouble: one sample's must not cost the page
            source = None
        return charts.figure(row, source)

    def _pixels(self, row: SampleRow) -> npt.NDArray[np.uint16]:
        """The smallest level that is large enough to look at."""
        level, longest = len(row["level_bytes"]) - 1, max(row["height"], row["width"])
        while level and _halved(longest, level) < _READ:
            level -= 1
        pixels = contents.image(self.store, row, self.description, level)
        if pixels.shape != (_halved(row["height"], level), _halved(row["width"], level)):
            raise IntegrityError(f"{row['key']} has other dimensions than the manifest says: run verify")
        return pixels


def _halved(side: int, level: int) -> int:
    return -(-side >> level)


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


def _block(title: str, about: str, figures: str) -> str:
    return f'<div class="block"><h3>{title} <span class=soft>{about}</span></h3>{figures}</div>'


def _gallery(album: _Album, bins: dict[tuple[int, int], Rows]) -> str:
    filled = sorted((-len(rows), size) for size, rows in bins.items() if len(rows))
    a_bin = max(1, min(A_BIN, PICTURES // max(1, len(filled))))
    blocks, total = [], 0
    for high, wide in sorted(size for _, size in filled[:PICTURES]):
        rows = bins[high, wide]
        chosen = _spread(rows, a_bin)
        total += len(chosen)
        blocks.append(_block(f"{high:,} × {wide:,} px", f"{number(len(rows))} samples", album.figures(chosen)))
    left = len(filled) - len(blocks)
    return (
        f"<h2>Pictures by bin</h2><p>{number(total)} of {number(album.samples.num_rows)} samples: up to {a_bin} a "
        f"bin and {PICTURES} in all, evenly spaced by key."
        + (f" The {number(left)} least filled bins are left out." if left else "")
        + " Windowed from the 0.5th to the 99.5th percentile of what is neither border nor padding; the thin line "
        "encloses that. Sizes are height × width.</p>" + _shelf(blocks)
    )


def _shelf(blocks: Sequence[str]) -> str:
    return f'<div class="shelf">{"".join(blocks)}</div>' if blocks else "<p class=soft>None.</p>"


def _suspects(album: _Album) -> str:
    parts = []
    for flag, (title, check) in _CHECKS.items():
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
        about = f"{A_GROUP} shown" if len(rows) > A_GROUP else ""
        blocks.append(_block(f"{number(len(rows))} alike", about, album.figures(_spread(rows, A_GROUP))))
    return (
        "<h2>Near-duplicates</h2><p>Groups of samples with almost the same picture, or its negative; all of a "
        "group share one split. Check whether training should see them all. Shown: the "
        f"{number(len(blocks))} largest of {number(len(names))} groups.</p>" + _shelf(blocks)
    )

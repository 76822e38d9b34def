"""One page that tells what happened to every file: counts, sizes, composition, and pictures to look at.

The page is a pure function of the dataset: no clock, no chance, no path.
"""

import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydicom import config
from pydicom.uid import UID

from shardkit import triage
from shardkit.build.ledger import VERDICTS
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.rounding import ceil_div
from shardkit.report import gallery, labels_section, text_crops
from shardkit.report.gallery import Album, Group, column
from shardkit.report.numbers import number, percent, size
from shardkit.report.page import Card, Tile, render
from shardkit.report.plots import svg
from shardkit.report.size_map import SizeMap
from shardkit.storage import Store
from shardkit.storage.spill import Spill

NAME = "report/index.html"
_TOP = 20
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
        "There is text in these that no list of side markers has, or what looks like text and was not read. Check at "
        "full size for names, dates and numbers. A sample without this flag is not proven clean."
    )),
}  # fmt: skip
_SUSPECTS = {"burned_in_suspect": text_crops.suspects}
"""What shows samples with a flag otherwise than whole."""
_CONTENTS = {
    "files": "What became of every file",
    "sizes": "Image sizes and bins",
    "samples": "What the samples are",
    "pictures": "Pictures by bin",
    **{flag: title for flag, (title, _) in _CHECKS.items()},
    "duplicates": "Near-duplicates",
    "arguments": "How it was built",
}

Rows = npt.NDArray[np.int64]


def write(store: Store, samples: pa.Table | Spill, description: DatasetDescription) -> None:
    """Write `report/index.html` of a dataset.

    Parameters
    ----------
    store
        The dataset; pictures are read from it.
    samples
        Its manifest.
    description
        The content of dataset.json.

    Raises
    ------
    StorageError
        If the page cannot be written.
    """
    album, bins = Album(store, samples, description), _bins(samples, description)
    verdicts = _verdicts(description)
    digest, tables = description.digest, labels_section.sections(album)
    page = render(
        "dataset.html",
        "shardkit.report",
        title=f"Dataset {digest[:12]}: report",
        kind="Dataset report",
        name=f"Dataset {digest[:12]}",
        contents=_contents(tables),
        digest=digest,
        about=f"codec {description.codec} · patch {number(description.patch)} px",
        disagreement=_disagreement(samples, description, verdicts),
        headline=_headline(description, verdicts),
        verdicts=verdicts,
        sizes=_sizes(samples, description, bins),
        cards=_cards(samples),
        labels=tables,
        a_class=labels_section.A_CLASS,
        gallery=_shown(*gallery.by_bin(album, bins)),
        checks=[_check(album, flag) for flag in _CHECKS],
        duplicates=_shown(*gallery.near_duplicates(album)),
        arguments=_arguments(description),
    )
    store.put(NAME, page)


def _contents(tables: list[labels_section.Section]) -> dict[str, str]:
    """Return the title of each section, labels behind what the samples are."""
    found = dict[str, str]()
    for name, title in _CONTENTS.items():
        found[name] = title
        if name == "samples":
            found |= {one.id: one.title for one in tables}
    return found


# ------------------------------------------------------------------------------------------------ verdicts


@dataclass(frozen=True, slots=True)
class _Reason:
    name: str
    count: int
    meaning: str
    commands: tuple[str, ...]  # what to type to see its files, and to take them in again


@dataclass(frozen=True, slots=True)
class _Verdict:
    name: str
    title: str
    count: int
    reasons: list[_Reason]


@dataclass(frozen=True, slots=True)
class _Verdicts:
    all: list[_Verdict]

    def count(self, name: str) -> int:
        return next(verdict.count for verdict in self.all if verdict.name == name)

    @property
    def total(self) -> int:
        return sum(verdict.count for verdict in self.all)

    @property
    def top(self) -> int:
        """The largest count of a reason."""
        return max((reason.count for verdict in self.all for reason in verdict.reasons), default=0) or 1

    @property
    def about(self) -> str:
        return f"{number(self.total)} files: " + ", ".join(f"{number(v.count)} {v.name}" for v in self.all)


def _verdicts(description: DatasetDescription) -> _Verdicts:
    found = []
    for verdict in VERDICTS:
        reasons = description.verdicts.get(verdict, {})
        rows = [
            _Reason(name, n, _MEANINGS[verdict].get(name, ""), _commands(name) if verdict == "quarantined" else ())
            for name, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        ]
        found.append(_Verdict(verdict, _TITLES[verdict], sum(reasons.values()), rows))
    return _Verdicts(found)


def _commands(reason: str) -> tuple[str, str]:
    places, name = "DATASET --private PRIVATE", shlex.quote(reason)
    retry = f"shardkit retry --class {name} --source EXPORT --out {places}{_RAISED.get(reason, '')}"
    return f"shardkit ledger {places} --class {name}", retry


def _disagreement(samples: pa.Table | Spill, description: DatasetDescription, verdicts: _Verdicts) -> str:
    written, n = verdicts.count("written"), description.samples
    if written == n == samples.num_rows:
        return ""
    return (
        f"Verdicts count {number(written)} files written, the description {number(n)} samples and the manifest"
        f" {number(samples.num_rows)}"
    )


# ------------------------------------------------------------------------------------------------- numbers


def _headline(description: DatasetDescription, verdicts: _Verdicts) -> list[Tile]:
    files, n = verdicts.total, description.samples
    stored, pixels, shards = description.bytes, description.pixels, description.shards
    splits = sorted(description.splits.items(), key=lambda split: (-split[1], split[0]))
    lost = [(v, verdicts.count(v)) for v in VERDICTS[1:]]
    return [
        Tile("Files in", number(files), "each has one verdict"),
        Tile("Samples written", number(n), f"{percent(n, files)} of files"),
        *(Tile(_TITLES[verdict], number(count), f"{percent(count, files)} of files") for verdict, count in lost),
        Tile("Stored images", size(stored), f"{number(stored)} bytes"),
        Tile("Lossless ratio", f"{2 * pixels / stored:.2f} : 1" if stored else "–", "at 2 bytes a pixel"),
        Tile("Pixels", f"{number(pixels / 1e6)} Mpx", f"{pixels / max(1, n) / 1e6:.2f} Mpx a sample"),
        Tile("Shards", number(shards), f"{size(stored // max(1, shards))} on average"),
        Tile("Padding to bins", _overhead(description.tokens, description.padded_tokens), "of tokens used"),
        *(Tile(f"Split: {name}", number(count), f"{percent(count, n)} of samples") for name, count in splits),
    ]


def _overhead(used: int, padded: int) -> str:
    return f"{100 * (padded / used - 1):.1f} %" if used else "–"


def _bins(samples: pa.Table | Spill, description: DatasetDescription) -> dict[tuple[int, int], Rows]:
    """Rows of each bin (height, width), sorted by key; bins without samples are there too."""
    order = pc.sort_indices(samples["key"]).to_numpy().astype(np.int64)
    height, width = (samples[f"bin_{axis}"].to_numpy().astype(np.int64) for axis in ("height", "width"))
    code = (height << 32 | width)[order]
    by_bin = np.argsort(code, kind="stable")
    codes, starts = np.unique(code[by_bin], return_index=True)
    parts = np.split(order[by_bin], starts[1:]) if len(codes) else []
    found = {(int(c) >> 32, int(c) & 0xFFFFFFFF): rows for c, rows in zip(codes, parts, strict=True)}
    declared = {(one.height, one.width): np.zeros(0, np.int64) for one in description.bins.bins}
    return dict(sorted((declared | found).items()))


def _sizes(
    samples: pa.Table | Spill, description: DatasetDescription, bins: dict[tuple[int, int], Rows]
) -> dict[str, Any]:
    patch = description.patch
    heights, widths = (samples[name].to_numpy().astype(np.int64) for name in ("height", "width"))
    tokens, lengths = ceil_div(heights, patch) * ceil_div(widths, patch), samples["length"].to_numpy()
    shards = column(samples, "shard").dictionary_encode().indices.to_numpy(zero_copy_only=False)
    rows = []
    for (height, width), at in bins.items():
        padding = _overhead(int(tokens[at].sum()), len(at) * height * width // patch**2)
        in_shards, stored = len(np.unique(shards[at])), int(lengths[at].sum())
        rows.append([f"{height:,} × {width:,}", number(len(at)), number(in_shards), size(stored), padding])
    padding = _overhead(description.tokens, description.padded_tokens)
    totals = [number(description.samples), number(description.shards), size(description.bytes)]
    drawing = SizeMap(heights, widths, [(height, width, len(at)) for (height, width), at in bins.items()], patch)
    return {
        "patch": patch,
        "tokens": description.tokens,
        "padded": description.padded_tokens,
        "padding": padding,
        "map": svg(drawing.plot()),
        "steps": drawing.steps(),
        "cell": drawing.cell,
        "rows": rows,
        "all": ["All", *totals, padding],
    }


# --------------------------------------------------------------------------------------------- composition


def _cards(samples: pa.Table | Spill) -> list[Card]:
    n = samples.num_rows
    bits = [(f"{value} bit", count) for value, count in sorted(_counts(samples, "bits"))]
    lossy, inverted = (int(pc.sum(samples[name]).as_py() or 0) for name in ("lossy", "inverted"))
    syntaxes = [(_syntax(value), count) for value, count in _counts(samples, "transfer_syntax")]
    return [
        Card("Bit depth of the pixels", bits, n, f"{number(inverted)} inverted to MONOCHROME2"),
        Card("Modality", _labelled(samples, "modality"), n),
        Card("View", _labelled(samples, "view"), n),
        Card("Body part", _labelled(samples, "body_part"), n),
        Card("Manufacturer", _labelled(samples, "manufacturer"), n),
        Card("Transfer syntax of the files", syntaxes, n, f"{number(lossy)} came compressed with loss"),
        Card("Flags, for a person to look at", _labelled(samples, "flags"), n),
        Card("Repairs made to decode", _labelled(samples, "repairs"), n),
    ]


def _counts(samples: pa.Table | Spill, name: str) -> list[tuple[Any, int]]:
    """(value, samples), most frequent first; of a list column, its entries."""
    values = column(samples, name)
    if pa.types.is_list(values.type):
        values = values.flatten()
    pairs = [(item["values"], item["counts"]) for item in pc.value_counts(values).to_pylist()]
    return sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))


def _labelled(samples: pa.Table | Spill, name: str) -> list[tuple[str, int]]:
    """Return the most frequent values, the rest as one, and what is not stated."""
    counts = _counts(samples, name)
    known = [(str(value), count) for value, count in counts if value is not None]
    rest, rows = known[_TOP:], known[:_TOP]
    if rest:
        rows.append((f"{len(rest)} others", sum(count for _, count in rest)))
    return rows + [("not stated", count) for value, count in counts if value is None]


def _syntax(uid: str | None) -> str:
    return "not stated" if uid is None else UID(uid, validation_mode=config.IGNORE).name


# -------------------------------------------------------------------------------------------------- the rest


def _shown(about: str, groups: list[Group]) -> dict[str, Any]:
    return {"about": about, "groups": groups}


def _check(album: Album, flag: str) -> dict[str, Any]:
    title, what = _CHECKS[flag]
    about, groups = _SUSPECTS.get(flag, gallery.suspects)(album, flag)
    return {"id": flag, "title": title, **_shown(f"{what} {about}", groups)}


def _arguments(description: DatasetDescription) -> list[list[str]]:
    rows = []
    for name, value in sorted(description.arguments.items()):
        rows.append([name, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)])
    return [*rows, ["key fingerprint", description.key_fingerprint], ["digest", description.digest]]

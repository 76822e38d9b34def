"""What of identifiers planted in an export is left in the dataset, and what that must stay is lost: class by class.

An export is made in which every identifier is known, `shardkit build --burned-in blank` makes a dataset of it, and
`shardkit label` adds a table. Then every text of the dataset is looked through, in its tables, members and pages, and
every image is compared with what it was drawn from.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import deid_cases
from benchmarks.deid_cases import CLASSES, HIDDEN, File
from benchmarks.drawing import bars
from benchmarks.results import FOLDER, Record, begin, save, table
from shardkit.terminal.output import say

if TYPE_CHECKING:
    from shardkit.report import Plot

LIBRARIES = ("shardkit", "numpy", "pydicom", "rapidocr", "onnxruntime")
LEFT = 0.05  # share of a text's ink that may have the grey that was drawn, by chance
_PLANTED = re.compile(
    rb"ZQX[A-Z2-7]{9}|1\.2\.826\.0\.1\.3680043\.10\.99999[.0-9]+|(?<![0-9A-Za-z.])17[0-9]{2}[-.]?[0-9]{2}[-.]?[0-9]{2}"
    rb"(?![0-9A-Za-z])"
)


def run(*, studies: int = 130, scale: float = 0.35, seed: int = 0, out: Path = FOLDER / "deid.json") -> None:
    """Plant identifiers, build, and count what is left of them.

    Parameters
    ----------
    studies
        Of the export; each has about 2.5 files with some 55 identifiers.
    scale
        Factor on the sides of the radiographs.
    seed
        Seed of the export.
    out
        JSON file for the figures; the plot lies beside it.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as name:
        place = Path(name)
        files = deid_cases.make(place / "export", place / "labels.csv", studies, scale, seed)
        dataset = place / "dataset"
        _shardkit("build", "--source", place / "export", "--out", dataset, "--burned-in", "blank", "--accept-outcome")
        _shardkit("label", dataset, "--name", "findings", "--table", place / "labels.csv", "--by", "path")
        result = begin((__doc__ or "").partition("\n")[0], LIBRARIES)
        result["conditions"] = {"studies": studies, "scale": scale, "seed": seed, "files": len(files)}
        result["classes"], result["missed"] = scored(files, dataset)
    save(result, out, plots)
    say(readme(result))


def _shardkit(*words: object) -> None:
    """Run the command line, as a user would."""
    code = "import sys; from shardkit.cli import run; sys.exit(run(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


# --- what is left


def scored(files: list[File], dataset: Path) -> tuple[dict[str, dict[str, int]], list[Record]]:
    """Count what was planted, what was handled as it must be, and what identifiers are left.

    Returns
    -------
    classes : dict
        Class -> planted, handled, residual.
    missed : list of dict
        The file's number and the class of what was not handled, and what is wrong with it.
    """
    found = {bytes(word) for text in all_texts(dataset) for word in _PLANTED.findall(text)}
    samples = _samples(files, dataset)
    counts = {name: {"planted": 0, "handled": 0, "residual": 0} for name in CLASSES}
    missed: list[Record] = []

    def note(number: int, name: str, handled: bool, residual: bool, why: str) -> None:
        counts[name]["planted"] += 1
        counts[name]["handled"] += handled
        counts[name]["residual"] += residual
        if not handled:
            missed.append({"file": number, "class": name, "why": why})

    pairs = _pairs(files, samples)
    for number, (file, sample) in enumerate(zip(files, samples, strict=True)):
        for name in HIDDEN:
            for word in file.words[name]:
                left = bool({word.encode(), *_spelled(word)} & found)
                note(number, name, not left, left, "is found in the dataset")
        note(number, "UIDs replaced", pairs["study"][number], False, "is not one pseudonym for one study")
        note(number, "patients replaced", pairs["patient"][number], False, "is not one pseudonym for one patient")
        for column, value in file.kept.items():
            same = sample is not None and _same(sample[0][column], value)
            note(number, "metadata kept", same, False, f"{column} differs")
        _judge_pixels(number, file, sample, note)
    return counts, missed


def _spelled(word: str) -> list[bytes]:
    """Return other ways to write a date."""
    if not word.isdigit():
        return []
    year, month, day = word[:4], word[4:6], word[6:]
    return [f"{year}{mark}{month}{mark}{day}".encode() for mark in "-."]


def _same(one: Any, other: Any) -> bool:
    return bool(abs(one - other) < 1e-6) if isinstance(other, float) and one is not None else bool(one == other)


def _judge_pixels(number: int, file: File, sample: tuple[Record, Any] | None, note: Any) -> None:
    pixels = None if sample is None else sample[1]
    if file.text is None:
        same = pixels is not None and np.array_equal(pixels, file.written)
        note(number, "pixels kept", same, False, "the image is not written" if pixels is None else "pixels differ")
        return
    if pixels is None:
        note(number, "pixels hidden", True, False, "")
        return
    text = file.text
    part = np.s_[text.top : text.top + text.height, text.left : text.left + text.width]
    ink = np.abs(file.written[part].astype(np.int64) - file.clean[part]) > 0
    left = float((pixels[part] == file.written[part])[ink].mean())
    note(number, "pixels hidden", left <= LEFT, left > LEFT, f"{100 * left:.0f} % of the ink of a text is left")


def _pairs(files: list[File], samples: list[tuple[Record, Any] | None]) -> dict[str, list[bool]]:
    """Say of each file whether its study and patient have one pseudonym each, and no other's."""
    found = {}
    for name in ("study", "patient"):
        there, back = defaultdict(set), defaultdict(set)
        names = [(getattr(file, name), s and s[0][name]) for file, s in zip(files, samples, strict=True)]
        for clear, pseudonym in names:
            if pseudonym is not None:
                there[clear].add(pseudonym)
                back[pseudonym].add(clear)
        found[name] = [p is None or (len(there[c]) == 1 and len(back[p]) == 1) for c, p in names]
    return found


def _samples(files: list[File], dataset: Path) -> list[tuple[Record, Any] | None]:
    """Return the manifest's row and the pixels of each file's sample; None where it is not written."""
    import pyarrow.parquet as pq

    from shardkit.dataset import contents
    from shardkit.storage import Store

    store = Store(str(dataset))
    description = contents.description(store)
    rows = {row["key"]: row for row in contents.samples(store).to_pylist()}
    ledger = pq.read_table(f"{dataset}.private/ledger.parquet", columns=["path", "verdict", "key"]).to_pylist()
    keys = {row["path"]: row["key"] for row in ledger if row["verdict"] == "written"}
    written = (rows.get(keys.get(file.path, "")) for file in files)
    return [None if row is None else (row, contents.image(store, row, description)) for row in written]


def all_texts(dataset: Path) -> Iterator[bytes]:
    """Yield all that can be read in a dataset: bytes of its files, values of its tables, members of its shards."""
    import pyarrow.parquet as pq

    for path in sorted(p for p in dataset.rglob("*") if p.is_file()):
        yield str(path.relative_to(dataset)).encode()
        yield path.read_bytes()
        if path.suffix == ".parquet":
            found = pq.read_table(path)
            yield str(found.schema).encode()
            for column in found.columns:
                yield "\n".join(str(value) for value in column.to_pylist() if not isinstance(value, bytes)).encode()
        if path.suffix == ".tar":
            with tarfile.open(path) as shard:
                yield "\n".join(shard.getnames()).encode()


# --- what it comes to


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    rows, all_planted, all_handled, all_left = [], 0, 0, 0
    for name, what in CLASSES.items():
        planted, handled, left = (result["classes"][name][key] for key in ("planted", "handled", "residual"))
        all_planted, all_handled, all_left = all_planted + planted, all_handled + handled, all_left + left
        rows.append([f"{name}: {what}", f"{planted:,}", _share(handled, planted), f"{left:,}"])
    rows.append(["**all**", f"{all_planted:,}", f"**{_share(all_handled, all_planted)}**", f"**{all_left:,}**"])
    files = result["conditions"]["files"]
    return f"{files:,} synthetic files, built with `--burned-in blank`; goals: 99.95 % handled, none left:\n\n" + table(
        ["class", "planted", "handled", "left"], rows
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "–"


def plots(result: Record) -> list[Plot]:
    """Return the share that was not handled, by class."""
    shares = [
        100 * (1 - one["handled"] / one["planted"]) if one["planted"] else 0.0 for one in result["classes"].values()
    ]
    shown = {"not handled": [dict.fromkeys(("median", "min", "max"), share) for share in shares]}
    return [bars("Planted identifiers and values not handled as they must be, %", [*CLASSES], shown, unit="%")]

"""Burned-in text: how much of what was planted is found, what is flagged in radiographs without it, and what it costs.

planted  texts of a random grid (size of the font's em, contrast, tone, quarter turns, place, kind, font), one an image,
         in synthetic radiographs and, with `--clean`, in real ones. Found: findings that would be blanked cover half of
         its box. `stage one`: candidates do. `unread`: without the extra `ocr`.
clean    images of a folder, and the synthetic ones: a file is flagged if a finding is not a marker. Names of flagged
         files are listed, so that each is looked at. What a person saw there is given by `--seen`: what a folder has of
         real text is rightly found; markers alone, and no text, are false alarms; text that is not flagged is missed.
blanked  characters of planted Latin text that Tesseract, which has no part in finding, reads before and after.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.burned_in_cases import (
    Carrier,
    Case,
    Verdict,
    cases,
    covered,
    images,
    read_back,
    seen_in,
    synthetic,
)
from benchmarks.drawing import bars
from benchmarks.results import FOLDER, Record, begin, save, table
from shardkit.burned_in import blanking, candidates, detection, reading
from shardkit.burned_in.boxes import Box
from shardkit.burned_in.findings import Finding
from shardkit.extras import has_ocr
from shardkit.report import Plot
from shardkit.synthetic.planted_text import KINDS
from shardkit.terminal.output import say

AXES = ("size", "contrast", "tone", "turns", "place", "look", "kind", "font", "carrier")


def run(
    *,
    planted: int = 2000,
    clean: Path | None = None,
    seen: Path | None = None,
    font: Path | None = None,
    read: int = 200,
    seed: int = 0,
    quick: bool = False,
    out: Path = FOLDER / "burned-in.json",
) -> None:
    """Measure the detector of burned-in text, which should have the extra `ocr`.

    Parameters
    ----------
    planted
        Texts to plant.
    clean
        Folder of PNG files without text but markers; every twentieth carries planted text as well.
    seen
        CSV of `file` (as a run lists it, or the SHA-256 of the file) and `verdict`: what a person saw in files of the
        folder, as "text", "marker" or "no text". Never what a text says.
    font
        Font file with Chinese, Japanese and Korean; without it these scripts are left out.
    read
        Of the planted texts, those that are blanked and read by Tesseract; 0 for none.
    seed
        Seed of the planted texts.
    quick
        40 small images, none read by Tesseract: to see that all works.
    out
        JSON file for the figures; the plot lies beside it.
    """
    result = begin((__doc__ or "").partition("\n")[0], ("shardkit", "numpy", "numba", "rapidocr", "onnxruntime"))
    drawn = synthetic(seed, 600, 500) if quick else synthetic(seed)
    real = list(images(clean)) if clean else []
    verdicts = seen_in(seen) if seen else {}
    planted, read = (40, 0) if quick else (planted, read)
    _warm(drawn[0])
    result["conditions"] = {
        "planted": planted,
        "clean": len(real),
        "cjk": font is not None,
        "read": read,
        "seed": seed,
        "reads": has_ocr(),
    }
    rows: list[Record] = []
    blanked: list[Record] = []
    for number, case in enumerate(cases([*drawn, *real[::20]], planted, seed, font)):
        rows.append(_measured(case))
        if case.cell["kind"] in KINDS and len(blanked) < read and number % 2:
            blanked.append(_blanked(case))
    result["planted"] = _by_cell(rows)
    result["clean"] = [_clean(name, part, verdicts) for name, part in (("real", real), ("synthetic", drawn)) if part]
    if blanked:
        result["blanked"] = {
            "texts": len(blanked),
            "characters": sum(row["characters"] for row in blanked),
            "read_before": sum(row["before"] for row in blanked),
            "read_after": sum(row["after"] for row in blanked),
            "left": [{key: row[key] for key in (*AXES, "after")} for row in blanked if row["after"]],
        }
    save(result, out, plots)
    say(readme(result))


def _warm(carrier: Carrier) -> None:
    """Compile and load what a first image would pay for."""
    detection.find(carrier.pixels, carrier.bits)
    if has_ocr():
        reading.read(carrier.pixels, Box(0, 0, 20, 100, True, True, 5, 1.0))


def _measured(case: Case) -> Record:
    begun = time.process_time()
    boxes = candidates.candidates(case.pixels, case.bits)
    middle = time.process_time()
    found = detection.find(case.pixels, case.bits)
    end = time.process_time()
    unread = detection.find(case.pixels, case.bits, read=False)
    as_findings = [Finding(b.top, b.left, b.height, b.width, "text", b.score) for b in boxes]
    share = covered(case.truth, found)
    return {
        **case.cell,
        "found": share >= 0.5,
        "flagged": any(f.kind != "marker" for f in found),
        "share": share,
        "stage_one": covered(case.truth, as_findings) >= 0.5,
        "unread": covered(case.truth, unread) >= 0.5,
        "one_ms": 1e3 * (middle - begun),
        "both_ms": 1e3 * (end - middle),
    }


def _blanked(case: Case) -> Record:
    turns = int(str(case.cell["turns"]))
    painted = blanking.blank(case.pixels, detection.find(case.pixels, case.bits))
    return {
        **case.cell,
        "characters": sum(len(line.text) for line in case.truth),
        "before": sum(read_back(case.pixels, line, turns) for line in case.truth),
        "after": sum(read_back(painted, line, turns) for line in case.truth),
    }


def _by_cell(rows: Sequence[Record]) -> Record:
    """Sum up all rows and, of Latin letters and digits, each cell of each axis, and of sizes by contrasts.

    The axis of kinds has those of other scripts, too. What was missed of Latin is listed by its cells.
    """
    latin = [row for row in rows if row["kind"] in KINDS]
    cells: dict[str, dict[str, list[Record]]] = {axis: defaultdict(list) for axis in (*AXES, "size x contrast")}
    for row in rows:
        cells["kind"][str(row["kind"])].append(row)
    for row in latin:
        for axis in set(AXES) - {"kind"}:
            cells[axis][str(row[axis])].append(row)
        cells["size x contrast"][f"{row['size']} x {row['contrast']}"].append(row)
    return {
        "all": _summed(rows),
        "latin": _summed(latin),
        "cells": {axis: {name: _summed(groups[name]) for name in sorted(groups)} for axis, groups in cells.items()},
        "missed": [{key: row[key] for key in (*AXES, "flagged", "stage_one")} for row in latin if not row["found"]],
    }


def _summed(rows: Sequence[Record]) -> Record:
    counts: Record = {key: sum(bool(row[key]) for row in rows) for key in ("found", "flagged", "stage_one", "unread")}
    means = {key: float(np.mean([row[key] for row in rows])) if rows else 0.0 for key in ("share", "one_ms", "both_ms")}
    return {"texts": len(rows), **counts, **means}


def _clean(name: str, carriers: Sequence[Carrier], verdicts: Mapping[str, Verdict]) -> Record:
    one, both, unread, markers = [], [], [], 0
    flagged: dict[str, Verdict | None] = {}
    missed: list[str] = []
    for carrier in carriers:
        verdict = verdicts.get(carrier.name, verdicts.get(carrier.digest))
        begun = time.process_time()
        candidates.candidates(carrier.pixels, carrier.bits)
        middle = time.process_time()
        found = detection.find(carrier.pixels, carrier.bits)
        both.append(1e3 * (time.process_time() - middle))
        one.append(1e3 * (middle - begun))
        markers += any(f.kind == "marker" for f in found)
        if any(f.kind != "marker" for f in found):
            flagged[carrier.name] = verdict
        elif verdict == "text":
            missed.append(carrier.name)
        if detection.find(carrier.pixels, carrier.bits, read=False):
            unread.append(carrier.name)
    return {
        "name": name,
        "images": len(carriers),
        "mpx": sum(c.pixels.size for c in carriers) / 1e6 / len(carriers),
        "flagged": flagged,
        "missed": missed,
        "false_alarms": sum(verdict in ("marker", "no text") for verdict in flagged.values()),
        "unseen": sum(verdict is None for verdict in flagged.values()),
        "unread_flagged": len(unread),
        "with_markers": markers,
        "one_ms": float(np.mean(one)),
        "both_ms": float(np.mean(both)),
        "both_ms_p99": float(np.percentile(both, 99)),
    }


def readme(result: Record) -> str:
    """Return Markdown of the figures."""
    planted, conditions = result["planted"], result["conditions"]
    rows = [("all", planted["all"]), ("Latin letters and digits", planted["latin"])]
    for axis, unit in (
        ("size", " px"),
        ("contrast", " of the span"),
        ("tone", ""),
        ("place", ""),
        ("look", ""),
        ("turns", " quarter turns"),
    ):
        cells = planted["cells"][axis]
        rows += [
            (f"{name}{unit}", cells[name])
            for name in sorted(cells, key=lambda n: (len(n), n) if unit == " px" else (0, n))
        ]
    others = {name: row for name, row in planted["cells"]["kind"].items() if name not in KINDS}
    rows += sorted(others.items())
    lines = [
        f"{conditions['planted']:,} planted texts, one an image. Cells are of Latin text; others stand below:",
        "",
        table(
            ["planted", "texts", "found, %", "stage one, %", "without `ocr`, %"],
            (
                [
                    n,
                    r["texts"],
                    *(f"{100 * r[key] / max(r['texts'], 1):.1f}" for key in ("found", "stage_one", "unread")),
                ]
                for n, r in rows
            ),
        ),
        "",
        table(
            [
                "no text planted",
                "images",
                "Mpx each",
                "flagged",
                "of these false",
                "not looked at",
                "with text that a person saw",
                "of these flagged",
                "flagged without `ocr`",
                "ms, stage one",
                "ms, both",
                "ms, both, 99th percentile",
            ],
            (
                [
                    r["name"],
                    r["images"],
                    f"{r['mpx']:.1f}",
                    len(r["flagged"]),
                    r["false_alarms"],
                    r["unseen"],
                    _rightly(r) + len(r["missed"]),
                    _rightly(r),
                    r["unread_flagged"],
                    *(f"{r[key]:.1f}" for key in ("one_ms", "both_ms", "both_ms_p99")),
                ]
                for r in result["clean"]
            ),
        ),
    ]
    if blanked := result.get("blanked"):
        lines.append("")
        lines.append(
            f"Of {blanked['characters']:,} characters of {blanked['texts']} planted texts Tesseract read"
            f" {blanked['read_before']:,} before blanking, and {blanked['read_after']:,} after."
        )
    return "\n".join(lines)


def _rightly(row: Record) -> int:
    """Count the flagged files in which a person saw text."""
    return sum(verdict == "text" for verdict in row["flagged"].values())


def plots(result: Record) -> list[Plot]:
    """Return the share found by size."""
    cells = result["planted"]["cells"]["size"]
    names = sorted(cells, key=int)
    shown: dict[str, list[Any]] = {
        title: [dict.fromkeys(("median", "min", "max"), 100 * cells[n][key] / cells[n]["texts"]) for n in names]
        for title, key in (("with OCR", "found"), ("without", "unread"))
    }
    return [
        bars("Planted text that is found, %, by pixels of the font", [f"{n} px" for n in names], shown, unit="% found")
    ]

"""A run of the fuzzer: mutants in folders, a build over each, every outcome judged."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pebble import ProcessExpired, ProcessPool

from shardkit.build.run import build
from shardkit.config import BuildConfig
from shardkit.dataset import contents, manifest
from shardkit.storage import Store
from tools.fuzz import oracle
from tools.fuzz.mutations import Mutant, mutant

BATCH = 500
"""Mutants of one build."""
MODALITIES = ("CR", "DX", "MG", "PX", "IO", "RG", "OT", "CT", "XA", "RF", "MR", "NM", "US")
# Flags that say nothing of the pixels' values: no excuse for wrong ones.
_BESIDE = {"charset", "burned_in_suspect", "polarity_suspect", "near_duplicate", "uid_collision", "missing_patient_id"}
_CONTENT = ("blank", "small_content")
_FILE_SECONDS, _BUILD_SECONDS = 20.0, 600.0
_ORACLE_SECONDS = {"written": 30.0, "dropped": 30.0, "quarantined": 5.0}  # decoders hang on what was refused


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may not be; seed and index make its file again.

    Attributes
    ----------
    kind
        What it is, in a few words.
    seed, mutant
        Which run, and which file of it.
    detail
        What is particular to this file.
    """

    kind: str
    seed: int
    mutant: Mutant
    detail: str

    def __str__(self) -> str:
        """Return it as one line."""
        what = "; ".join(self.mutant.what)
        return f"{self.kind} | seed {self.seed} index {self.mutant.index} | {self.mutant.seed} | {what} | {self.detail}"


@dataclass(slots=True)
class Report:
    """What a run of the fuzzer gave.

    Attributes
    ----------
    counts
        Outcomes by codec.
    reasons
        Verdicts and codes of the build.
    findings
        What may not be.
    notes
        What may be right and is worth a look.
    seconds
        Time that it took.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    def table(self) -> str:
        """Return the outcomes by codec, as text."""
        columns = ["equal", "one agrees", "within 1", "flagged", "repaired", "dropped", "quarantined", "FINDING"]
        lines = [f"{'codec':18}" + "".join(f"{name:>12}" for name in ["files", *columns])]
        total: Counter[str] = Counter()
        for codec, counts in sorted(self.counts.items()):
            total += counts
            lines.append(f"{codec:18}" + "".join(f"{n:12,}" for n in [counts.total(), *(counts[c] for c in columns)]))
        lines.append(f"{'all':18}" + "".join(f"{n:12,}" for n in [total.total(), *(total[c] for c in columns)]))
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Row:
    """One mutant's row of the ledger, and the pixels written for it (or for its duplicate)."""

    verdict: str
    reason: str
    message: str
    marks: tuple[str, ...]  # flags and repairs
    repaired: bool
    pixels: npt.NDArray[np.uint16] | None
    bits: int


def campaign(
    seed: int,
    count: int,
    real: Path | None = None,
    first: int = 0,
    lost: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Build mutants in batches, and judge what was made of each.

    Parameters
    ----------
    seed
        Of the run.
    count, first
        How many mutants, and the index of the first one.
    real
        A folder of real files, which join in.
    lost
        Ask the oracle of quarantined files, too, and note those that every decoder reads. It is slow, because it is on
        these that decoders hang.
    progress
        Is told of every batch.
    """
    report, start = Report(), time.monotonic()
    with ProcessPool(2, 400, _enter, context=multiprocessing.get_context("spawn")) as pool:
        for at in range(first, first + count, BATCH):
            mutants = [mutant(seed, i, real) for i in range(at, min(at + BATCH, first + count))]
            with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
                _batch(seed, mutants, Path(place), pool, report, lost)
            report.seconds = time.monotonic() - start
            progress(f"{at + len(mutants) - first:,} files, {len(report.findings)} findings, {report.seconds:.0f} s")
    return report


def _batch(seed: int, mutants: list[Mutant], place: Path, pool: Any, report: Report, lost: bool) -> None:
    export = place / "export"
    export.mkdir()
    names = {f"{m.index:06d}": m for m in mutants}
    for name, one in names.items():
        (export / name).write_bytes(one.data)
    failure = _built(place)
    if failure:
        report.findings.append(Finding(f"the build of a folder {failure[0]}", seed, mutants[0], failure[1]))
        return
    rows = _rows(place)
    if sorted(path for path, _ in rows) != sorted(names):
        differing = sorted(set(names) ^ {path for path, _ in rows})[:5]
        report.findings.append(Finding("the ledger is not one row a file", seed, mutants[0], f"{differing}"))
    jobs = []
    for name, row in rows:
        one = names[name]
        report.reasons[f"{row.verdict}:{row.reason}"] += 1
        asked = row.pixels is not None or row.reason in _CONTENT or (lost and row.verdict == "quarantined")
        jobs.append((one, row, _ask(pool, one, row) if asked else list))
    for one, row, answer in jobs:
        _judge(seed, one, row, answer(), report)


# ---- the build, in a process of its own, so that its hanging or dying is a finding too


def _built(place: Path) -> tuple[str, str] | None:
    process = multiprocessing.get_context("spawn").Process(target=_build, args=(place,))
    process.start()
    process.join(_BUILD_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return "hangs", f"not done after {_BUILD_SECONDS:.0f} s"
    if process.exitcode:
        trace = place / "trace"
        return "fails", trace.read_text()[-2000:] if trace.exists() else f"exit code {process.exitcode}"
    return None


def _build(place: Path) -> None:
    config = BuildConfig.of(
        str(place / "export"),
        str(place / "out"),
        place / "private",
        codec="raw",
        bins="auto:4",
        modalities=MODALITIES,
        min_side=32,
        max_side=6000,
        max_quarantine=1.0,
        workers=2,
        time_limit=_FILE_SECONDS,
    )
    try:
        build(config)
    except BaseException:
        (place / "trace").write_text(traceback.format_exc())
        raise


def _rows(place: Path) -> list[tuple[str, _Row]]:
    store = Store(str(place / "out"))
    samples = {row["key"]: row for row in contents.samples(store).to_pylist()} if store.exists(manifest.NAME) else {}
    out = []
    for row in pq.read_table(place / "private" / "ledger.parquet").to_pylist():
        sample, pixels = samples.get(row["key"]), None
        if sample is not None and (row["verdict"] == "written" or row["reason"] == "duplicate_exact"):
            with (place / "out" / sample["shard"]).open("rb") as shard:
                shard.seek(sample["offset"])
                pixels = np.load(BytesIO(shard.read(sample["length"])))
        marks, bits = (*row["flags"], *row["repairs"]), sample["bits"] if sample is not None else 0
        done = _Row(row["verdict"], row["reason"], row["message"] or "", marks, bool(row["repairs"]), pixels, bits)
        out.append((row["path"], done))
    return out


# ---- the judgement


def _enter() -> None:
    """Set up a child of the oracle: quiet, and bounded in memory."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(quiet, descriptor)
    limit = 8 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _ask(pool: Any, one: Mutant, row: _Row) -> Callable[[], list[oracle.Opinion]]:
    """Start the oracle on a file; the answer waits for it. A decoder that dies or hangs counts as one that raises."""
    pixels = row.pixels if row.pixels is not None else np.zeros((0, 0), np.uint16)
    marks = ("polarity_suspect" in row.marks, "values_exceed_bits" in row.marks)
    arguments = [one.data, pixels, row.bits, *marks]
    seconds = _ORACLE_SECONDS[row.verdict]
    future = pool.schedule(oracle.opinions, args=arguments, timeout=seconds)

    def answer() -> list[oracle.Opinion]:
        try:
            return list(future.result())
        except (ProcessExpired, TimeoutError, MemoryError):
            pass
        out = []
        for decoder in ("pydicom", "gdcm"):  # which of them was it?
            try:
                job = pool.schedule(oracle.opinions, args=[*arguments, (decoder,)], timeout=seconds)
                out += job.result()
            except (ProcessExpired, TimeoutError, MemoryError) as error:
                out.append(oracle.Opinion(decoder, "raises", type(error).__name__))
        return out

    return answer


def _judge(seed: int, one: Mutant, row: _Row, said: list[oracle.Opinion], report: Report) -> None:
    counts = report.counts.setdefault(one.codec, Counter())
    words = "; ".join(f"{o.decoder} {o.verdict}{f' ({o.detail})' if o.detail else ''}" for o in said)
    reads = [o for o in said if o.verdict != "raises"]
    if row.reason == "internal_error":
        counts["FINDING"] += 1
        report.findings.append(Finding("internal error", seed, one, row.message))
    elif row.pixels is None:
        counts[row.verdict] += 1
        if row.reason in _CONTENT and not reads:
            counts[row.verdict] -= 1
            counts["FINDING"] += 1
            report.findings.append(Finding(f"dropped as {row.reason}, and no decoder reads it", seed, one, words))
        elif row.verdict == "quarantined" and said and len(reads) == len(said):
            report.notes.append(
                Finding(f"quarantined:{row.reason}, and every decoder reads it", seed, one, row.message)
            )
    elif int(row.pixels.max()) >> row.bits:
        counts["FINDING"] += 1
        report.findings.append(Finding("written with values above its depth", seed, one, f"bits {row.bits}"))
    else:
        outcome = _outcome(row, said)
        counts[outcome] += 1
        marks = f"bits {row.bits}, marks {list(row.marks)}: {words}"
        if outcome == "FINDING":
            kind = "written, and every decoder raises" if not reads else "written, and no decoder agrees"
            report.findings.append(Finding(f"{one.codec}: {kind}", seed, one, marks))
        elif outcome in ("flagged", "repaired", "one agrees"):
            report.notes.append(Finding(f"{one.codec}: written, {outcome}", seed, one, marks))


def _outcome(row: _Row, said: list[oracle.Opinion]) -> str:
    verdicts = [o.verdict for o in said]
    if {"equal", "within 1"} & set(verdicts):
        if {"differs", "raises"} & set(verdicts):
            return "one agrees"
        return "equal" if "equal" in verdicts else "within 1"
    # Values beyond the header's depth are no excuse for data that a decoder finds damaged.
    damaged = any(one.detail.startswith(oracle.COMPLAINS) for one in said)
    if set(row.marks) - ({*_BESIDE, "values_exceed_bits", "trailing_bytes"} if damaged else _BESIDE):
        return "repaired" if row.repaired else "flagged"
    return "FINDING"


def kinds(findings: list[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """Yield findings by kind, the commonest first."""
    by: dict[str, list[Finding]] = {}
    for finding in findings:
        by.setdefault(finding.kind, []).append(finding)
    yield from sorted(by.items(), key=lambda item: -len(item[1]))

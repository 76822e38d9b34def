"""`shardkit demo`: a synthetic export, built, verified, labelled, trained on and judged, on data anyone may see."""

import hashlib
import shutil
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from shardkit.build.progress import BuildProgressBar
from shardkit.build.run import build
from shardkit.build.workspace import KEY
from shardkit.commands.labelling import label
from shardkit.config import BuildConfig
from shardkit.dataset.contents import description
from shardkit.dataset.schema import SPLITS
from shardkit.dataset.verify import Summary, verify
from shardkit.errors import ArgumentError
from shardkit.privacy import KEY_BYTES, Pseudonyms
from shardkit.storage import Store
from shardkit.synthetic.export import expected, make_export, plan_export
from shardkit.synthetic.findings import PART_OF, PARTS, write_findings
from shardkit.terminal.output import Terminal
from shardkit.terminal.words import listed

_MARK = ".shardkit-demo"
_OPTIONS = {"defects": 0.25, "scale": 0.25}
_LABELS, _FINETUNE = "region", 150  # steps
_BATCHING = "packed:level=2,patch=8,per_step=1,remainder=drop,tokens=2048"
_FEWEST = 3  # images of each part of the body in each split


def demo(out: Path, studies: int, seed: int, steps: int, workers: int, console: Terminal) -> int:
    """Make, build, verify and train on a small export below `out`; return the exit code."""
    key = _key(studies, seed)
    _empty(out)
    started = time.monotonic()
    console.print(f"1. a synthetic PACS export of {studies} studies, one file in four defective", highlight=False)
    export = make_export(out / "pacs_export", studies, seed=seed, **_OPTIONS, workers=workers)
    console.print(f"   {len(export.files)} files in {out / 'pacs_export'}", highlight=False)
    console.print(f"2. shardkit build --source {out / 'pacs_export'} --out {out / 'shards'}", highlight=False)
    place = out / "shards"
    (out / "shards.private").mkdir()
    (out / "shards.private" / KEY).write_bytes(key)
    options = {"shard_bytes": 64 << 20, "workers": workers}
    config = BuildConfig.of(str(out / "pacs_export"), str(place), out / "shards.private", **options)
    with BuildProgressBar(console) as progress:
        outcome = build(config, progress)
    for verdict, reasons in outcome.counts.items():
        text = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        console.print(f"   {sum(reasons.values()):>4} {verdict:<12}{text}", highlight=False)
    console.print(f"3. shardkit verify {place}", highlight=False)
    problems = [item for item in verify(str(place), True, workers) if not isinstance(item, Summary)]
    for problem in problems:
        console.print(f"   {problem}", style="red", highlight=False)
    described = description(Store(str(place)))
    ratio = 2 * described.pixels / max(described.bytes, 1)
    console.print(
        f"   {described.samples} samples, {described.pixels / 1e6:,.0f} Mpx in {described.bytes / 1e6:,.1f} MB"
        f" (lossless, {ratio:.2f}:1), {'all sound' if not problems else f'{len(problems)} problems'}",
        highlight=False,
    )
    _label(out, studies, seed, console)
    pages = [place / "report" / "index.html"]
    trained = _train(out, steps, console)
    if trained:
        pages += [out / "run" / "report.html", out / "finetuned" / "report.html", out / "evaluation" / "index.html"]
    console.print(
        f"done in {time.monotonic() - started:.0f} s. Open {', '.join(map(str, pages))}",
        highlight=False,
        soft_wrap=True,
    )
    return 1 if problems or trained is False else 0


def _label(out: Path, studies: int, seed: int, console: Terminal) -> None:
    """Join a table that says of each file whether it shows an arm, a leg or the trunk."""
    table = out / "findings.csv"
    write_findings(table, plan_export(studies, seed=seed, **_OPTIONS))
    words = ["label", str(out / "shards"), "--name", _LABELS, "--table", str(table), "--by", "path"]
    console.print(f"4. shardkit {' '.join(words)}", highlight=False, soft_wrap=True)
    label(str(out / "shards"), name=_LABELS, table=str(table), by="path")


def _train(out: Path, steps: int, console: Terminal) -> bool | None:
    """Pre-train, fine-tune and evaluate a small network as a user would; None where that is not installed."""
    if not all(find_spec(name) for name in ("torch", "timm", "nvidia")):
        console.print("5. no training: pip install -e '.[train]' brings what it needs", highlight=False)
        return None
    data = str(out / "shards")
    brief = ["--loader.batching", _BATCHING, "--log.every", "10", "--val.every", "20"]
    task = ["--data", data, "--labels", _LABELS]
    steps_of = ["--run.steps", str(steps)], ["--run.steps", str(_FINETUNE), "--objective.kind", "multiclass"]
    commands = (
        ["pretrain", "--data", data, "--out", str(out / "run"), *steps_of[0], *brief],
        ["finetune", *task, "--init", str(out / "run"), "--out", str(out / "finetuned"), *steps_of[1], *brief],
        ["evaluate", str(out / "finetuned"), *task, "--out", str(out / "evaluation")],
    )
    for number, words in enumerate(commands, start=5):
        console.print(f"{number}. python -m trainer {' '.join(words)}", highlight=False, soft_wrap=True)
        if subprocess.run([sys.executable, "-m", "trainer", *words], check=False).returncode:
            return False
    console.print(
        "   so few steps on so few images show that all of it works; features worth using take thousands",
        highlight=False,
        soft_wrap=True,
    )
    return True


def _key(studies: int, seed: int) -> bytes:
    """Make a pseudonym key of the seed, so that a demo repeats itself; its patients are invented and need no secret.

    Raises
    ------
    ArgumentError
        No key puts an image into each split.
    """
    key, fewest = _best_key(studies, seed)
    if not fewest:
        least = next(more for more in count(studies + 1) if _best_key(more, seed)[1])
        raise ArgumentError(
            f"--studies {studies} are too few for {listed(SPLITS)}, each with patients of its own: take {least} or more"
        )
    return key


def _best_key(studies: int, seed: int) -> tuple[bytes, int]:
    """Return the key with which the rarest part of the body in a split is least rare, and images of the least split.

    It is the first with which each split shows all parts several times, where there are enough patients for that.
    """
    specs = [spec for spec in plan_export(studies, seed=seed, **_OPTIONS) if expected(spec).verdict == "written"]
    shown = Counter((spec.study.patient.number, PART_OF[spec.region]) for spec in specs)
    best, most = b"", (-1, -1)
    for attempt in range(1000):
        text = f"shardkit demo {seed}" + (f" {attempt}" if attempt else "")
        key = hashlib.shake_256(text.encode()).digest(KEY_BYTES)
        name = Pseudonyms(key)
        splits = {patient: name.split(name("patient", f"id {patient}")) for patient, _ in shown}
        seen = Counter[tuple[str, str]]()
        for (patient, part), images in shown.items():
            seen[splits[patient], part] += images
        parts = [[seen[split, part] for part in PARTS] for split in SPLITS]
        if (found := (min(map(min, parts)), min(map(sum, parts)))) > most:
            best, most = key, found
        if most[0] >= _FEWEST:
            break
    return best, most[1]


def _empty(out: Path) -> None:
    """Start over in a folder of an earlier demo; touch no other."""
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).exists():
            raise ArgumentError(f"--out {out} is not empty and no earlier demo: name another folder")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).touch()

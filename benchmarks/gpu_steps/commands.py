"""The trainer's commands on the device, as a user gives them, alone and under torchrun."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu_steps import Where
from benchmarks.results import Record

_BATCHING = "packed:level=3,patch=8,per_step=2,tokens=4096"
_BRIEF = ("--log.every", "1", "--save.every", "2", "--log.pictures", "4", "--val.every", "0")
_ALONE = (sys.executable, "-m", "trainer")
_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", *_ALONE[1:])
"""One process: NCCL, wrapped models and sharded checkpoints as with many, on a machine with one GPU."""


def given(where: Where) -> Record:
    """Give commands as a user does: at the same time alone, under torchrun by DDP, and under torchrun by FSDP.

    The network is small and nothing is compiled: what that does is seen in other steps, and costs a minute here.

    Returns
    -------
    dict
        rows: every command without its folder, seconds, exit code, and the last line that it printed.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as name, ThreadPoolExecutor() as pool:
        found = [pool.submit(_alone, where, Path(name) / "alone")]
        found += [pool.submit(_by_torchrun, where, Path(name) / how, how) for how in ("ddp", "fsdp")]
        parts = [one.result() for one in found]
    return {"rows": [row for rows, _ in parts for row in rows], "wrong": [one for _, wrong in parts for one in wrong]}


def _alone(where: Where, run: Path) -> tuple[list[Record], list[str]]:
    """Pre-train, stop and go on; fine-tune and evaluate."""
    rows, wrong = _went_on(_ALONE, _pretrain(where, run), run)
    labels, tuned, page = ["--labels", where.labels], run.parent / "tuned", run.parent / "page"
    tune = ["finetune", *_data(where), *labels, *_BRIEF, "--run.steps", "4", "--init", str(run)]
    tune += ["--out", str(tuned), "--objective.kind", "multiclass", "--select.metric", ""]
    evaluate = ["evaluate", str(tuned), "--data", where.data, *labels, "--split", "all", "--out", str(page)]
    for words in (tune, evaluate) if where.labels else ():
        row = _command(_ALONE, words, tuned)
        rows.append(row)
        if row["exit_code"]:
            wrong.append(f"{row['command'][:60]}… ended with {row['exit_code']}: {row['last']}")
    return rows, wrong


def _by_torchrun(where: Where, run: Path, how: str) -> tuple[list[Record], list[str]]:
    """Pre-train, stop and go on from the checkpoint that processes wrote together."""
    return _went_on(_TORCHRUN, [*_pretrain(where, run), "--run.parallel", how], run)


def _data(where: Where) -> list[str]:
    return ["--data", where.data, "--loader.split", "all", "--loader.batching", _BATCHING]


def _pretrain(where: Where, run: Path) -> list[str]:
    return ["pretrain", "--recipe", "tiny", *_data(where), *_BRIEF, "--out", str(run), "--run.steps", "4000"]


def _went_on(program: tuple[str, ...], words: list[str], run: Path) -> tuple[list[Record], list[str]]:
    """Run a command that is stopped after some steps, and again; return its rows, and what was not as it has to be."""
    rows: list[Record] = []
    wrong = []
    for _ in range(2):
        stop = 4 + (rows[-1]["steps"] if rows else 0)
        rows.append(row := _command(program, words, run, stop))
        if row["steps"] < stop or not row["stopped"]:
            wrong.append(f"{row['command'][:60]}… took {row['steps']} steps, not {stop}, or ended ill: {row['last']}")
    return rows, wrong


def _command(program: tuple[str, ...], words: list[str], run: Path, stop: int = 0) -> Record:
    """Run a command of the trainer; with `stop`, ask it to stop once its run's log has so many steps."""
    begun, log = time.monotonic(), run / "metrics.jsonl"
    folder = f"{run.parent}/"
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen([*program, *words], stdout=said, stderr=subprocess.STDOUT)
        while stop and child.poll() is None:
            if log.exists() and len(log.read_text().splitlines()) >= stop:
                child.send_signal(signal.SIGTERM)
                break
            time.sleep(0.1)
        code = child.wait()
        said.seek(0)
        lines = [line.strip() for line in said.read().splitlines() if line.strip()]
    return {
        "command": " ".join(words).replace(folder, ""),
        "seconds": round(time.monotonic() - begun, 2),
        "exit_code": code,
        "steps": len(log.read_text().splitlines()) if log.exists() else 0,
        "stopped": any("stopped; run the same command again to go on" in line for line in lines),
        "last": lines[-1].replace(folder, "") if lines else "",
    }

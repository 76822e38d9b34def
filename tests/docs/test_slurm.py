"""The batch script of the documentation, run: two machines are two groups of processes here, Slurm is a few lines."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shardkit.storage import Store
from trainer.commands.cli import run as command

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = """
--recipe tiny --model.width 32 --model.depth 1 --model.heads 2 --model.decoder-width 32 --model.decoder-depth 1
--model.decoder-heads 2 --loader.split all --loader.batching packed:patch=8,level=1,per_step=4,tokens=512
--log.every 1 --log.pictures 0 --log.baseline 0 --log.no-tensorboard --optim.eps 1e-4
--run.steps 12 --save.every 1000
"""
FAKES = {
    # A task a machine, in the background as srun has them, each with a scratch folder of its own.
    "srun": """
for node in $(seq 0 $((SLURM_NNODES - 1))); do
    mkdir -p "$HERE/node$node"
    SLURM_NODEID=$node SLURM_PROCID=$node TMPDIR="$HERE/node$node" "$@" > "$HERE/said.$node" 2>&1 &
    echo $! >> "$HERE/tasks"
done
for task in $(cat "$HERE/tasks"); do wait "$task" || code=$?; done
rm "$HERE/tasks"
exit "${code:-0}"
""",
    "scancel": '[ "$*" = "--signal=TERM $SLURM_JOB_ID.0" ] && kill -TERM $(cat "$HERE/tasks")',
    "scontrol": """
case "$1 $2" in
    "show hostnames") printf '127.0.0.1\\n127.0.0.1\\n' ;;
    requeue*) echo "$2" >> "$HERE/requeued" ;;
esac
""",
}


@pytest.fixture
def script(blocks: ModuleType, tmp_path: Path) -> Callable[..., str]:
    """The script of the page, for two machines of a process each, this machine's data and a free port."""
    found = [b.code for b in blocks.blocks(ROOT / "docs" / "clusters.md") if b.code.startswith("#!/bin/bash")]
    assert len(found) == 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def made(data: str, out: str) -> str:
        changes = {
            "--nproc-per-node 8": "--nproc-per-node 1",
            ":29500": f":{port}",
            "--recipe thesis-b48": " ".join(OPTIONS.split()),
            "s3://bucket/dataset": shlex.quote(data),
            "s3://bucket/runs/b48": out,
        }
        text: str = found[0]
        for before, now in changes.items():
            assert text.count(before) == 1, before
            text = text.replace(before, now)
        return text

    return made


@pytest.fixture
def sbatch(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    for name, code in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{code.strip()}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "torchrun").write_text(f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)

    def submit(text: str) -> subprocess.Popen[str]:
        nodes = re.search(r"#SBATCH.* --nodes=(\d+)", text)
        assert nodes is not None
        slurm = {"SLURM_JOB_ID": "17", "SLURM_NNODES": nodes[1], "SLURM_JOB_NODELIST": "gpu[1-2]"}
        path = f"{tmp_path}:{os.environ['PATH']}"
        env = {**os.environ, **slurm, "PATH": path, "HERE": str(tmp_path), "OMP_NUM_THREADS": "1"}
        (tmp_path / "job.sbatch").write_text(text)
        words = ["/bin/bash", str(tmp_path / "job.sbatch")]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    return submit


def _said(place: Path) -> str:
    return "".join(path.read_text() for path in sorted(place.glob("said.*")))


def _until(job: subprocess.Popen[str], place: Path, said: str) -> None:
    deadline = time.monotonic() + 180
    while said not in _said(place):
        assert job.poll() is None, _said(place)
        assert time.monotonic() < deadline, _said(place)
        time.sleep(0.05)


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.deep
def test_a_job_of_two_machines_saves_at_the_signal_and_goes_on_when_it_is_queued_again(
    script: Callable[..., str],
    sbatch: Callable[[str], subprocess.Popen[str]],
    moto: str,
    dataset_folder: Path,
    tmp_path: Path,
) -> None:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="cluster")
    url, alone = "s3://cluster/run", tmp_path / "alone"
    text = script(str(dataset_folder), url)
    assert "--signal=B:USR1@" in text, "the script itself gets the signal"
    job = sbatch(text)
    _until(job, tmp_path, "step  3/12")
    job.send_signal(signal.SIGUSR1)
    told, _ = job.communicate(timeout=180)
    assert (tmp_path / "requeued").read_text() == "17\n", told + _said(tmp_path)
    facts = json.loads(Store(url).get("run.json"))
    assert facts["world_size"] == 2
    done = len(_lines(Store(url).get("metrics.jsonl").decode()))
    assert 3 <= done < 12, _said(tmp_path)
    files = {name.rpartition("/")[2] for name, _ in Store(url).list(f"checkpoints/step_{done:08d}")}
    assert files == {"__0_0.distcp", "__1_0.distcp", ".metadata", "progress.json"}
    assert f"checkpoints/step_{done:08d}.json" in {name for name, _ in Store(url).list("checkpoints")}

    (tmp_path / "requeued").unlink()
    job = sbatch(text)
    told, _ = job.communicate(timeout=300)
    assert job.returncode == 0, told + _said(tmp_path)
    assert f"going on after step {done}" in _said(tmp_path)
    assert not (tmp_path / "requeued").exists(), "a job that is done is not queued again"
    whole = ["pretrain", "--data", str(dataset_folder), "--out", str(alone), *OPTIONS.split()]
    assert command(whole) == 0
    found, other = _lines(Store(url).get("metrics.jsonl").decode()), _lines((alone / "metrics.jsonl").read_text())
    assert [line["step"] for line in found] == [line["step"] for line in other]
    for one, two in zip(found, other, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5), one["step"]
        assert one["images"] == two["images"]
    assert not list(tmp_path.glob("node*/trainer-run-*"))

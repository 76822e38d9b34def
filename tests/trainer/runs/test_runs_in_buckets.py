"""Runs by command line in a bucket: they end as on a disk, go on elsewhere, and are read by their url."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
import torch
from obstore.exceptions import PermissionDeniedError

from shardkit.cli import run as shardkit
from shardkit.storage import Store
from trainer.commands.cli import run as command
from trainer.runs import checkpoint, places

SECRET = "hunter2"
SMALL = """
--model.width 32 --model.depth 1 --model.heads 2 --model.decoder-width 32 --model.decoder-depth 1
--model.decoder-heads 2 --loader.split all --loader.batching packed:patch=8,level=1,per_step=4,tokens=512
--log.every 1 --log.pictures 4 --log.baseline 0 --log.no-tensorboard --optim.eps 1e-4
"""
LABELLED = """
--labels facts --objective.columns view --objective.kind multiclass --model.width 16 --model.depth 1 --model.heads 2
--loader.batching packed:level=2,patch=8,per_step=2,tokens=1024 --run.steps 2 --val.every 1 --save.every 1
--select.metric accuracy --log.pictures 0 --log.baseline 0 --log.no-tensorboard
"""

Lines = list[tuple[int, float, float]]


@pytest.fixture(scope="module")
def bucket(moto: str) -> str:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="trainings")
    return "s3://trainings"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where scratch folders lie: nothing stays there. Keys with a secret that nothing may show."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    yield folder
    assert not list(folder.glob("trainer-run-*"))


@pytest.fixture(scope="module")
def whole(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a disk that nothing happened to."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert command(_words(dataset_folder, out)) == 0
    return out


def _words(data: Path | str, out: Path | str, *more: str) -> list[str]:
    return [
        "pretrain",
        "--data",
        str(data),
        "--out",
        str(out),
        *SMALL.split(),
        *(more or ("--run.steps", "6", "--save.every", "2")),
    ]


def _lines(text: str) -> Lines:
    records = [json.loads(line) for line in text.splitlines()]
    return [(record["step"], record["loss"], record["grad_norm"]) for record in records]


def _lines_at(url: str) -> Lines:
    return _lines(Store(url).get("metrics.jsonl").decode())


def _tensors(run: Path) -> dict[str, torch.Tensor]:
    place = checkpoint.named(run)
    held = {name: torch.empty(shape) for name, shape in _shapes(place).items()}
    checkpoint.fill(place, held)
    return held


def _shapes(place: Path) -> dict[str, tuple[int, ...]]:
    from trainer.runs import unpickling

    there = unpickling.shapes(place).items()
    return {n.removeprefix("model."): shape for n, shape in there if n.startswith("model.") and shape is not None}


def _same_weights(url: str, run: Path) -> bool:
    with places.scratch():
        there, here = _tensors(places.read(url)), _tensors(run)
    return there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in here)


def _check_near(url: str, long: Path) -> None:
    """Compare a run in a bucket with one on a disk, whose processes or threads added in another order."""
    found, alone = _lines_at(url), _lines((long / "metrics.jsonl").read_text())
    for (step, loss, norm), (other_step, other, other_norm) in zip(found, alone, strict=True):
        assert step == other_step
        assert loss == pytest.approx(other, rel=1e-5), step
        assert norm == pytest.approx(other_norm, rel=1e-4), step
    with places.scratch():
        together, one = _tensors(places.read(url)), _tensors(long)
    for name, value in one.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=2e-5, msg=name)


def _check_no_secrets(url: str, said: str) -> None:
    assert SECRET not in said
    assert tempfile.gettempdir() not in said, "a folder that is gone is no use to a reader"
    for name, _ in Store(url).list(""):
        data = Store(url).get(name)
        assert SECRET.encode() not in data, name
        assert tempfile.gettempdir().encode() not in data, name


def test_a_run_whose_bucket_refused_goes_on_elsewhere_and_ends_as_one_on_a_disk(
    bucket: str, dataset_folder: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, put = f"{bucket}/refused/run", obstore.put

    def refused(store: Any, name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("checkpoints/step_00000004"):
            raise PermissionDeniedError(f"403 Forbidden: AccessDenied, key={SECRET}")
        return put(store, name, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", refused)
        assert command(_words(dataset_folder, url)) == 1
    told = capsys.readouterr()
    assert f"the checkpoint {url}/checkpoints/step_00000004 cannot be written: " in told.err
    assert "access refused" in told.err
    assert len(told.err.splitlines()) == 1
    assert not [name for name, _ in Store(url).list("") if "running" in name], "it has let go"
    assert command(_words(dataset_folder, url)) == 0
    said = capsys.readouterr().out
    assert "going on after step 2" in said
    assert f"report: {url}/report.html" in said
    assert _lines_at(url) == _lines((whole / "metrics.jsonl").read_text()), "bit for bit, no line lost or twice"
    assert _same_weights(url, whole)
    names = {name for name, _ in Store(url).list("")}
    assert names >= {"run.json", "metrics.jsonl", "report.html", "pictures/step_00000004.png"}
    _check_no_secrets(url, said + told.out + told.err)


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("s3://not-there/run", "s3://not-there/run: the bucket does not exist"),
        (f"s3://AKIA:{SECRET}@not-there/run?X-Amz-Signature={SECRET}", "s3://***@not-there/run"),
        ("http://127.0.0.1:9/run", "cannot be written to: name a folder, or a url of s3, gs or az"),
        ("ftp://host/run", "unknown scheme"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_before_any_training(
    moto: str, dataset_folder: Path, out: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(_words(dataset_folder, out)) == 1
    said = capsys.readouterr()
    assert told in said.err
    assert len(said.err.splitlines()) == 1
    assert SECRET not in said.err
    assert not said.out, "not a word of a training"


def test_missing_credentials_are_told_before_any_training(
    bucket: str, dataset_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    begun = time.monotonic()
    assert command(_words(dataset_folder, f"{bucket}/nobody")) == 1
    assert time.monotonic() - begun < 30
    said = capsys.readouterr()
    assert "there are no credentials for it: set AWS_ACCESS_KEY_ID" in said.err
    assert not said.out


@pytest.mark.parametrize("made", ["export RUN", "explain RUN --data DATA", "evaluate RUN --data DATA", "assess RUN"])
def test_what_other_commands_make_goes_to_a_disk_and_they_say_so(
    made: str, bucket: str, dataset_folder: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [{"RUN": str(whole), "DATA": str(dataset_folder)}.get(word, word) for word in made.split()]
    if words[0] == "assess":
        words += ["--data", str(dataset_folder), "--labels", "facts"]
    assert command([*words, "--out", f"{bucket}/page"]) == 1
    assert f"--out {bucket}/page is a url: this command writes to a disk" in capsys.readouterr().err


def test_commands_read_a_run_by_its_url(
    bucket: str, dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{bucket}/read/run"
    assert command(_words(dataset_folder, url, "--run.steps", "2")) == 0
    page = Store(url).get("report.html")
    Store(url).delete("report.html")
    assert command(["report", url]) == 0
    assert Store(url).get("report.html") == page
    for place in (url, f"{url}/checkpoints/step_00000002"):
        assert command(["export", place, "--grid", "4", "4", "--out", str(tmp_path / "encoder.pth")]) == 0
    assert shardkit(["replay", "--run", url, "--step", "1", "--out", str(tmp_path / "step.png")]) == 0
    capsys.readouterr()
    assert command(_words(dataset_folder, tmp_path / "next", "--run.steps", "1", "--init", url)) == 0
    assert f"all weights are those of {url}/checkpoints/step_00000002" in capsys.readouterr().out
    facts = json.loads((tmp_path / "next" / "run.json").read_text())
    assert facts["init"] == url
    assert tempfile.gettempdir() not in json.dumps(facts)
    assert command(["export", f"{bucket}/read", "--out", str(tmp_path / "no.pth")]) == 1
    assert f"{bucket}/read has no run.json: name the --out of a run" in capsys.readouterr().err
    assert command(["export", f"{url}/checkpoints/step_00000009", "--out", str(tmp_path / "no.pth")]) == 1
    assert "step_00000009 is not there" in capsys.readouterr().err


@pytest.mark.deep
def test_a_labelled_run_of_several_seeds_is_chosen_evaluated_and_explained_by_its_url(
    bucket: str, dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, local = f"{bucket}/labelled/views", tmp_path / "views"
    for out in (url, local):
        words = [
            "finetune",
            "--data",
            str(dataset_folder),
            "--out",
            str(out),
            *LABELLED.split(),
            "--run.seeds",
            "0",
            "1",
        ]
        assert command(words) == 0
    names = {name for name, _ in Store(url).list("")}
    assert names >= {f"seed_{seed}/{name}" for seed in (0, 1) for name in ("run.json", "best.json", "report.html")}
    for run in (url, local):
        words = ["evaluate", str(run), "--data", str(dataset_folder), "--no-pictures", "--bootstrap", "100"]
        assert command([*words, "--out", str(tmp_path / f"page-{run == url}")]) == 0
    one, two = (json.loads((tmp_path / f"page-{there}" / "scores.json").read_text()) for there in (True, False))
    for found in (one, two):  # they lie elsewhere, and torch's tables name folders
        assert all(len(about.pop("origin")) == len(about.pop("checkpoint")) - 32 for about in found["runs"][0]["about"])
    assert one == two
    assert tempfile.gettempdir() not in (tmp_path / "page-True" / "index.html").read_text()
    words = ["explain", f"{url}/seed_0", "--data", str(dataset_folder), "--samples", "2"]
    assert command([*words, "--out", str(tmp_path / "maps")]) == 0
    words = ["assess", f"{url}/seed_0/best", "--data", str(dataset_folder), "--labels", "facts"]
    words += ["--objective.columns", "view", "--out", str(tmp_path / "assessed")]
    assert command(words) == 0
    record = (tmp_path / "assessed" / "index.html").read_text()
    assert tempfile.gettempdir() not in record
    assert url in record


# ---- processes


def _start(words: list[str], folder: Path, *launcher: str) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    launch = [sys.executable, *launcher, "-m", "trainer", *words]
    return subprocess.Popen(launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def _until(process: subprocess.Popen[str], said: str) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if said in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


LONG = ("--run.steps", "12", "--save.every", "1000")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.fixture(scope="module")
def long(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "long"
    assert command(_words(dataset_folder, out, *LONG)) == 0
    return out


@pytest.mark.deep
def test_sigterm_ends_with_everything_put(bucket: str, dataset_folder: Path, long: Path, scratch: Path) -> None:
    url = f"{bucket}/asked/run"
    process = _start(_words(dataset_folder, url, *LONG), scratch)
    told = _until(process, "step  4/12")
    process.send_signal(signal.SIGTERM)
    told += process.communicate(timeout=60)[0]
    assert process.returncode == 143, told
    done = len(_lines_at(url))
    assert 4 <= done < 12
    names = {name for name, _ in Store(url).list("")}
    assert names >= {f"checkpoints/step_{done:08d}.json", "run.json", "report.html"}
    assert ".running.json" not in names
    assert not list(scratch.glob("trainer-run-*"))
    _check_no_secrets(url, told)
    assert command(_words(dataset_folder, url, *LONG)) == 0
    _check_near(url, long)


@pytest.mark.deep
def test_two_processes_read_and_write_a_bucket_and_one_goes_on_as_a_run_on_a_disk(
    bucket: str, dataset_folder: Path, long: Path, scratch: Path
) -> None:
    data, url = f"{bucket}/two/data", f"{bucket}/two/run"
    for path in dataset_folder.rglob("*"):
        if path.is_file():
            Store(data).put(path.relative_to(dataset_folder).as_posix(), path.read_bytes())
    words = _words(data, url, *LONG)
    process = _start(words, scratch, *TORCHRUN)
    told = _until(process, "step  4/12")
    process.send_signal(signal.SIGTERM)
    told += process.communicate(timeout=120)[0]
    done = len(_lines_at(url))
    assert 4 <= done < 12, told
    there = {name.rpartition("/")[2] for name, _ in Store(url).list(f"checkpoints/step_{done:08d}")}
    assert there == {"__0_0.distcp", "__1_0.distcp", ".metadata", "progress.json"}, told
    assert command(words) == 0
    _check_near(url, long)
    process = _start(_words(data, url, "--run.steps", "14"), scratch, *TORCHRUN)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert "going on after step 12" in told

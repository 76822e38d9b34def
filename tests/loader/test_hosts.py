"""Loaders and batches inside other people's programs: look-ahead, pinned memory, Lightning, Accelerate, Slurm."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from shardkit import Binned, BinnedBatch, Loader, Packed, PackedBatch, TorchDataset
from shardkit.loader.manifest_index import ManifestIndex

SMALL: dict[str, Any] = {"split": None, "device": "cpu", "window": 8}
PACKED = Packed(tokens=512, patch=16, per_step=2)
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def batches(dataset_folder: Path) -> list[BinnedBatch | PackedBatch]:
    """One packed, and one binned with empty places."""
    packed = next(iter(Loader(dataset_folder, batching=PACKED, **SMALL)))
    binned = Loader(dataset_folder, batching=Binned(batch_size=64, patch=16, per_step=1), **SMALL)
    return [packed, next(batch for batch in binned if (batch.rows < 0).any())]


def _ahead(loader: Iterable[Any]) -> Iterator[Any]:
    """Looks one batch ahead, as programs do that want to know which one is the last."""
    batches = iter(loader)
    held = next(batches)
    for batch in batches:
        yield held
        held = batch
    yield held


def test_who_looks_ahead_saves_the_state_after_the_batch_that_was_used(dataset_folder: Path, rows_of: Any) -> None:
    whole = rows_of(Loader(dataset_folder, batching=PACKED, **SMALL))
    loader = Loader(dataset_folder, batching=PACKED, **SMALL)
    *_, batch = itertools.islice(_ahead(loader), 3)
    assert loader.step == 2, "three batches were used, and four handed out"
    assert loader.state_dict(after=batch.position)["step"] == 1, "the second step's second batch was not used"
    *_, batch = itertools.islice(_ahead(Loader(dataset_folder, batching=PACKED, **SMALL)), 4)
    again = Loader(dataset_folder, batching=PACKED, **SMALL)
    again.load_state_dict(json.loads(json.dumps(loader.state_dict(after=batch.position))))
    assert rows_of(again) == whole[4:]
    positions = [b.position for b in Loader(dataset_folder, batching=PACKED, **SMALL)]
    assert [p.following for p in positions[:4]] == [(0, 0), (0, 1), (0, 1), (0, 2)]
    assert positions[-1].following == (1, 0)


def test_an_adapter_has_the_loader_s_length_and_state(dataset_folder: Path, rows_of: Any) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make() -> Any:
        return StatefulDataLoader(TorchDataset(Loader(dataset_folder, batching=PACKED, **SMALL)), batch_size=None)

    loader = Loader(dataset_folder, batching=PACKED, **SMALL)
    assert len(DataLoader(TorchDataset(loader), batch_size=None)) == len(TorchDataset(loader)) == len(loader)
    whole, first = rows_of(loader), make()
    batches = iter(first)
    for _ in range(4):
        next(batches)
    again = make()
    again.load_state_dict(first.state_dict())
    assert rows_of(again) == whole[4:]


def test_a_batch_is_read_by_name(batches: list[BinnedBatch | PackedBatch]) -> None:
    for batch in batches:
        as_dict = {**batch}
        assert set(as_dict) == set(batch.keys()) > {"rows", "seeds", "weight", "position"}
        assert all(value is batch[name] or name == "weight" for name, value in as_dict.items())
        assert as_dict["weight"].equal(batch.weight)
        assert "rows" in batch
        assert "pixels" not in batch
        with pytest.raises(KeyError, match=r"'pixels' is none of .* rows"):
            batch["pixels"]
        with pytest.raises(TypeError, match="not iterable"):
            list(batch)  # type: ignore[call-overload]
        copy = pickle.loads(pickle.dumps(batch))
        assert copy.rows.equal(batch.rows)
        assert copy.position == batch.position


def test_a_dataloader_pins_batches(
    dataset_folder: Path, batches: list[BinnedBatch | PackedBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batches[0].pin_memory() is batches[0], "there is no GPU to pin memory for"
    pinned = list[torch.Tensor]()

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    for batch in batches:
        copy = torch.utils.data._utils.pin_memory.pin_memory(batch)  # type: ignore[no-untyped-call]
        assert type(copy) is type(batch)
        assert copy.rows.equal(batch.rows)
        assert copy.rows is not batch.rows
        assert any(tensor is batch.rows for tensor in pinned)


def test_they_show_themselves_in_a_line_and_in_a_notebook_without_pixels(
    dataset_folder: Path, batches: list[BinnedBatch | PackedBatch], tags: Any
) -> None:
    loader = Loader(dataset_folder, batching=PACKED, **SMALL)
    for shown, words in (
        (loader, ["packed:per_step=2,tokens=512", str(dataset_folder), "split=all", "rank 0 of 1", "step=0"]),
        (loader.plan, ["packed:per_step=2,tokens=512", "seed=0", "so far"]),
        (batches[0], ["float32 (512, 256)", "images in", "epoch 0, step 0, micro-batch 1 of 2"]),
        (batches[1], ["images=float32 (64, 1,", "images in 64 places"]),
    ):
        line = repr(shown)
        assert "\n" not in line
        assert len(line) < 500
        html = shown._repr_html_()
        assert tags(html) == {"table", "thead", "tbody", "tr", "th", "td"}
        for word in words:
            assert word in line, line
            assert word.partition("=")[2] in html
    loader._index.url = "<script>alert(1)</script>"
    assert "<script" not in loader._repr_html_()
    assert repr(loader) in repr(TorchDataset(loader))


def _train_rows(dataset_folder: Path) -> list[int]:
    splits = ManifestIndex(str(dataset_folder)).columns("split")["split"].to_pylist()
    return [row for row, split in enumerate(splits) if split == "train"]


def test_the_lightning_example_resumes_at_the_exact_batch(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLES / "with_lightning.py"))["main"]
    torch.manual_seed(0)
    main(str(dataset_folder), str(tmp_path / "whole"))
    ends = [line for line in capsys.readouterr().out.splitlines() if "steps, loss" in line]
    torch.manual_seed(1)
    main(str(dataset_folder), str(tmp_path / "rest"), str(tmp_path / "whole" / "step=2.ckpt"))
    ends += [line for line in capsys.readouterr().out.splitlines() if "steps, loss" in line]
    assert ends[0] == ends[1]
    assert "epoch=2, step=0" in ends[0]


def test_the_accelerate_example_shows_every_image_once(
    dataset_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLES / "with_accelerate.py"))["main"](str(dataset_folder))
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"1 ranks, rank 0, rows {_train_rows(dataset_folder)}"


def _run(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.deep
def test_two_ranks_of_accelerate_share_the_images(dataset_folder: Path) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    out, error = _run([*launch, str(EXAMPLES / "with_accelerate.py"), str(dataset_folder)], {}).communicate(timeout=300)
    shares = re.findall(r"2 ranks, rank \d, rows (\[.*?\])", out)
    assert len(shares) == 2, error[-3000:]
    assert sorted(row for share in shares for row in json.loads(share)) == _train_rows(dataset_folder)


@pytest.mark.deep
def test_two_tasks_of_slurm_share_the_images(dataset_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free_port = server.getsockname()[1]
    usual = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port), "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}
    words = [str(EXAMPLES / "with_slurm.py"), str(dataset_folder)]
    tasks = [_run(words, {**usual, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(i)}) for i in range(2)]
    said = [task.communicate(timeout=300) for task in tasks]
    assert f"{len(_train_rows(dataset_folder))} images in all" in said[0][0], said[0][1][-3000:]


@pytest.mark.deep
def test_two_ranks_of_lightning_share_the_images_of_a_loader_made_before_them(
    dataset_folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "two.py"
    script.write_text(
        f"import runpy, sys\nnamespace = runpy.run_path({str(EXAMPLES / 'with_lightning.py')!r})\n"
        "main, seen = namespace['main'], []\n"
        "main.__globals__['RANKS'] = 2\n"
        "step = namespace['Autoencoder'].training_step\n"
        "def training_step(self, batch, index):\n"
        "    seen.extend(r for r in batch.rows.tolist() if r >= 0)\n"
        "    return step(self, batch, index)\n"
        "namespace['Autoencoder'].training_step = training_step\n"
        "main(*sys.argv[1:3])\n"
        "import torch.distributed as dist\n"
        "shares = [None, None]\n"
        "dist.all_gather_object(shares, seen)\n"
        "print('shares', shares, flush=True)\n"
    )
    out, error = _run([str(script), str(dataset_folder), str(tmp_path / "run")], {}).communicate(timeout=300)
    found = re.search(r"shares (\[\[.*\]\])", out)
    assert found, error[-3000:]
    shares = json.loads(found[1])
    assert sorted(shares[0] + shares[1]) == sorted(2 * _train_rows(dataset_folder)), "each image once in either epoch"

"""Predictions hold each sample of a split once: on one process or two, in any batches, with a substitute or without."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from shardkit import Loader
from shardkit.loader.manifest_index import ManifestIndex
from tests.trainer.evaluate.folders import ABOUT
from trainer import parallel
from trainer.config import Config
from trainer.evaluate import collect
from trainer.evaluate.collect import _is_there
from trainer.evaluate.predict import Question, each_once, predict
from trainer.evaluate.predictions import Predictions, write
from trainer.parallel import World
from trainer.recipes.registry import RECIPES
from trainer.runs.training_data import split_rows

PACKED, BINNED, RESIZED = (
    "packed:level=1,patch=16,per_step=2,tokens=256",
    "binned:batch_size=3,patch=16,per_step=2",
    "resized:batch_size=4,patch=16,per_step=2,side=32",
)


class Named(nn.Module):
    """Scores that say which row an image is of."""

    def forward(self, batch: Any) -> Tensor:
        rows = batch.rows.double()
        return torch.stack([rows, -rows], 1)


def _loader(folder: Path, batching: str = PACKED, rank: int = 0, size: int = 1, split: str | None = None) -> Loader:
    options: dict[str, Any] = {"rank": rank, "world_size": size, "device": "cpu", "max_bad": 0.5}
    return Loader(folder, batching=batching, split=split, **options)


def _question(loader: Loader) -> Question:
    rows = len(loader.bins()[1])
    targets = np.stack([np.arange(rows) % 2, np.full(rows, np.nan)], 1).astype(np.float64)
    return Question(ABOUT, loader, targets)


def _predicted(loader: Loader) -> Predictions:
    found = predict(_question(loader), Named(), nullcontext)
    assert found is not None
    return found


def _kept(shares: list[Any], own: Any) -> list[Any]:
    shares.append(own)
    return shares


@pytest.mark.parametrize("batching", [PACKED, BINNED, RESIZED])
def test_each_sample_of_a_split_is_there_once_with_its_own_facts_and_targets(
    dataset_folder: Path, batching: str
) -> None:
    found = _predicted(_loader(dataset_folder, batching, split="train"))
    names = ["key", "patient", "view", "sex", "body_part", "split"]
    rows = pq.read_table(dataset_folder / "manifest.parquet", columns=names).to_pylist()
    by_key = {row["key"]: (at, row) for at, row in enumerate(rows) if row["split"] == "train"}
    assert found.keys == sorted(by_key)
    for key, score, target, facts in zip(found.keys, found.scores, found.targets, found.table.to_pylist(), strict=True):
        at, row = by_key[key]
        assert score.tolist() == [at, -at]
        assert target[0] == at % 2
        assert np.isnan(target[1])
        assert [facts[name] for name in names[1:-1]] == [row[name] for name in names[1:-1]]


def test_two_processes_say_together_what_one_says(dataset_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _predicted(_loader(dataset_folder))
    shares: list[Any] = []
    for rank in (1, 0):
        monkeypatch.setattr(parallel, "gathered", lambda own: _kept(shares, own))
        found = predict(_question(_loader(dataset_folder, rank=rank, size=2)), Named(), nullcontext)
        assert (found is None) == (rank == 1), "the first process has them"
    assert found is not None
    assert all(len(rows) for rows, _ in shares)
    assert found.table.equals(alone.table)


def test_a_substitute_counts_once_and_the_image_that_it_stands_for_is_named(
    dataset_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(dataset_folder, folder)
    index = ManifestIndex(str(folder))
    bad = index.detail(index.rows // 2)
    path = folder / bad.shard.shard
    data = bytearray(path.read_bytes())
    data[bad.start(0) + bad.prefix(0) // 2] ^= 1
    path.write_bytes(bytes(data))
    whole = "packed:patch=16,per_step=2,tokens=1024"
    seen = [row for batch in _loader(folder, whole) for row in batch.rows.tolist() if row >= 0]
    assert (len(seen), len(set(seen))) == (index.rows, index.rows - 1), "one is there twice, in place of another"
    sound, found = (_predicted(_loader(one, whole)) for one in (dataset_folder, folder))
    assert found.keys == [key for key in sound.keys if key != bad.key]
    assert [note for note in found.about.notes if bad.key[:12] in note]
    assert replace(found.about, notes=()) == replace(sound.about, notes=())
    for about, there in ((sound.about, True), (found.about, False)):
        write(Predictions(about, found.table), tmp_path / "predictions.parquet")
        assert _is_there(tmp_path / "predictions.parquet", replace(about, notes=())) == there, "it may be sound now"


def test_rows_of_several_processes_are_put_in_order_each_once() -> None:
    nothing: Any = (np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
    one: Any = (np.array([5, 2, 5]), np.array([[0.5], [0.2], [0.5]]))
    two: Any = (np.array([1, 2]), np.array([[0.1], [0.2]]))
    rows, scores = each_once([nothing, one, two])
    assert rows.tolist() == [1, 2, 5]
    assert scores.ravel().tolist() == [0.1, 0.2, 0.5]


def test_what_is_wanted_is_the_split(dataset_folder: Path) -> None:
    split = np.array(pq.read_table(dataset_folder / "manifest.parquet", columns=["split"])["split"].to_pylist())
    assert split_rows(_loader(dataset_folder, split="test")).tolist() == np.flatnonzero(split == "test").tolist()


def test_a_site_is_asked_by_a_decoder_that_its_codec_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be stored by another codec than what the run was trained on."""
    asked = list[str]()

    def opened(config: Config, *rest: Any) -> Any:
        asked.append(config.loader.decoder)
        return SimpleNamespace(members={"": range(0)})

    monkeypatch.setattr(collect, "open_loader", opened)
    recipe = RECIPES["tiny-finetune"].config
    run: Any = SimpleNamespace(config=replace(recipe, loader=replace(recipe.loader, decoder="dali")))
    about: Any = SimpleNamespace(normalise="minmax", split="val")
    collect._open(run, "site", about, World(0, 1, torch.device("cpu")))
    assert asked == ["auto"]

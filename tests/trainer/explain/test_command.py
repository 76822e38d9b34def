"""`python -m trainer explain`: page, numbers and maps of a task's run and of a pre-trained one, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from shardkit import Dataset
from shardkit import labels as tables
from shardkit.cli import run as shardkit
from shardkit.labels import LabelsDescription, LabelTable
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.storage import Store
from trainer.commands.cli import run as command
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig, SaveConfig, ValConfig
from trainer.explain.opened import open_run, plain_loader
from trainer.models.mae import MaeConfig
from trainer.recipes.base import Recipe
from trainer.recipes.registry import RECIPES
from trainer.tasks.config import TaskConfig

MODEL = MaeConfig(patch=8, width=32, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
CONFIG = Config(
    model=MODEL,
    loader=LoaderConfig(batching="packed:patch=8,level=1,per_step=1,tokens=1024,flip=0.5,crop=0.5/1"),
    optim=OptimConfig(lr=1e-3),
    run=RunConfig(precision="fp32", compile=False, steps=1),
    save=SaveConfig(every=10),
    val=ValConfig(every=0),
    log=LogConfig(every=1, pictures=0, baseline=0, tensorboard=False),
)
BOXED = 7


def boxes_of(data: Dataset) -> pa.Table:
    """Return a box for each of some samples, two for the first, and one of a class that no run has."""
    keys = data.filter(split="train").keys[:BOXED]
    rows = [(key, "Fracture" if at % 2 else "Effusion", 10.0, 20.0, 30.0, 25.0) for at, key in enumerate(keys)]
    rows += [(keys[0], "Effusion", 50.0, 20.0, 30.0, 25.0), (keys[1], "Nodule", 50.0, 20.0, 30.0, 25.0)]
    names = ("key", "label", "top", "left", "height", "width")
    return pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})


@pytest.fixture(scope="module")
def place(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a dataset that has labels, with boxes and without, and a run of each kind."""
    folder = tmp_path_factory.mktemp("explain")
    shutil.copytree(dataset_folder, folder / "data")
    data = Dataset(str(folder / "data"))
    binary = {name: [at % 2 for at in range(len(data))] for name in ("Effusion", "Fracture")}
    values = {"key": data.keys, **{name: pa.array(v, pa.int8()) for name, v in binary.items()}}
    official = [("train", "test")[at % 3 == 0] for at in range(len(data))]
    for name, boxes, split in (("findings", boxes_of(data), [None] * len(data)), ("plain", None, official)):
        columns = values | {"split": pa.array(split, pa.string())}
        about = LabelsDescription(
            name=name,
            level="image",
            kinds=dict.fromkeys(binary, "binary"),
            rows={"matched": len(data), "ambiguous": 0, "unmatched": 0},
        )
        tables.write(Store(str(folder / "data")), LabelTable(about, pa.table(columns), boxes))
    task = Config(**{**vars(CONFIG), "objective": TaskConfig(labels="findings")})
    by_table = replace(CONFIG, loader=replace(CONFIG.loader, split="plain:train"))
    with pytest.MonkeyPatch.context() as patch:
        for name, config in (("mae", CONFIG), ("task", task), ("official", by_table)):
            patch.setitem(RECIPES, name, Recipe(config, "this test", ""))
            words = ["--recipe", name, "--data", str(folder / "data"), "--out", str(folder / name)]
            assert command(["pretrain", *words]) == 0
    yield folder
    shutil.rmtree(folder)


def explain(place: Path, run: str, *more: str, out: str = "maps") -> int:
    return command(["explain", str(place / run), "--data", str(place / "data"), "--out", str(place / out), *more])


def test_a_tasks_maps_are_held_against_all_boxes_of_its_classes(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(place, "task", "--labels", "findings", "--split", "all", "--save-maps", "--samples", "3") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Grad-CAM of task/checkpoints/step_00000001, step 1: 7 images, 8 boxes" in said
    assert "Boxes of Nodule are left out: the run has no such class." in said
    assert "The run was trained on 7 of these 7 images." in said
    told = json.loads((place / "maps" / "boxes.json").read_text())
    assert told["about"]["layer"] == "blocks.-1.norm1"
    assert "crop" not in told["about"]["batching"]
    assert len(told["boxes"]) == 8
    assert [each["key"] for each in told["boxes"]] == sorted(each["key"] for each in told["boxes"])
    for protocol in ("component", "mask"):
        scores, curves = told["scores"][protocol], told["curves"]["run"][protocol]
        searched = scores["searched"]["run"]
        at = told["thresholds"].index(searched["threshold"])
        assert searched["ap25"] == curves["ap25"][at] == np.mean([b["iou"][protocol] > 0.25 for b in told["boxes"]])
        assert set(scores["searched"]) == {"run", "centre", "random"}
        assert sum(own["boxes"] for own in scores["by_class"].values()) == 8
    page = (place / "maps" / "index.html").read_text()
    assert "This page holds pictures of the data" in page
    assert page.count("data:image/jpeg;base64,") == 6, "three images, each with its map"
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page), "one file, without requests"
    assert page.count("<svg") == 2
    saved = sorted((place / "maps" / "maps").glob("*.npz"))
    assert [path.stem for path in saved] == sorted({each["key"] for each in told["boxes"]})
    with np.load(saved[0]) as file:
        rows, cols = file["maps"].shape[1:]
        assert file["maps"].dtype == np.float16
        assert (len(file["ys"]), len(file["xs"])) == (rows + 1, cols + 1)
        assert set(file["classes"]) <= {"Effusion", "Fracture"}
    before = (place / "maps" / "index.html").read_bytes(), (place / "maps" / "boxes.json").read_bytes()
    assert explain(place, "task", "--labels", "findings", "--split", "all", "--samples", "3") == 0
    assert before == ((place / "maps" / "index.html").read_bytes(), (place / "maps" / "boxes.json").read_bytes())


def test_images_of_the_training_are_known_in_a_dataset_that_has_grown(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "task", place / "grown")
    facts = json.loads((place / "grown" / "run.json").read_text())
    facts["trained"][0]["digest"] = facts["digest"] = "before it grew"
    (place / "grown" / "run.json").write_text(json.dumps(facts))
    key = Dataset(str(place / "data")).filter(split="train").keys[-1]
    assert explain(place, "grown", "--keys", key, out="of grown") == 0
    assert "The run was trained on 1 of these 1 images" in " ".join(capsys.readouterr().out.split())


def test_one_class_and_chosen_samples(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--labels", "findings", "--class", "Fracture", "--split", "all")
    assert explain(place, "task", *more, out="one") == 0
    told = json.loads((place / "one" / "boxes.json").read_text())
    assert {each["label"] for each in told["boxes"]} == {"Fracture"}
    key = Dataset(str(place / "data")).filter(split="val").keys[0]
    assert explain(place, "task", "--keys", key, "--class", "Effusion", out="key") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 images No --labels were named: maps are held against no boxes." in said
    assert f"sample {key}" in (place / "key" / "index.html").read_text()


def test_a_pre_trained_runs_anomalies_are_held_against_boxes_of_every_class(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--labels", "findings", "--split", "train", "--masks", "3", "--samples", "2")
    assert explain(place, "mae", *more, out="anomaly") == 0
    told = json.loads((place / "anomaly" / "boxes.json").read_text())
    assert (told["about"]["masks"], told["about"]["rounds"]) == (4, 2), "whole rounds"
    assert len(told["boxes"]) == 9
    assert set(told["scores"]["mask"]["by_class"]) == {"Effusion", "Fracture", "Nodule"}
    page = (place / "anomaly" / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 8, "image, reconstruction, error, map"
    capsys.readouterr()
    assert explain(place, "mae", "--method", "rollout", "--labels", "plain", "--samples", "2", out="plain") == 0
    said = capsys.readouterr().out
    assert "The labels plain have no boxes: maps are held against none." in said
    assert "2 images" in said


def test_an_image_that_cannot_be_read_is_left_out_by_name_and_no_other_counts_for_it(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    boxed = boxes_of(Dataset(str(place / "data")))["key"].to_pylist()
    plan = plain_loader(open_run(place / "task", torch.device("cpu")).facts, str(tmp_path / "data"), boxed, 0).plan
    [micro, *_] = plan[0]
    row = next(int(micro.crops.row[at]) for at in range(len(micro.crops)) if micro.substitutes(at))
    bad = ManifestIndex(str(tmp_path / "data")).detail(row)
    assert boxed.count(bad.key) == 1
    path = tmp_path / "data" / bad.shard.shard
    data = bytearray(path.read_bytes())
    data[bad.start(0)] ^= 1
    path.write_bytes(bytes(data))
    words = ["explain", str(place / "task"), "--data", str(tmp_path / "data"), "--split", "all"]
    assert command([*words, "--labels", "findings", "--out", str(tmp_path / "maps")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "6 images, 7 boxes" in said
    assert f"Left out with their boxes, as they could not be read: {bad.key}." in said
    assert "The run was trained on 6 of these 6 images" in said
    found = [each["key"] for each in json.loads((tmp_path / "maps" / "boxes.json").read_text())["boxes"]]
    assert found == sorted(key for key in boxed[:-1] if key != bad.key)
    assert command([*words, "--keys", bad.key, "--out", str(tmp_path / "one")]) == 1
    assert f"{bad.key} could not be read: run shardkit verify" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "one").exists()


@pytest.mark.deep
def test_training_images_are_told_of_a_mixture_of_runs_before_and_as_not_known_where_nobody_can_tell(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed.json"
    assert shardkit(["mix", str(mixed), f"a={place / 'data'}:1"]) == 0
    words = ["pretrain", "--recipe", "mae", "--data", str(mixed), "--out", str(tmp_path / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "mae", Recipe(CONFIG, "this test", ""))
        assert command(words) == 0
    shutil.copytree(place / "official", tmp_path / "later")
    facts = json.loads((tmp_path / "later" / "run.json").read_text())
    (tmp_path / "later" / "run.json").write_text(json.dumps({**facts, "init": str(tmp_path / "run")}))
    train = Dataset(str(place / "data")).filter(split="train").keys[:2]
    told = []
    for run in ("run", "later"):
        words = ["explain", str(tmp_path / run), "--data", str(place / "data"), "--method", "rollout"]
        assert command([*words, "--keys", *train, "--out", str(tmp_path / "maps")]) == 0
        told += json.loads((tmp_path / "maps" / "boxes.json").read_text())["notes"][1:]
    assert told == [
        f"{who} was trained on 2 of these 2 images." for who in ("The run", "The run, or one that it began with,")
    ]
    mixed.unlink()
    words = ["explain", str(tmp_path / "run"), "--data", str(place / "data"), "--method", "rollout"]
    assert command([*words, "--keys", *train, "--out", str(tmp_path / "maps")]) == 0
    assert "Whether the run was trained on these images is not known." in " ".join(capsys.readouterr().out.split())


def test_boxes_elsewhere_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(place, "task", "--labels", "findings", "--split", "val", "--samples", "2", out="val") == 0
    assert "The split val has 0 of the 9 boxes: --split all takes those of training, too." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "more", "said"),
    [
        ("task", ("--method", "anomaly"), "anomaly maps need a decoder, and"),
        ("mae", ("--method", "gradcam"), "Grad-CAM needs classes, and"),
        ("task", ("--class", "Hernia"), "the run has no class 'Hernia': choose --class of Effusion, Fracture"),
        ("mae", ("--labels", "findings", "--class", "Hernia"), "have no box of 'Hernia': there are Effusion, Fracture"),
        ("task", ("--labels", "nih14"), "has no labels named nih14: there are findings, plain"),
        ("task", ("--keys", "zzz"), "no sample has a key that starts with 'zzz'"),
        ("task", ("--layer", "blocks.9.norm1"), "there is no --layer blocks.9.norm1"),
        ("nothing", (), "nothing does not exist"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_sentence(
    place: Path, run: str, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(place, run, "--split", "all", "--samples", "2", *more, out="refused") == 1
    found = " ".join(capsys.readouterr().err.split())
    assert said in found
    assert not (place / "refused").exists()


@pytest.mark.parametrize(("run", "split"), [("mae", "test"), ("official", "plain:test")])
def test_the_split_is_the_one_that_the_run_is_evaluated_on(place: Path, run: str, split: str) -> None:
    assert explain(place, run, "--method", "rollout", "--samples", "1", out=f"usual {run}") == 0
    assert json.loads((place / f"usual {run}" / "boxes.json").read_text())["about"]["split"] == split


def test_a_folder_of_seeds_asks_for_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "seeds" / "seed_0").mkdir(parents=True)
    (place / "seeds" / "seed_0" / "run.json").write_text("{}")
    assert explain(place, "seeds", out="refused") == 1
    assert "holds runs of 1 seeds: name one of them, such as" in " ".join(capsys.readouterr().err.split())

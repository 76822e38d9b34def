"""What a command makes of what it finds in a run's folder: damage, other versions, other data, other commands."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from shardkit import Dataset, Loader, from_text
from shardkit.errors import ArgumentError, ShardkitError
from shardkit.loader.replay_run import at_step
from shardkit.storage import locks
from shardkit.synthetic.export import make_export
from trainer.commands.cli import run as command
from trainer.config import OptimConfig
from trainer.errors import TrainingError
from trainer.models.mae import Mae, MaeConfig
from trainer.optim import optimizer
from trainer.recipes.registry import RECIPES
from trainer.runs import checkpoint, unpickling
from trainer.runs.start import Job, _steps, one_length
from trainer.runs.state import TrainingState
from trainer.schedule import Schedule

BATCHING = "packed:patch=8,level=1,per_step=2,tokens=512"
SMALL = f"""
--model.width 32 --model.depth 1 --model.heads 2
--model.decoder-width 32 --model.decoder-depth 1 --model.decoder-heads 2
--loader.batching {BATCHING} --optim.lr 0.001 --run.steps 4 --save.every 1 --save.keep 3
--log.every 1 --log.pictures 0 --log.baseline 0 --val.every 0
"""
MODEL = MaeConfig(patch=8, width=32, depth=1, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)

Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def words(dataset_folder: Path) -> Words:
    def make(out: Path, *more: str, data: Path | None = None) -> list[str]:
        options = [*SMALL.split(), *more]
        pairs = dict(zip(options[::2], options[1::2], strict=True))
        pairs = {"--data": str(data or dataset_folder), "--out": str(out), **pairs}
        return ["pretrain", *(word for pair in pairs.items() for word in pair), "--log.no-tensorboard"]

    return make


@pytest.fixture(scope="module")
def trained(words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert command(words(out)) == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def all_of_it() -> str:
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        return " ".join((told.out + told.err).split())

    return all_of_it


def _weights(out: Path) -> dict[str, torch.Tensor]:
    model = Mae(MODEL)
    checkpoint.weights(checkpoint.named(out), model)
    return model.state_dict()


def _same(one: Path, two: Path) -> bool:
    there = _weights(two)
    return all(torch.equal(value, there[name]) for name, value in _weights(one).items())


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _place(out: Path, step: int) -> Path:
    return out / "checkpoints" / f"step_{step:08d}"


def _back_to(out: Path, step: int) -> None:
    """As if the run had been killed after a step's checkpoint."""
    for place in out.glob("checkpoints/step_*"):
        if int(place.name[5:]) > step:
            shutil.rmtree(place)


# --- nothing that lies in a checkpoint is run


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def _spoil_table(place: Path, mark: Path) -> None:
    import pickle

    (place / ".metadata").write_bytes(pickle.dumps(_Payload(mark)))


def _spoil_value(place: Path, mark: Path) -> None:
    """A plain value of the optimiser's, which torch saves as a pickle of its own."""
    facts = (place / "progress.json").read_text()
    torch.manual_seed(0)
    model = Mae(MODEL)
    adam = optimizer(model, OptimConfig(lr=1e-3))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    adam.step()
    held = TrainingState(model, adam, None, 0).tensors()
    held["optim"]["param_groups.cls_token.lr"] = _Payload(mark)
    shutil.rmtree(place)
    dcp.save(held, checkpoint_id=place, no_dist=True)
    (place / "progress.json").write_text(facts)


@pytest.mark.parametrize("way", ["--init", "go on", "export"])
def test_a_table_of_contents_with_code_in_it_is_refused_and_not_run(
    run: Path, words: Words, tmp_path: Path, said: Any, way: str
) -> None:
    for place in run.glob("checkpoints/step_*"):
        _spoil_table(place, tmp_path / "ran")
    commands = {
        "--init": words(tmp_path / "new", "--init", str(run)),
        "go on": words(run, "--run.steps", "5"),
        "export": ["export", str(run), "--grid", "3", "4", "--out", str(tmp_path / "e.pth")],
    }
    assert command(commands[way]) == 1
    assert "names posix.mkdir, which no checkpoint of weights has" in said()
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "new").exists()


def test_a_plain_value_with_code_in_it_is_refused_and_not_run(
    run: Path, words: Words, tmp_path: Path, said: Any
) -> None:
    _spoil_value(_place(run, 4), tmp_path / "ran")
    assert command(words(run, "--run.steps", "5")) == 1
    assert "cannot be read" in said()
    assert not (tmp_path / "ran").exists()


def test_files_outside_a_checkpoint_are_not_read(run: Path) -> None:
    place = _place(run, 4)
    for info in (table := dcp.FileSystemReader(place).read_metadata()).storage_data.values():
        info.relative_path = f"../step_00000003/{info.relative_path}"
    import pickle

    (place / ".metadata").write_bytes(pickle.dumps(table))
    with pytest.raises(TrainingError, match="outside its folder"):
        checkpoint.weights(place, Mae(MODEL))


# --- damage


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _rot(place: Path) -> None:
    """Turn one bit in the middle of the largest value."""
    info = max(dcp.FileSystemReader(place).read_metadata().storage_data.values(), key=lambda info: info.length)
    file = place / info.relative_path
    data = bytearray(file.read_bytes())
    data[info.offset + info.length // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "lacks"),
    [
        (lambda p: next(p.glob("*.distcp")).unlink(), "distcp is missing"),
        (lambda p: _shorten(next(p.glob("*.distcp"))), "distcp is cut short"),
        (_rot, "distcp is damaged at byte"),
        (lambda p: (p / "progress.json").write_text(""), "progress.json is damaged"),
        (lambda p: (p / "progress.json").unlink(), "progress.json is missing"),
        (lambda p: (p / ".metadata").write_bytes(b""), ".metadata is damaged"),
        (lambda p: _shorten(p / ".metadata"), ".metadata is damaged"),
        (lambda p: (p / ".metadata").unlink(), ".metadata is missing"),
    ],
)
def test_whatever_a_checkpoint_lacks_the_one_before_is_taken(run: Path, spoil: Any, lacks: str) -> None:
    spoil(_place(run, 4))
    found = checkpoint.newest(run / "checkpoints")
    assert found.path == _place(run, 3)
    assert lacks in found.told


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    run: Path, trained: Path, words: Words, said: Any
) -> None:
    _shorten(next(_place(run, 4).glob("*.distcp")))
    assert command(words(run, "--save.keep", "1")) == 0
    assert "going on after step 3 (step_00000004 is not whole: __0_0.distcp is cut short; set aside" in said()
    assert _same(run, trained)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step_00000004", "step_00000004.damaged"]


def test_a_run_without_any_whole_checkpoint_says_what_to_remove(run: Path, words: Words, said: Any) -> None:
    for place in run.glob("checkpoints/step_*"):
        (place / "progress.json").unlink()
    assert command(words(run)) == 1
    assert "no whole checkpoint" in (told := said())
    assert "remove the folder to begin anew" in told


@pytest.mark.parametrize("content", ["", "[]", '{"config": {}}'])
def test_a_damaged_description_has_a_remedy_that_works(
    run: Path, trained: Path, words: Words, said: Any, content: str
) -> None:
    _back_to(run, 3)
    (run / "run.json").write_text(content)
    assert command(words(run)) == 1
    assert "remove it and go on" in said()
    (run / "run.json").unlink()
    assert command(words(run)) == 0
    assert "going on after step 3" in said()
    assert _same(run, trained)


def test_options_that_came_or_went_between_versions_are_told(run: Path, words: Words, said: Any) -> None:
    about = json.loads((run / "run.json").read_text())
    clip = about["config"].pop("optim.clip")
    (run / "run.json").write_text(json.dumps(about))
    assert command(words(run)) == 0
    assert f"older than the option --optim.clip: it goes on with {clip}" in said()
    about["config"]["optim.twist"] = 3
    (run / "run.json").write_text(json.dumps(about))
    assert command(words(run)) == 1
    assert "--optim.twist 3, which this one does not know" in said()


# --- other commands at the same time, and failed ones


def test_a_second_command_on_a_run_is_refused_and_changes_nothing(run: Path, words: Words, said: Any) -> None:
    _back_to(run, 3)
    before = sorted(p.name for p in run.rglob("*"))
    with locks.held(run, lambda place, known: RuntimeError(place)):
        assert command(words(run)) == 1
    assert "another training is running (" in said()
    assert sorted(p.name for p in run.rglob("*")) == before
    assert command(words(run)) == 0


def test_a_start_that_fails_leaves_no_folder(words: Words, tmp_path: Path, said: Any) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    for init in ("nowhere.pth", str(tmp_path / "other.pth")):
        assert command(words(tmp_path / "new", "--init", init)) == 1
        assert f"--init {init}" in said()
        assert not (tmp_path / "new").exists()


@pytest.mark.deep
def test_weights_to_begin_with_are_not_needed_again(words: Words, tmp_path: Path, said: Any) -> None:
    torch.save(Mae(MODEL).state_dict(), tmp_path / "init.pth")
    ask = words(tmp_path / "run", "--init", str(tmp_path / "init.pth"))
    assert command(ask) == 0
    (tmp_path / "init.pth").unlink()
    _back_to(tmp_path / "run", 3)
    assert command(ask) == 0
    assert "going on after step 3" in said()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["init"] == str(tmp_path / "init.pth")


# --- more steps, more data


def test_a_finished_run_says_so_and_trains_on_when_asked_for_more_steps(run: Path, words: Words, said: Any) -> None:
    assert command(words(run)) == 0
    assert "has all its 4 steps" in said()
    assert command(words(run, "--run.steps", "6")) == 0
    assert "has 6 steps now, and had 4: from step 5 on, learning rates are those of a run of 6" in said()
    schedule = Schedule(peak=1e-3, warmup=1, total=6)
    assert [line["step"] for line in _lines(run)] == list(range(1, 7))
    assert [line["lr"] for line in _lines(run)[4:]] == [schedule.at(4), schedule.at(5)]
    assert json.loads((run / "run.json").read_text())["changes"] == {"4": {"steps": 6}}
    assert command(words(run, "--run.steps", "5")) == 1
    assert "has trained 6 steps" in said()


def test_a_command_that_does_not_say_how_long_goes_on_to_the_run_s_own_end(run: Path, words: Words, said: Any) -> None:
    typed = words(run)
    at = typed.index("--run.steps")
    shorter = typed[:at] + typed[at + 2 :]
    for _ in range(2):
        assert command(shorter) == 0
        assert "has all its 4 steps" in said(), "and not the recipe's 300"
    assert json.loads((run / "run.json").read_text())["config"]["run.steps"] == 4


@pytest.fixture(scope="module")
def grown(make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset, and the same after files were added."""
    place = tmp_path_factory.mktemp("grown")
    make_export(place / "export", 5, seed=5, defects=0.0, scale=0.05)
    options = {"bins": "auto:2", "near_duplicates": "report"}
    before = make_dataset(place / "export", place / "data", **options)
    shutil.copytree(before, place / "before")
    make_export(place / "export" / "more", 5, seed=6, defects=0.0, scale=0.05)
    return place / "before", make_dataset(place / "export", place / "data", **options)


@pytest.mark.deep
def test_a_run_goes_on_with_a_dataset_that_grew_only_when_told_to(
    grown: tuple[Path, Path], words: Words, tmp_path: Path, said: Any
) -> None:
    before, after = grown
    out, length = tmp_path / "run", ("--run.steps", "8")
    assert command(words(out, *length, data=before)) == 0
    assert command(words(out, *length, data=after)) == 0, "finished all the same"
    told = said()
    assert "has all its 8 steps" in told
    assert f"the dataset of {after} has changed since {out} was trained" in " ".join(told.split())
    _back_to(out, 6)
    epoch = unpickling.progress(_place(out, 6))["loader"]["epoch"]
    assert command(words(out, *length, data=after)) == 1
    assert "go on with --run.on-new-data restart-epoch" in said()
    moments = _place(out, 6)
    assert command(words(out, *length, "--run.on-new-data", "restart-epoch", data=after)) == 0
    assert f"the dataset has changed since step 6: epoch {epoch} begins anew" in said()
    assert [line["step"] for line in _lines(out)] == list(range(1, 9))
    assert _lines(out)[6]["lr"] == pytest.approx(Schedule(peak=1e-3, warmup=1, total=8).at(6))
    assert _lines(out)[6]["epoch"] == epoch
    assert moments.exists()
    facts = json.loads((out / "run.json").read_text())
    change = facts["changes"]["6"]
    assert [one["digest"] for one in facts["trained"]] == [Dataset(str(of)).description.digest for of in grown]
    digest = Loader(after, batching=from_text(BATCHING), device="cpu").state_dict()["manifest_digest"]
    assert change == {"digest": digest, "data": str(after), "epoch": epoch}
    loader, at = at_step(out, 7, None)
    assert (loader.epoch, at) == (epoch, 0), "the first step on the new dataset"
    with pytest.raises(ArgumentError, match="changed after step 6"):
        at_step(out, 6, None)


def test_a_step_of_the_log_is_found_in_its_epoch(trained: Path, dataset_folder: Path, grown: tuple[Path, Path]) -> None:
    loader, count = Loader(dataset_folder, batching=from_text(BATCHING), device="cpu", max_bad=1.0), 0
    wanted: dict[int, tuple[int, int]] = {}
    for epoch in range(3):
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch})
        for step in range(len(loader.plan)):
            count += 1
            wanted[count] = epoch, step
    facts = json.loads((trained / "run.json").read_text())
    (trained.parent / "long").mkdir()
    (trained.parent / "long" / "run.json").write_text(json.dumps({**facts, "steps": count}))
    for step in np.linspace(1, count, 7).astype(int).tolist():
        found, at = at_step(trained.parent / "long", step, None)
        assert (found.epoch, at) == wanted[step]
    assert found.window == facts["config"]["loader.window"] == 256
    config = {**facts["config"], "loader.window": 3}
    (trained.parent / "long" / "run.json").write_text(json.dumps({**facts, "steps": count, "config": config}))
    assert at_step(trained.parent / "long", 1, None)[0].window == 3
    for step in (0, count + 1):
        with pytest.raises(ArgumentError, match=f"has no step {step}"):
            at_step(trained.parent / "long", step, None)
    with pytest.raises(ArgumentError, match="is not the dataset that"):
        at_step(trained, 1, str(grown[0]))
    with pytest.raises(ShardkitError, match=r"run\.json does not exist"):
        at_step(trained / "checkpoints", 1, None)


# --- how long a run is


@pytest.mark.parametrize(
    ("typed", "begun", "steps"),
    [
        ({"epochs": 10}, None, 70),
        ({}, None, 300),
        ({"steps": 20}, {"run.steps": None, "run.epochs": 10, "steps": 70}, 20),
        ({"epochs": 1.0}, {"run.steps": 40, "run.epochs": 1.0, "steps": 40}, 7),
        ({"epochs": 10}, {"run.steps": None, "run.epochs": 10, "steps": 69}, 69),
        ({}, {"run.steps": None, "run.epochs": 10, "steps": 70}, 70),
    ],
)
def test_what_is_typed_of_a_length_goes_before_the_recipe(
    typed: dict[str, Any], begun: dict[str, Any] | None, steps: int
) -> None:
    """The recipe has 300 steps, and an epoch has 7. A run keeps its length where the command says nothing new."""
    config = RECIPES["tiny-finetune"].config
    config = replace(config, run=replace(config.run, **typed))
    job = one_length(Job("tiny-finetune", config, "", Path("run"), None, frozenset(f"run.{name}" for name in typed)))
    before = None if begun is None else {"config": begun, "steps": begun["steps"]}
    loader: Any = SimpleNamespace(plan=range(7))
    assert _steps(before, before and {"step": 1}, job, loader) == steps

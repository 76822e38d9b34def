"""The best checkpoint and the early end: of values one by one, and of runs that were stopped, killed and went on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from shardkit.errors import ArgumentError
from tests.trainer.tasks.conftest import by_patient, put_labels
from trainer.commands.cli import run as command
from trainer.config import SelectConfig
from trainer.loop import Loop
from trainer.models.classifier import Classifier
from trainer.models.vit import VitConfig
from trainer.runs import best, checkpoint, unpickling
from trainer.selection import Selection, less_is_better
from trainer.tasks.config import TaskConfig
from trainer.validation import Measured

Words = Callable[..., list[str]]
NAN, INF = float("nan"), float("inf")


def _saw(values: Sequence[float | None], metric: str = "auc", patience: int = 0) -> tuple[Selection, list[bool]]:
    """What a selection says of a row of values, of validations after steps 1, 2, ..."""
    selection, found = Selection(SelectConfig(metric=metric, patience=patience)), []
    for step, value in enumerate(values, 1):
        loss = NAN if value is None else value
        measured = Measured(loss, 1, {}, {} if metric == "loss" else {metric: value}, 0.0, Any)  # type: ignore[arg-type]
        found.append(selection.saw(step, measured))
    return selection, found


@pytest.mark.parametrize(
    ("metric", "values", "best_step"),
    [
        ("auc", [0.5, 0.7, 0.6], 2),
        ("auc", [0.7, 0.7, 0.7], 1),
        ("auc", [None, 0.2, NAN, INF], 2),
        ("auc", [None, NAN], None),
        ("loss", [0.7, 0.5, 0.6], 2),
        ("loss", [NAN, 0.5, 0.5], 2),
        ("mae", [3.0, 2.0, 4.0], 2),
        ("balanced_accuracy", [0.1, 0.3], 2),
    ],
)
def test_the_best_is_the_first_of_the_best_numbers(metric: str, values: Any, best_step: int | None) -> None:
    selection, better = _saw(values, metric)
    assert selection.chosen.step == best_step
    assert [at for at, one in enumerate(better, 1) if one][-1:] == ([best_step] if best_step else [])


def test_direction_goes_by_the_name() -> None:
    assert all(map(less_is_better, ("loss", "rmse", "val_loss", "brier")))
    assert not any(map(less_is_better, ("auc", "balanced_accuracy", "errorless")))


def test_a_run_ends_after_as_many_validations_without_a_better_one_as_were_to_be_waited_for() -> None:
    assert not _saw([0.5, 0.4], patience=2)[0].ended
    assert _saw([0.5, 0.4, 0.5], patience=2)[0].ended
    assert not _saw([0.5, 0.4, 0.6, 0.5], patience=2)[0].ended
    assert _saw([None, None], patience=2)[0].ended, "what cannot be measured does not become better"
    assert not _saw([0.5] + [0.4] * 9, patience=0)[0].ended


def test_a_metric_that_is_not_measured_is_refused_with_those_that_are() -> None:
    selection = Selection(SelectConfig(metric="auc"))
    with pytest.raises(ArgumentError, match=r"auc is not measured: choose one of loss, accuracy"):
        selection.saw(1, Measured(0.1, 1, {}, {"accuracy": 0.5}, 0.0, Any))  # type: ignore[arg-type]


def test_a_value_of_other_images_or_labels_does_not_compete() -> None:
    of = [Selection(SelectConfig(metric="auc", patience=1), on) for on in ("now", "now", "now", "")]
    before = of[0].facts() | {"step": 2, "value": 0.9, "since": 1}
    for selection, on in zip(of[1:], ("now", "before", "before"), strict=True):
        selection.load(before | {"measured_on": on})
    assert [(one.chosen.step, one.ended) for one in of[1:]] == [(2, True), (None, False), (2, True)]
    of[0].load({name: value for name, value in before.items() if name != "measured_on"})
    assert of[0].chosen.step == 2, "of an older version, which does not say"


# --- whole runs

EARLY = ["--objective.columns", "high", "--run.steps", "40", "--val.every", "2", "--save.every", "3"]
EARLY += ["--optim.lr", "2e-3", "--select.patience", "4"]


def _lines(run: Path) -> list[Any]:
    """Of all lines, what does not depend on the clock."""
    found = []
    for name in ("metrics", "validation"):
        lines = [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
        found += [[line.get(n) for n in ("step", "loss", "grad_norm", "metrics", "best")] for line in lines]
    return found


def _numbers(line: list[Any]) -> dict[str, float]:
    """Loss, norm of the gradient and metrics, those that could be measured."""
    named = {"loss": line[1], "norm": line[2], **line[3]}
    return {name: value for name, value in named.items() if value is not None}


def _weights(path: Path) -> dict[str, torch.Tensor]:
    model = Classifier(VitConfig(patch=8, width=32, depth=1, heads=2).encoder(last_norm=False), 1, TaskConfig().head)
    checkpoint.weights(path, model)
    return model.state_dict()


def _end(run: Path) -> tuple[Any, ...]:
    """Everything that two runs have to have in common to be the same."""
    last = sorted((run / "checkpoints").glob("step_????????"))[-1]
    kept = unpickling.progress(run / "best")
    return _lines(run), last.name, unpickling.progress(last)["selection"], kept["step"], kept["selection"]


def _same(one: Path, two: Path) -> None:
    assert _end(one) == _end(two)
    for path in ("best", f"checkpoints/{_end(one)[1]}"):
        theirs = _weights(two / path)
        assert all(torch.equal(value, theirs[name]) for name, value in _weights(one / path).items()), path


@pytest.fixture(scope="module")
def undisturbed(labelled_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended early, as nothing happened to it."""
    return tmp_path_factory.mktemp("runs") / "whole"


@pytest.fixture
def whole(undisturbed: Path, words: Words) -> Path:
    if not undisturbed.exists():
        assert command(words("finetune", *EARLY, "--out", str(undisturbed))) == 0
    return undisturbed


@pytest.mark.deep
def test_a_run_that_ended_early_says_so_and_trains_on_with_more_patience_only(
    whole: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, steps = shutil.copytree(whole, tmp_path / "run"), len(_lines(whole))
    last = sorted((out / "checkpoints").iterdir())[-1]
    chosen = unpickling.progress(last)["selection"]
    assert chosen["since"] == 4
    assert int(last.name[5:]) == chosen["step"] + 2 * 4 < 40
    for more in ((), ("--run.steps", "50")):
        capsys.readouterr()
        assert command(words("finetune", *EARLY, *more)) == 0
        told = capsys.readouterr().out
        assert f"stopped early at step {int(last.name[5:])}, after 4 validations without a better auc" in told
        assert "a greater --select.patience, or 0, trains on" in told
        assert len(_lines(out)) == steps
    page = (out / "report.html").read_text()
    assert "The run ended early, after 4 validations without a better auc." in page
    assert command(words("finetune", *EARLY, "--run.steps", "40", "--select.patience", "5")) == 0
    assert len(_lines(out)) > steps


class _Killed(BaseException):
    """As if the process had been killed: nothing of ours catches it."""


def _killed_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    own = Loop._after

    def after(self: Loop, stop: bool) -> None:
        if self.progress.step == step:
            raise _Killed
        own(self, stop)

    monkeypatch.setattr(Loop, "_after", after)


def _killed_keeping(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Between a checkpoint and the copy of it that is kept, with the old copy gone already."""
    own, kept = best.keep, []

    def keep(run: Path, of: Path) -> None:
        kept.append(of)
        if len(kept) == number:
            shutil.rmtree(run / "best", ignore_errors=True)
            raise _Killed
        own(run, of)

    monkeypatch.setattr(best, "keep", keep)


@pytest.mark.parametrize(("kill", "at"), [(_killed_after, 4), (_killed_after, None), (_killed_keeping, 1)])
@pytest.mark.deep
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    whole: Path, words: Words, tmp_path: Path, kill: Callable[..., None], at: int | None
) -> None:
    """At None in the middle of the wait for a better value: best value and count have to be those of before."""
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, unpickling.progress(whole / "best")["step"] + 5 if at is None else at)
        with pytest.raises(_Killed):
            command(words("finetune", *EARLY))
    assert command(words("finetune", *EARLY)) == 0
    _same(tmp_path / "run", whole)


def _stopped_at(words: Words, step: int) -> None:
    """As by a signal that comes during a step."""
    own = Loop._accumulate

    def accumulate(self: Loop) -> Any:
        if self.progress.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return own(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_accumulate", accumulate)
        assert command(words("finetune", *EARLY)) == 143


@pytest.mark.parametrize("of", ["a validation", "the best one", "the last one"])
@pytest.mark.deep
def test_a_run_that_was_asked_to_stop_where_a_validation_was_due_makes_up_for_it(
    whole: Path, words: Words, tmp_path: Path, of: str
) -> None:
    best_step, last = unpickling.progress(whole / "best")["step"], int(_end(whole)[1][5:])
    step = {"a validation": best_step + 4, "the best one": best_step, "the last one": last}[of]
    _stopped_at(words, step)
    assert [line[0] for line in _lines(tmp_path / "run") if line[-1] is not None] == list(range(2, step, 2))
    for _ in range(2):  # nothing is measured twice
        assert command(words("finetune", *EARLY)) == 0
        _same(tmp_path / "run", whole)


@pytest.mark.deep
def test_a_validation_that_was_made_up_for_and_not_saved_is_made_again(
    whole: Path, words: Words, tmp_path: Path
) -> None:
    """Its line is there once."""
    _stopped_at(words, unpickling.progress(whole / "best")["step"] + 2)

    def killed(self: Loop) -> None:
        raise _Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_save", killed)
        with pytest.raises(_Killed):
            command(words("finetune", *EARLY))
    assert command(words("finetune", *EARLY)) == 0
    _same(tmp_path / "run", whole)


@pytest.mark.deep
def test_after_labels_changed_the_best_checkpoint_is_chosen_anew(
    own_dataset: Path, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Selection.saw

    def saw(self: Selection, step: int, measured: Measured) -> bool:
        measured.metrics["auc"] = 0.95 if step == 2 else 0.7
        return own(self, step, measured)

    def inverted(rows: list[dict[str, Any]]) -> None:
        by_patient(rows)
        for row in rows:
            row["high"] = 1 - abs(row["high"])

    monkeypatch.setattr(Selection, "saw", saw)
    more = ("--data", str(own_dataset), "--objective.columns", "high", "--val.every", "2", "--run.steps")
    assert command(words("finetune", *more, "4")) == 0
    put_labels(own_dataset, "sizes", inverted)
    assert command(words("finetune", *more, "8", "--run.on-new-data", "restart-epoch")) == 0
    run, told = tmp_path / "run", " ".join(capsys.readouterr().out.split())
    about = json.loads((run / "run.json").read_text())
    assert about["changes"] == {"4": {"steps": 8, "targets_digest": about["objective"]["targets_digest"]}}
    assert about["selection"]["step"] == unpickling.progress(run / "best")["step"] == 6
    assert "what was measured before does not compare: the best checkpoint is chosen anew" in told
    page = (run / "report.html").read_text()
    assert "The labels changed after step 4: what was measured up to there does not compare." in page
    assert "is that of step 6" in page


def test_the_best_checkpoint_is_never_pruned_and_names_the_run(whole: Path) -> None:
    kept = unpickling.progress(whole / "best")["step"]
    assert not (whole / "checkpoints" / f"step_{kept:08d}").exists(), "of the last two it is none"
    assert unpickling.damage(whole / "best") == ""
    assert checkpoint.named(whole) == whole / "best"
    assert best.run_of(whole / "best") == best.run_of(whole / "checkpoints" / "step_00000002") == whole


@pytest.mark.deep
def test_two_processes_agree_with_one_in_losses_metrics_and_choice(whole: Path, words: Words, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "trainer"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *words("finetune", *EARLY)], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((run / "run.json").read_text())["selection"] for run in (whole, tmp_path / "run"))
    assert (one["step"], one["ended"]) == (two["step"], two["ended"])
    for mine, theirs in zip(_lines(whole), _lines(tmp_path / "run"), strict=True):
        assert (mine[0], mine[4]) == (theirs[0], theirs[4])
        assert _numbers(mine) == pytest.approx(_numbers(theirs), rel=1e-4)

"""The downstream benchmark: no command trains on who is asked about, jobs are run once, and tables show all scores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import downstream, downstream_splits, downstream_summary
from benchmarks.downstream_runs import Job, Jobs

BOX = {"ap25": 0.25, "ap25_interval": [0.1, 0.4], "ap50": 0.0, "ap50_interval": None, "mean_iou": 0.1}
SITES = {site: Path("data") / site for site in ("nih", "hannover")}


def planned(form: str) -> list[Job]:
    return downstream.planned(downstream.FORMS[form], Path("work"), SITES, Path("both.json"))


def option(job: Job, name: str) -> str:
    return job.words[job.words.index(name) + 1]


@pytest.mark.parametrize("size", downstream.FORMS)
def test_what_is_asked_about_was_left_out_of_all_that_was_trained_for_it(size: str) -> None:
    jobs = {job.name: job for job in planned(size)}
    trained = {job.name: option(job, "--loader.split") for job in jobs.values() if "--loader.split" in job.words}
    assert all(split.endswith(":train") for split in trained.values())
    of = {**dict.fromkeys(("fold0-third", "nih14"), "fold0")}  # asks about no patient of the others' training
    for job in jobs.values():
        splits = {trained[name].removesuffix(":train") for name in (*job.after, job.name) if name in trained}
        splits |= {option(job, "--labels")} if "--labels" in job.words else set()
        assert len({of.get(split, split) for split in splits}) == 1, job.name
    for job in jobs.values():
        assert all(name in jobs for name in job.after)


def test_a_pre_training_that_is_varied_has_each_option_once() -> None:
    for job in planned("full"):
        options = [word for word in job.words if word.startswith("--")]
        assert len(options) == len(set(options)), job.name


def test_splits_part_no_patient_and_ask_about_everybody_once() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{number}" for number in rng.integers(0, 60, 150)]
    columns: dict[str, Any] = {"key": [str(i) for i in range(150)], "patient": patients}
    columns |= {name: rng.integers(0, 2, 150).tolist() for name in ("pa", "female")}
    splits = downstream_splits._splits(columns, None)
    for split in splits.values():
        sides = [_of(patients, split, side) for side in ("train", "test", "")]
        assert not sides[0] & sides[1]
        assert not sides[2] & (sides[0] | sides[1])
    asked = np.array([[word == "test" for word in splits[name]] for name in downstream_splits.FOLDS])
    assert (asked.sum(axis=0) == 1).all()
    assert _of(patients, splits["fold0-third"], "train") < _of(patients, splits["fold0"], "train")
    sizes = asked.sum(axis=1)
    assert sizes.max() - sizes.min() <= 30, "about as many in each"


def test_the_first_fold_asks_about_the_official_test_patients_and_folds_are_alike_in_size() -> None:
    rng = np.random.default_rng(1)
    patients = [f"p{number}" for number in rng.integers(0, 200, 600)]
    columns: dict[str, Any] = {"key": [str(i) for i in range(600)], "patient": patients}
    columns |= {name: rng.integers(0, 2, 600).tolist() for name in ("pa", "female")}
    official = {str(i): "test" if patient < "p13" else "train" for i, patient in enumerate(patients)}
    splits = downstream_splits._splits(columns, official)
    assert all(splits["fold0"][int(key)] == "test" for key, word in official.items() if word == "test")
    asked = np.array([[word == "test" for word in splits[name]] for name in downstream_splits.FOLDS])
    assert (asked.sum(axis=0) == 1).all()
    assert np.ptp(asked.sum(axis=1)) < 80


def _of(patients: list[str], split: list[str], side: str) -> set[str]:
    return {patient for patient, of in zip(patients, split, strict=True) if of == side}


def test_a_job_is_run_once_and_after_those_that_it_needs(tmp_path: Path) -> None:
    def job(name: str, *after: str) -> Job:
        return Job(name, ("collections",), after, "shardkit")

    first = Jobs(tmp_path, 2)
    first.run([job("second", "first"), job("first")])
    assert set(first.took) == {"first", "second"}
    done = tmp_path / "done" / "first.json"
    done.write_text(json.dumps({**json.loads(done.read_text()), "seconds": 77.0}))
    again = Jobs(tmp_path, 2)
    again.run([job("first"), job("second", "first")])
    assert again.took["first"]["seconds"] == 77.0
    with pytest.raises(RuntimeError, match="holds first, done with other words: name another folder as --work"):
        Jobs(tmp_path, 2).run([Job("first", ("codecs",), (), "shardkit")])
    with pytest.raises(RuntimeError, match="bad ended with"):
        again.run([Job("bad", ("nothing",), (), "shardkit")])
    with pytest.raises(RuntimeError, match="what they need is not among the jobs"):
        again.run([job("third", "absent")])


STOPPED = """
import pathlib, sys
from benchmarks.downstream_runs import Job, Jobs
from shardkit.commands import stopping

class Slow(Job):
    @property
    def command(self):
        once = pathlib.Path("once")
        wait = "0" if once.exists() else "60"
        once.touch()
        return [sys.executable, "-c", "import time; time.sleep(" + wait + ")"]

stopping.heed("benchmarks")
Jobs(pathlib.Path("work"), 1).run([Slow("slow", ())])
"""


def test_a_benchmark_that_is_stopped_ends_its_jobs_and_counts_all_of_their_starts(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    begin = [sys.executable, "-c", STOPPED]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(begin, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    while not (tmp_path / "once").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.terminate()
    process.communicate()
    assert process.returncode == -signal.SIGINT
    assert json.loads((tmp_path / "work" / "begun" / "slow.json").read_text())["starts"] == 1
    assert subprocess.run(begin, cwd=tmp_path, env=environment, check=True).returncode == 0
    assert json.loads((tmp_path / "work" / "done" / "slow.json").read_text())["starts"] == 2
    assert not (tmp_path / "work" / "begun" / "slow.json").exists()


@pytest.fixture
def result() -> dict[str, Any]:
    rows = [
        {
            "task": task,
            "site": site,
            "features": features,
            "method": method,
            "value": 0.9,
            "low": 0.8 if site == "nih" else None,
            "high": 0.95 if site == "nih" else None,
        }
        for task in downstream_summary.TASKS
        for site in downstream_summary.SITES
        for features, method in downstream_summary._MAIN
    ]
    shares = [{**row, "fraction": share} for row in rows for share in (0.01, 1.0) if row["method"] != "fine-tuned"]
    curves = [{**row, "varied": "mask ratio", "at": "0.9"} for row in rows if row["features"] == "pre-trained"]
    return {
        "machine": {"cores": 2, "cpu": "a CPU"},
        "conditions": {"form": "full", "steps": 1600, "curve_steps": 800, "folds": ["fold0", "fold1", "fold2"]},
        "took": {"a": {"cpu_seconds": 120.0}, "b": {"cpu_seconds": 60.0}},
        "folds": rows,
        "official": rows,
        "shares": shares,
        "curves": curves,
        "boxes": {
            "boxes": [1, 2],
            "scores": {"mask": {"held_out": {"run": BOX}}},
        },
    }


def test_tables_hold_every_feature_with_its_interval_at_both_sites(result: dict[str, Any]) -> None:
    said = downstream.readme(result)
    assert "3 core-minutes" in said
    assert "| pre-trained, fine-tuned | 0.900 (0.800–0.950) | 0.900 | 0.900 (0.800–0.950) | 0.900 |" in said
    assert "| pre-trained, fine-tuned | 0.900 (0.800–0.950) | 0.900 (0.800–0.950) |" in said, "official, NIH alone"
    assert "| mask ratio 0.9 | 0.900 (0.800–0.950) | 0.900 (0.800–0.950) |" in said
    assert "2 boxes" in said
    assert "| mask, run | 0.250 (0.100–0.400) | 0.000 | 0.100 |" in said
    assert "| pre-trained, k-NN | 0.900 | 0.900 | 0.900 | 0.900 |" in said


def test_the_quick_form_has_one_fold_and_no_curves(result: dict[str, Any]) -> None:
    conditions = {**result["conditions"], "folds": ["fold0"]}
    said = downstream.readme({**result, "conditions": conditions, "curves": []})
    assert "One of three folds" in said
    assert "varied" not in said


def test_a_plot_a_task_shows_both_sites(result: dict[str, Any]) -> None:
    plots = downstream.plots(result)
    assert [plot.title for plot in plots] == ["view, learnt at NIH, three folds", "sex, learnt at NIH, three folds"]
    assert all("NIH 0.9" in plot.about and "Hannover 0.9" in plot.about for plot in plots)

"""The comparison of methods: equal steps and images, nobody asked about was trained on, every method in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods, methods_summary
from benchmarks.downstream_runs import Job
from shardkit import from_text
from trainer.commands.chosen_model import without_model
from trainer.commands.cli import application
from trainer.recipes.registry import RECIPES

JOBS = {job.name: job for job in methods.planned(800, Path("data/nih"), Path("work"))}


def option(job: Job, name: str) -> str:
    return job.words[job.words.index(name) + 1]


@pytest.mark.parametrize("name", methods.METHODS)
def test_methods_have_equal_steps_and_images_of_the_same_patients(name: str) -> None:
    job, method = JOBS[name], methods.METHODS[name]
    assert (option(job, "--run.steps"), option(job, "--loader.split")) == ("800", "fold0:train")
    batching: Any = from_text(option(job, "--loader.batching"))
    assert batching.batch_size * batching.per_step == 32
    assert RECIPES[method.recipe].command == "pretrain"
    options = [word for word in job.words if word.startswith("--")]
    assert len(options) == len(set(options))
    after = JOBS[f"assess-{name}"]
    assert after.after == (name,)
    assert (option(after, "--labels"), option(after, "--fractions")) == ("fold0", "1.0")


@pytest.mark.parametrize("name", JOBS)
def test_commands_have_options_that_exist(name: str) -> None:
    words, backbone = without_model(list(JOBS[name].words))
    recipe = option(JOBS[name], "--recipe") if "--recipe" in words else "tiny"
    application(recipe, backbone=backbone).parse_args(words, exit_on_error=False, print_error=False)


@pytest.fixture
def result() -> dict[str, Any]:
    scores = [
        {"features": features, "task": task, "method": method, "value": value, "low": 0.8, "high": 0.95}
        for features, value in (("pre-trained", 0.9), ("random, seed 0", 0.85), ("32 x 32 pixels", 0.82))
        for task in methods_summary.TASKS
        for method in ("k-NN", "logistic")
    ]
    took = {"peak_mib": 1234}
    found = {
        name: {"name": of.name, "network": of.network, "images_per_core_s": 99.6, "took": took, "scores": scores}
        for name, of in methods.METHODS.items()
    }
    conditions = {"form": "full", "steps": 800, "images": 32, "side": 128, "cores": 2}
    return {"machine": {"cores": 2, "cpu": "a CPU"}, "conditions": conditions, "methods": found}


def test_the_table_has_a_line_a_method_and_one_for_what_each_has_to_beat(result: dict[str, Any]) -> None:
    said = methods.readme(result)
    cell = "0.900 (0.800–0.950)"
    for of in methods.METHODS.values():
        assert f"| {of.name}, {of.network} | 100 | 1,234 | {cell} | {cell} | {cell} | {cell} |" in said
    for name in ("random weights, our ViT", "random weights, ViT", "random weights, ResNet", "32 x 32 pixels"):
        assert said.count(f"| {name} | – | – |") == 1
    plots = methods.plots(result)
    assert [plot.title for plot in plots] == ["view, frozen features", "sex, frozen features"]
    assert all("DINO" in plot.about for plot in plots)

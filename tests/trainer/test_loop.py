"""The loop on small datasets: what counts how much, what is skipped, what is compiled."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from shardkit import Loader, from_text
from shardkit.terminal.output import Terminal
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig, SaveConfig
from trainer.errors import TrainingError
from trainer.loop import Loop
from trainer.models.mae import MaeConfig
from trainer.objectives.masked import Masked
from trainer.parallel import World
from trainer.runs.log import Log, Step, read

MODEL = MaeConfig(patch=8, width=32, depth=2, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
CONFIG = Config(
    model=MODEL,
    loader=LoaderConfig(batching="packed:patch=8,level=1,per_step=4,tokens=1024", split="all"),
    optim=OptimConfig(lr=1e-3),
    run=RunConfig(precision="fp32", compile=False),
    save=SaveConfig(every=1000),
    log=LogConfig(every=1, pictures=0, tensorboard=False),
)


@pytest.fixture
def make_loop(dataset_folder: Path, tmp_path: Path) -> Callable[..., Loop]:
    """(config, steps, task) -> a loop on the small dataset."""
    quiet = Terminal(quiet=True)

    def make(config: Config = CONFIG, steps: int = 4, task: Masked | None = None) -> Loop:
        torch.manual_seed(0)
        loader = Loader(dataset_folder, batching=from_text(config.loader.batching), split=None, device="cpu")
        log = Log(tmp_path, loader.bins()[0], steps, None, 1, quiet, False)
        return Loop(
            task or Masked(config.model.build()), loader, config, tmp_path, World(0, 1, torch.device("cpu")), log, steps
        )

    return make


class _EveryOther(Masked):  # type: ignore[misc]  # final for others
    """Images of odd rows do not count, as images without a label."""

    def run(self, model: Any, batch: Any) -> Any:
        out = super().run(model, batch)
        return replace(out, weight=out.weight * (batch.rows % 2 == 0))


@pytest.mark.parametrize("kind", [Masked, _EveryOther])
def test_a_step_s_gradient_is_that_of_the_mean_over_its_images(
    make_loop: Any, dataset_folder: Path, kind: type[Masked]
) -> None:
    """Micro-batches of unequal numbers of images: means of means would differ."""
    config = replace(CONFIG, optim=OptimConfig(lr=0.0, weight_decay=0.0))
    loop = make_loop(config, steps=1, task=kind(config.model.build()))
    start = {name: p.detach().clone() for name, p in loop.objective.model.named_parameters()}
    assert loop.go()
    found = {name: p.grad.clone() for name, p in loop.objective.model.named_parameters()}
    task = kind(MODEL.build())
    task.model.load_state_dict(start)
    task.model.double()
    total, images, sizes = torch.zeros((), dtype=torch.float64), 0.0, set()
    loader = Loader(dataset_folder, batching=from_text(CONFIG.loader.batching), split=None, device="cpu")
    for batch in loader:
        out = task.run(task.model, batch)
        total, images = total + out.loss, images + float(out.images)
        sizes.add(float(out.images))
        if batch.position.last:
            break
    assert len(sizes) > 1
    (total / images).backward()  # type: ignore[no-untyped-call]
    for name, p in task.model.named_parameters():
        torch.testing.assert_close(found[name].double(), p.grad, rtol=2e-3, atol=2e-6, msg=name)
    assert read(loop.run / "metrics.jsonl")[0]["loss"] == pytest.approx(float(total.detach() / images), rel=1e-5)


@pytest.mark.deep
def test_an_epoch_of_mixed_sizes_runs_on_the_graphs_of_its_first_step(make_loop: Any) -> None:
    torch._dynamo.reset()
    counters.clear()
    loop = make_loop(replace(CONFIG, run=replace(CONFIG.run, compile=True, compile_backend="aot_eager")), steps=12)
    after: list[int] = []
    step = loop._step

    def watched() -> bool:
        stop = step()
        after.append(counters["stats"]["unique_graphs"])
        return bool(stop)

    loop._step = watched
    assert loop.go()
    assert loop.loader.epoch >= 1, "an epoch and more"
    assert after[0] == 2, "one graph for the encoder's blocks, one for the decoder's"
    assert set(after) == {2}
    assert not counters["graph_break"]
    torch._dynamo.reset()


@pytest.mark.deep
def test_compiled_blocks_train_as_plain_ones(make_loop: Any) -> None:
    plain = make_loop(steps=3)
    plain.go()
    told = read(plain.run / "metrics.jsonl")
    shutil.rmtree(plain.run / "checkpoints")
    compiled = make_loop(replace(CONFIG, run=replace(CONFIG.run, compile=True, compile_backend="aot_eager")), steps=3)
    compiled.go()
    for one, two in zip(told, read(compiled.run / "metrics.jsonl"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


class _Spoiled(Masked):  # type: ignore[misc]  # final for others
    """Gives a loss that is no number on some runs of a micro-batch."""

    bad: frozenset[int] = frozenset()
    runs = 0
    told: tuple[str, ...] = ()

    def stepped(self, world: World) -> None:
        self.told += ("stepped",)

    def skipped(self, world: World) -> None:
        self.told += ("skipped",)

    def run(self, model: Any, batch: Any) -> Any:
        out = super().run(model, batch)
        self.runs += 1
        return replace(out, losses=out.losses * math.nan) if self.runs in self.bad else out


def test_a_step_without_a_finite_loss_changes_nothing_and_is_counted(make_loop: Any) -> None:
    task = _Spoiled(MODEL.build())
    task.bad = frozenset({6})  # the second micro-batch of the second step
    loop = make_loop(replace(CONFIG, optim=OptimConfig(lr=1e-3, ema=0.5)), steps=3, task=task)
    weights: list[torch.Tensor] = []
    update = loop._update

    def watched(loss: float, norm: float) -> None:
        update(loss, norm)
        weights.append(loop.objective.model.patch_embed.proj.weight.detach().clone())

    loop._update = watched
    assert loop.go()
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert torch.isfinite(torch.stack(list(map(torch.sum, loop.average.state.values())))).all()
    told = read(loop.run / "metrics.jsonl")
    assert [record["skipped"] for record in told] == [0, 1, 1]
    assert task.told == ("stepped", "skipped", "stepped")
    assert told[1]["loss"] is None


class _Unlabelled(Masked):  # type: ignore[misc]  # final for others
    """No image of some runs of a micro-batch counts."""

    none: frozenset[int] = frozenset()
    runs = 0

    def run(self, model: Any, batch: Any) -> Any:
        out = super().run(model, batch)
        self.runs += 1
        return replace(out, weight=out.weight * (self.runs not in self.none))


def test_a_step_without_an_image_that_counts_changes_nothing_and_is_no_loss(make_loop: Any) -> None:
    """Momentum and weight decay would move the weights; a loss of 0 would look like one that was learnt."""
    task = _Unlabelled(MODEL.build())
    task.none = frozenset(range(5, 9))  # all of the second step
    loop = make_loop(replace(CONFIG, run=replace(CONFIG.run, max_skipped=0)), steps=3, task=task)
    weights: list[torch.Tensor] = []
    step = loop._step

    def watched() -> bool:
        stop: bool = step()
        weights.append(loop.objective.model.patch_embed.proj.weight.detach().clone())
        return stop

    loop._step = watched
    assert loop.go()
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    told = read(loop.run / "metrics.jsonl")
    assert [(record["loss"] is None, record["grad_norm"] is None) for record in told] == [
        (at == 1,) * 2 for at in range(3)
    ]
    assert [(record["uncounted"], record["skipped"]) for record in told] == [(0, 0), (1, 0), (1, 0)]


def test_the_loss_of_a_line_is_a_mean_over_the_images_that_count(tmp_path: Path) -> None:
    names = ("loss", "weight", "images", "tokens", "padded_tokens", "flops", "padded_flops", "norm")
    log = Log(tmp_path, ["one"], 3, None, 1, Terminal(quiet=True), False)
    log.begin(0, 0)
    for number, (loss, weight) in enumerate([(2.8, 4), (0, 0), (0.2, 1)], 1):
        sums = dict(zip(names, (loss, weight, 4, 1, 1, 1, 1, 1), strict=True))
        by_bin = {"loss_by_bin": torch.tensor([[loss], [weight]], dtype=torch.float64)}
        log.add(Step(number, 0, 1e-3, 0.0, {n: torch.tensor(float(v)) for n, v in sums.items()} | by_bin))
    log.line()
    (line,) = read(tmp_path / "metrics.jsonl")
    assert line["loss"] == pytest.approx(line["loss_by_bin"]["one"]) == pytest.approx(3 / 5)


def test_too_many_of_them_end_the_run_with_a_sentence(make_loop: Any) -> None:
    task = _Spoiled(MODEL.build())
    task.bad = frozenset(range(1, 100))
    loop = make_loop(replace(CONFIG, run=replace(CONFIG.run, max_skipped=2)), steps=9, task=task)
    with pytest.raises(TrainingError, match="3 global steps had no finite loss"):
        loop.go()
    assert loop.progress.step == 2


def test_gradients_are_clipped_and_their_norm_is_told_unclipped(make_loop: Any) -> None:
    loop = make_loop(replace(CONFIG, optim=OptimConfig(lr=1e-3, clip=0.01)), steps=1)
    loop.go()
    told = read(loop.run / "metrics.jsonl")[0]["grad_norm"]
    left = torch.stack([p.grad.norm() for p in loop.objective.model.parameters()]).norm()
    assert told > 0.1
    assert float(left) == pytest.approx(0.01, rel=1e-3)


def test_the_average_follows_the_weights(make_loop: Any) -> None:
    loop = make_loop(replace(CONFIG, optim=OptimConfig(lr=1e-3, ema=0.75)), steps=2)
    name, p = next(iter(loop.objective.model.named_parameters()))
    seen = [p.detach().clone()]
    update = loop._update

    def watched(loss: float, norm: float) -> None:
        update(loss, norm)
        seen.append(p.detach().clone())

    loop._update = watched
    loop.go()
    wanted = seen[0]
    for value in seen[1:]:
        wanted = 0.75 * wanted + 0.25 * value
    torch.testing.assert_close(loop.average.state[name], wanted)


@pytest.mark.parametrize(
    "batching",
    [
        "binned:patch=8,level=1,per_step=4,batch_size=4",
        "fixed:patch=8,level=1,per_step=4,batch_size=2,side=128",
        "resized:patch=8,side=64,per_step=4,batch_size=4",
    ],
)
def test_dense_batches_train_through_the_same_code(make_loop: Any, batching: str) -> None:
    loop = make_loop(replace(CONFIG, loader=LoaderConfig(batching=batching, split="all")), steps=6)
    assert loop.go()
    told = read(loop.run / "metrics.jsonl")
    assert told[-1]["loss"] < told[0]["loss"]
    assert told[0]["padding"] >= 0
    assert (told[0]["padding"] == 0) == batching.startswith("resized")


def test_bf16_autocast_trains_with_float32_weights(make_loop: Any) -> None:
    loop = make_loop(replace(CONFIG, run=replace(CONFIG.run, precision="bf16")), steps=3)
    assert loop.go()
    assert {p.dtype for p in loop.objective.model.parameters()} == {torch.float32}
    told = read(loop.run / "metrics.jsonl")
    assert told[-1]["loss"] < told[0]["loss"]


def test_pixels_of_a_step_weigh_by_image_in_the_bins_curves(make_loop: Any) -> None:
    loop = make_loop(steps=2)
    loop.go()
    for record in read(loop.run / "metrics.jsonl"):
        values = record["loss_by_bin"].values()
        assert min(values) <= record["loss"] <= max(values)


@pytest.mark.deep
def test_the_profiler_writes_a_trace_of_its_window(make_loop: Any) -> None:
    loop = make_loop(replace(CONFIG, log=replace(CONFIG.log, profile=(1, 2))), steps=4)
    loop.go()
    trace = (loop.run / "profile" / "step_00000001.json").read_text()
    assert "traceEvents" in trace

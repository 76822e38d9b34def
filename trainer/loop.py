"""The training loop: micro-batches of a global step forward and back, one update, a line, a checkpoint; again.

Gradients are of the loss summed over images, divided by the number of images that count in the whole step on all
processes, so that an image counts the same whatever batch it lies in. What can differ between processes is added up
before anything is decided: all of them update, skip, save and stop together.
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shardkit import Loader
from trainer import metrics, optim, parallel
from trainer.bins import BinLosses
from trainer.config import Config
from trainer.errors import TrainingError
from trainer.models.base import Batch
from trainer.models.output import Output
from trainer.objectives import pictures
from trainer.objectives.base import Objective
from trainer.parallel import World
from trainer.preparing import check_whole, compile_blocks
from trainer.runs.log import Log, Step
from trainer.runs.profiling import ProfilerWindow
from trainer.runs.saving import Checkpoints
from trainer.runs.state import TrainingState
from trainer.schedule import Schedule, cosine
from trainer.selection import Selection
from trainer.validation import Validation


@dataclass
class RunProgress:
    """How far a run is.

    Attributes
    ----------
    step, skipped : int
        Global steps done, and those of them that changed nothing because something was not finite.
    uncounted : int
        Those that changed nothing because no image counted in the loss, as where none has a label.
    images : float
        Images seen, over all processes.
    seconds : float
        Time that these steps took.
    validated : int
        The last step that was followed by a validation.
    """

    step: int = 0
    skipped: int = 0
    uncounted: int = 0
    images: float = 0.0
    seconds: float = 0.0
    validated: int = 0


class Loop:
    """Trains with an objective until its last step or until told to stop. All processes run the same code.

    Parameters
    ----------
    objective
        What is minimised, with its model.
    loader
        Batches of this process.
    config
        Of the run.
    run
        Folder of the run.
    world
        Which process this is.
    log
        Where lines are written.
    steps
        Number of global steps of the whole run.
    asked
        Tells whether somebody asked this process to stop.
    anew
        Whether the epoch of the last checkpoint begins again, on the loader's dataset instead of the one it was of.
    validation
        What is measured on the val split, if anything.

    Raises
    ------
    TrainingError
        Where the loss stays without a finite value.
    StorageError
        Where a checkpoint cannot be written.
    """

    def __init__(
        self,
        objective: Objective,
        loader: Loader,
        config: Config,
        run: Path,
        world: World,
        log: Log,
        steps: int,
        asked: Callable[[], bool] = lambda: False,
        anew: bool = False,
        validation: Validation | None = None,
    ) -> None:
        check_whole(config, objective)
        self.objective, self.loader, self.validation, self.config = objective, loader, validation, config
        self.run, self.world, self.log = run, world, log
        self.steps, self.asked, self.anew, self.progress = steps, asked, anew, RunProgress()
        objective.to(world.device)
        objective.model.train()
        if config.run.compile:
            compile_blocks(objective, loader, config.run.compile_backend)
        bf16 = config.run.precision == "bf16"
        self.model = parallel.wrap_model(objective.model, objective.blocks, config.run.parallel, bf16)
        self._autocast = (lambda: torch.autocast(world.device.type, torch.bfloat16)) if bf16 else nullcontext
        self.optimizer = optim.optimizer(self.model, config.optim)
        self.average = optim.Average(self.model, config.optim.ema) if config.optim.ema else None
        o = config.optim
        every = len(loader.plan) if o.rate_by == "epoch" else 1
        self.schedule = Schedule.of(o, steps, every)
        self.checkpoints = Checkpoints(run, config.save.keep, world)
        self.selection = Selection(config.select, validation.measured_on if validation else "")
        self._bins = BinLosses(loader, world.device)
        self._batches = self._endless()
        self._shown: tuple[Batch, Output] | None = None
        self._saved = 0
        self._waited = 0.0  # seconds for data, in this step

    # --- the run

    def go(self) -> bool:
        """Train from the last checkpoint to the last step, or to an early end; return whether it got there."""
        self._resume()
        window = ProfilerWindow(self.config.log.profile, self.run / "profile", self.world.is_main)
        stop = False
        try:
            if self.validation is not None and self.progress.validated < self.progress.step:  # it was asked to stop
                self._saved = -1  # what is there does not know of this validation
                self._validate(self.validation)
                self._save()
            while self.progress.step < self.steps and not self.selection.ended and not stop:
                with window.step(self.progress.step):
                    stop = self._step()
                self._after(stop)
        finally:
            self._batches.close()  # ends the loader's threads
            self.checkpoints.wait()
        return self.progress.step == self.steps or self.selection.ended

    def _after(self, stop: bool) -> None:
        """Do what is due after a step; where somebody asked to stop, no more than has to be."""
        step = self.progress.step
        last = step == self.steps
        if step % self.config.log.every == 0 or stop or last:
            self.log.line()
        if self._shown is not None:
            self._draw(*self._shown)
            self._shown = None
        if self.validation is None or not self._due(self.config.val.every):
            self.progress.validated = step
        elif last or not stop:
            self._validate(self.validation)
        self.checkpoints.poll()
        if step % self.config.save.every == 0 or stop or last or self.selection.ended:
            self._save()

    def _step(self) -> bool:
        """Run one global step; return whether any process was asked to stop."""
        rate = self.schedule.at(self.progress.step)
        optim.set_rate(self.optimizer, rate)
        if (end := self.config.optim.weight_decay_end) is not None:
            decay = cosine(self.config.optim.weight_decay, end, self.progress.step / self.steps)
            optim.set_decay(self.optimizer, decay)
        self.optimizer.zero_grad(set_to_none=True)
        sums, later, waited, epoch = self._accumulate()
        sums["stop"] = torch.full((), float(self.asked()), dtype=torch.float64, device=self.world.device)
        sums = metrics.over_processes(sums)
        self.objective.before_update(self.progress.step, self.steps)
        scale = self.world.size / sums["weight"].clamp(min=1)  # exchanged gradients are means over processes
        norm = optim.scaled(optim.gradients(self.model), scale, self.config.optim)
        found, later = metrics.on_cpu({**sums, "norm": norm.double()}, later)  # waits for the device
        if found["weight"] > 0:
            self._update(float(found["loss"]), float(found["norm"]))
        else:
            self.objective.skipped(self.world)
            self.progress.uncounted += 1
        self.progress.step += 1
        step = Step(self.progress.step, epoch, rate, waited, {**found, **metrics.finished(later)})
        self.progress.images += step.images
        self.log.skipped, self.log.uncounted = self.progress.skipped, self.progress.uncounted
        self.log.add(step)
        return bool(found["stop"] > 0)

    def _fetch(self) -> Batch:
        """Return the next micro-batch of this process."""
        before = time.monotonic()
        batch = next(self._batches)
        self._waited += time.monotonic() - before
        return batch

    def _begin(self) -> list[Batch]:
        """Fetch the first micro-batch of a step, or all of them, and tell the objective; return what was fetched."""
        held = [self._fetch()]
        while self.objective.whole_steps and not held[-1].position.last:
            held.append(self._fetch())
        with self._autocast():
            self.objective.begin_step(self.progress.step, self.steps, held, self.world)
        return held

    def _accumulate(self) -> tuple[metrics.Sums, list[tuple[str, metrics.Later]], float, int]:
        """Run this process's micro-batches of a step.

        Returns sums by name, metrics that are made later, seconds waited for data, and the epoch.
        """
        sums: metrics.Sums = {"loss_by_bin": self._bins.zeros()}
        later: list[tuple[str, metrics.Later]] = []
        self._waited = 0.0
        held = self._begin()
        while True:
            batch = held.pop(0) if held else self._fetch()
            with parallel.accumulating(self.model, batch.position.last):
                with self._autocast():
                    output = self.objective.run(self.model, batch)
                output.loss.backward()  # type: ignore[no-untyped-call]
            self._count(sums, batch, output)
            later += metrics.for_later(output.metrics)
            if batch.position.last:
                break
        if self.world.is_main and self._due(self.config.log.pictures, after=1):
            self._shown = batch, output
        return sums, later, self._waited, batch.position.epoch

    def _update(self, loss: float, norm: float) -> None:
        """Change the weights, unless the loss or the gradient is not finite."""
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
            if self.average is not None:
                self.average.update()
            self.objective.stepped(self.world)
            return
        self.objective.skipped(self.world)
        self.progress.skipped += 1
        if self.progress.skipped > self.config.run.max_skipped:
            raise TrainingError(
                f"{self.progress.skipped} global steps had no finite loss or gradient, the last of them step"
                f" {self.progress.step + 1}: lower --optim.lr or set --optim.clip; shardkit replay shows its images"
            )

    @torch.no_grad()
    def _count(self, sums: metrics.Sums, batch: Batch, output: Output) -> None:
        own, run = self.objective.tokens(batch)
        new = {
            "loss": output.loss,
            "weight": output.images,
            "images": (batch.rows >= 0).double().sum(),
            "tokens": own.sum(),
            "padded_tokens": run,
            "flops": self.objective.own_flops(batch).sum(),
            "padded_flops": self.objective.run_flops(batch),
        }
        metrics.add(sums, {**new, **metrics.named(output.metrics)})
        self._bins.add(sums["loss_by_bin"], batch.rows, output)

    # --- around it

    def _endless(self) -> Generator[Batch, None, None]:
        while True:
            yield from self.loader

    def _due(self, every: int, after: int = 0) -> bool:
        """Return whether `after` steps from now the step is a multiple of `every`, or the last one."""
        step = self.progress.step + after
        return bool(every) and (step % every == 0 or step == self.steps)

    def _draw(self, batch: Batch, output: Output, what: str = "step") -> None:
        if (picture := self.objective.picture(batch, output)) is not None:
            pictures.save(picture, self.run / "pictures" / f"{what}_{self.progress.step:08d}.png")

    def _validate(self, validation: Validation) -> None:
        step, measured = self.progress.step, validation.measure(self.model, self._autocast)
        self.progress.validated = step
        better = self.selection.saw(step, measured)
        self.log.validated(step, measured, better)
        if self.world.is_main and self.config.log.pictures:
            self._draw(*measured.shown, what="val")
        if better:  # whoever goes on from any checkpoint finds the best one that it names
            self._save()
            self.checkpoints.wait()
            self.checkpoints.choose(step)

    def _state(self) -> TrainingState:
        return TrainingState(self.model, self.optimizer, self.average, self.world.rank, self.objective)

    def _save(self) -> None:
        if self._saved == self.progress.step:
            return
        self.progress.seconds, self._saved = self.log.seconds, self.progress.step
        facts = {**vars(self.progress), "loader": self.loader.state_dict(), "world_size": self.world.size}
        self.checkpoints.save(self._saved, self._state(), {**facts, "selection": self.selection.facts()})

    def _resume(self) -> None:
        found = self.checkpoints.latest()
        if found.path is not None:
            facts: dict[str, Any] = self._state().load(found.path)
            fresh = self.loader.state_dict()
            epoch = facts["loader"]["epoch"]
            self.loader.load_state_dict({**fresh, "epoch": epoch, "step": 0} if self.anew else facts["loader"])
            known = {"validated": facts["step"], **facts}
            self.progress = RunProgress(**{name: known.get(name, value) for name, value in vars(self.progress).items()})
            self.selection.load(facts.get("selection", {}))
            self._saved = self.progress.step
            if self.selection.chosen.step == self._saved:  # the run may have been killed before it was kept
                self.checkpoints.choose(self._saved)
            self.log.seconds, self.log.images = self.progress.seconds, self.progress.images
            self.checkpoints.set_aside(found)
            if self.log.console is not None:
                after = f" ({found.told}; set aside as .damaged)" if found.damaged else ""
                said = f"going on after step {self.progress.step}{after}"
                self.log.console.print(said, highlight=False, soft_wrap=True)
        self.log.begin(self.progress.step, self.progress.validated)

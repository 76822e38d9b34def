"""What a command takes over of the run in its folder, where it says nothing itself."""

from shardkit import Loader
from trainer.objectives.base import ObjectiveConfig
from trainer.parallel import World, from_first
from trainer.runs import folder
from trainer.runs.start import Job
from trainer.tasks.config import TaskConfig


def objective_of(job: Job, loader: Loader, world: World) -> ObjectiveConfig:
    """Return what a command minimises: of labels, those that its run learns from.

    A table may have got other columns since. Where it has lost some, those that it has now are taken: `start` says then
    what has changed.

    Parameters
    ----------
    job
        The command.
    loader
        Of the training split.
    world
        All processes of the run.
    """
    asked, before = job.config.objective, from_first(lambda: folder.found(job.out), world)
    if before is None or not isinstance(asked, TaskConfig):
        return asked
    if any(before["config"].get(f"objective.{name}") != getattr(asked, name) for name in ("labels", "kind")):
        return asked
    there = asked.read(loader)
    found = asked.of_run(before, there)
    return found if {*found.columns} <= {*there.columns} else asked

"""A run's folder: held by one command at a time, and gone on with by commands of the run that `run.json` describes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from shardkit.errors import ArgumentError
from shardkit.storage import locks, no_folder
from trainer.errors import TrainingError
from trainer.parallel import World, from_first
from trainer.runs.files import atomic_write

FACTS = "run.json"
_NEEDED = ("recipe", "config", "baseline", "data", "digest", "parameters", "device", "world_size")
_FREE = (
    *("save.", "log.", "val.", "run.compile", "run.parallel", "run.max_skipped", "run.on_new_data"),
    "select.patience",
    *("run.steps", "run.epochs"),
    *(f"loader.{name}" for name in ("cache", "threads", "decoder", "prefetch", "max_bad", "attempts", "deadline")),
)
"""How options begin that may change on the way: not those that decide what the weights become, but for how long."""

Facts = dict[str, Any]


def facts(run: Path) -> Facts:
    """Read `run.json`.

    Raises
    ------
    ArgumentError
        Where it is missing, or does not describe a run.
    """
    path = run / FACTS
    if not path.exists():
        raise ArgumentError(no_folder(run) or f"{run} has no {FACTS}: name the --out of a run")
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.keys() >= {*_NEEDED} or not isinstance(found["config"], dict):
        raise ArgumentError(
            f"{path} does not describe a run: name another run's folder, or restore the file, or remove it and go on"
            " with the options that the run had"
        )
    return found


def found(out: Path) -> Facts | None:
    """Read `run.json` of a folder that may not be a run's yet: None where there is none.

    Raises
    ------
    ArgumentError
        Where it does not describe a run.
    """
    return facts(out) if (out / FACTS).exists() else None


def write(out: Path, about: Facts) -> None:
    """Write `run.json`, whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / FACTS) as fresh:
        fresh.write_text(json.dumps(about, indent=1))


@contextmanager
def held(out: Path, world: World) -> Iterator[None]:
    """Hold a run's folder, for all processes of a run; one that nothing was written to does not stay.

    Filesystems without file locks hold nothing.

    Raises
    ------
    TrainingError
        Where another run holds it.
    """
    with ExitStack() as stack:
        from_first(lambda: stack.enter_context(locks.held(out, refused)), world)
        yield


def refused(place: str, known: str) -> TrainingError:
    """Return the error for a place that another run holds: the place, and in brackets who that is."""
    return TrainingError(
        f"another training is running{known} in {place}: wait until it has ended, or name another --out"
    )


def compare(before: Facts, now: Facts, out: Path) -> list[str]:
    """Compare a run's options with those of a command.

    Parameters
    ----------
    before, now
        Dotted names and values.
    out
        The run's folder, for sentences.

    Returns
    -------
    list of str
        Sentences on options that are new since the run began.

    Raises
    ------
    TrainingError
        Where options differ that would make another run of it.
    """
    told = []
    for name in sorted(before.keys() | now.keys()):
        if name.startswith(_FREE):
            continue
        if name not in before:
            told.append(f"{out} is older than the option --{name}: it goes on with {now[name]}")
        elif name not in now:
            raise TrainingError(
                f"{out} is of another version, with --{name} {before[name]}, which this one does not know: go on with"
                f" that version, or name another --out and begin from its weights with --init {out}"
            )
        elif before[name] != now[name]:
            raise TrainingError(
                f"{out} holds a run with --{name} {before[name]}, not {now[name]}: go on with the same, name another"
                f" --out, or begin from its weights with --init {out}"
            )
    return told

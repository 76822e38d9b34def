"""Whether predictions may join those that lie in a folder, told before anything is predicted."""

from pathlib import Path

from shardkit.errors import ArgumentError, ShardkitError
from trainer.evaluate import predictions, together
from trainer.evaluate.predictions import PredictionsAbout
from trainer.evaluate.results import found
from trainer.evaluate.together import Places

_REMEDY = "name another --out, or remove"


def check(out: Path, asked: Places) -> None:
    """Refuse to predict what would replace, or stand beside, predictions of something else.

    Parameters
    ----------
    out
        The folder.
    asked
        Files to be written, and what they will be of.

    Raises
    ------
    ArgumentError
        A file is of another dataset or split, of labels that have changed since, of another run of the same name, or
        of another task, or cannot be read.
    """
    paths = {path for path, _ in asked}
    there = [(path, predictions.read(path).about) for path in found(out) if path not in paths]
    replaced = [(path, about, old) for path, about in asked if (old := _about(path)) is not None]
    for path, about, old in replaced:
        for name, what in (("digest", "dataset"), ("split", "split"), ("labels", "table of labels")):
            if getattr(about, name) != getattr(old, name):
                raise ArgumentError(
                    f"{path} is of another {what}, {_named(old, name)}, not {_named(about, name)}: {_REMEDY} it"
                )
        _check_contents(path, about, old)
    older = [*there, *((path, old) for path, _, old in replaced)]
    for path, old in older:
        for _, about in asked:
            if about.run == old.run and not _same_run(about, old, older):
                raise ArgumentError(
                    f"{path} is of another run that is called {old.run}, too: name both in one command with another"
                    f" --out, or remove {path}"
                )
    together.check([*there, *asked])


def _check_contents(path: Path, about: PredictionsAbout, old: PredictionsAbout) -> None:
    """Refuse tables of labels that have changed under their names: old scores would be gone without a word."""
    tables = {"labels_digest": f"labels {old.labels}", "split_digest": f"labels of the split {old.split}"}
    for digest, what in tables.items():
        was, now = getattr(old, digest), getattr(about, digest)
        if was and now and was != now:
            raise ArgumentError(
                f"{path} is of the {what} as they were ({was[:12]}), and they have changed since ({now[:12]}):"
                f" {_REMEDY} it"
            )


def _about(path: Path) -> PredictionsAbout | None:
    """Return what a file is of that is to be written; None where there is none, or it is of no use."""
    try:
        return predictions.read(path).about
    except ShardkitError:
        return None


def _named(about: PredictionsAbout, name: str) -> str:
    return f"{about.data} ({about.digest[:12]})" if name == "digest" else str(getattr(about, name))


def _same_run(about: PredictionsAbout, old: PredictionsAbout, older: Places) -> bool:
    """Return whether two are of one run: by its folder, or, where that was moved, by a checkpoint of it."""
    if about.origin == old.origin or not (about.origin and old.origin):
        return True
    return any((one.origin, one.seed, one.checkpoint) == (old.origin, about.seed, about.checkpoint) for _, one in older)

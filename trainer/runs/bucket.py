"""A run in a bucket: which objects there are, and how they come to a folder of this machine.

As on a disk, but for checkpoints: `checkpoints/step_00000500/` holds a checkpoint's files, and it is whole once
`checkpoints/step_00000500.json` is there, the last object of it that is put, with sizes and digests of the others.
`best.json` names the chosen one. A copy of all objects in a folder is a run that every command reads.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import obstore
from xxhash import xxh3_128 as hasher

from shardkit.errors import ArgumentError
from shardkit.storage import NO_RETRIES, MissingObject, Store, translate_errors
from shardkit.storage.locks import NAME as RUNNING
from shardkit.storage.regular import check_name
from shardkit.storage.waiting import waited
from trainer.runs import best, checkpoint
from trainer.runs.folder import FACTS

T = TypeVar("T")

BEST: Final = "best.json"
_INDEX = re.compile(rf"{checkpoint.FOLDER}/({checkpoint.PREFIX}\d{{8}})\.json")
_NOT_HERE = ("tensorboard/", "profile/", f"{checkpoint.FOLDER}/", "seed_")  # which going on does not need
_REMEDY = "check it and run the same command again"
_BLOCK = 8 << 20

Index = dict[str, Any]


class Bucket:
    """The objects of one run.

    Parameters
    ----------
    url
        Where they lie, maybe with credentials, which messages never show.
    folder
        The folder of this machine that stands for it.

    Attributes
    ----------
    url : str
        The same, to be shown.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._given, self.folder = url.rstrip("/"), folder
        # Small reads and puts are waited for here; of large ones the client itself tries again, for three minutes.
        self._small, self._large = Store(url, **NO_RETRIES), Store(url)
        self.url = self._small.url

    def below(self, name: str) -> "Bucket":
        """Return the run of one of several seeds."""
        return Bucket(f"{self._given}/{name}", self.folder / name)

    def at(self, folder: Path) -> "Bucket":
        """Return the same run, with another folder."""
        return Bucket(self._given, folder)

    # --- objects

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the objects below a folder, sorted."""
        return sorted(name for name, _ in self._waited(lambda: [*self._small.list(prefix)]))

    def get(self, name: str) -> bytes | None:
        """Return a small object; None where it is not there."""
        try:
            return self._waited(lambda: self._small.get(name))
        except MissingObject:
            if name != FACTS:
                return None
            self.names(checkpoint.FOLDER)  # is it the bucket that is not there?
            return None

    def put(self, name: str, data: bytes) -> None:
        """Put an object, whole or not at all."""
        self._waited(lambda: self._small.put(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Put an object unless it is there; return whether it was put."""

        def put() -> bool:
            with translate_errors(f"{self.url}/{name}", writing=True):
                try:
                    obstore.put(self._small.remote, name, data, mode="create")
                except obstore.exceptions.AlreadyExistsError:
                    return False
                return True

        return self._waited(put)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects, one after another."""
        for name in names:
            self._waited(lambda name=name: self._small.delete(name))  # type: ignore[misc]

    def move_in(self, name: str, path: Path) -> dict[str, Any]:
        """Put a file as an object, and remove it here; return what the index says of it."""
        about = {"size": path.stat().st_size, "xxh3_128": _digest(path)}
        self._large.put_file(name, path)
        return about

    def fetch(self, name: str, target: Path, about: dict[str, Any] | None = None) -> str:
        """Copy an object to a file; return what is wrong with it, in words: nothing where it is as the index says.

        Parameters
        ----------
        name
            Of the object.
        target
            The file.
        about
            Its size and digest, where they are known.
        """
        check_name(self.url, name)
        digest = hasher()
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with translate_errors(f"{self.url}/{name}"), part.open("wb") as file:
            for block in obstore.get(self._large.remote, name).stream(min_chunk_size=_BLOCK):
                file.write(block)
                digest.update(block)
        if about is not None and part.stat().st_size != about["size"]:
            return f"{target.name} is cut short"
        if about is not None and digest.hexdigest() != about["xxh3_128"]:
            return f"{target.name} is damaged"
        part.replace(target)
        return ""

    def _waited(self, once: Callable[[], T]) -> T:
        return waited(once, self.url, remedy=_REMEDY)

    # --- what a command begins with

    def seeds(self) -> list[str]:
        """Return the names of the folders of runs of several seeds."""
        return [name.partition("/")[0] for name in self.names() if re.fullmatch(rf"seed_[^/]+/{FACTS}", name)]

    def fetch_facts(self) -> None:
        """Copy `run.json`, those of several seeds too, where they are there."""
        for name in (FACTS, *(f"{seed}/{FACTS}" for seed in self.seeds())):
            if (found := self.get(name)) is not None:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(found)

    def fetch_records(self) -> None:
        """Copy what logs and pages go on from: all but checkpoints, traces and event files."""
        for name in self.names():
            if not name.startswith(_NOT_HERE) and name not in (RUNNING, BEST):
                self.fetch(name, self.folder / name)

    # --- checkpoints

    def steps(self) -> list[str]:
        """Return the names of the whole checkpoints, the newest first."""
        found = (_INDEX.fullmatch(name) for name in self.names(checkpoint.FOLDER))
        return sorted((match[1] for match in found if match), reverse=True)

    def index(self, step: str) -> Index | None:
        """Return where a checkpoint's files lie and what they are; None where it says nothing of use."""
        try:
            found = json.loads(self.get(f"{checkpoint.FOLDER}/{step}.json") or b"")
            assert all(re.fullmatch(r"\.?\w[\w.-]*", name) for name in (found["folder"], *found["files"]))
            assert all({*about} == {"size", "xxh3_128"} for about in found["files"].values())
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
            return None
        return dict(found)

    def chosen(self) -> str:
        """Return the name of the chosen checkpoint; empty where none is chosen."""
        try:
            return str(json.loads(self.get(BEST) or b"{}").get("checkpoint", ""))
        except (ValueError, AttributeError):
            return ""

    def fetch_checkpoint(self, step: str) -> str:
        """Copy a checkpoint to the folder; return what it lacks, in words: nothing where it is whole."""
        target = self.folder / checkpoint.FOLDER / step
        if (index := self.index(step)) is None:
            return f"{step}.json is damaged"
        there = f"{checkpoint.FOLDER}/{index['folder']}"
        for name, about in index["files"].items():
            if (target / name).exists():
                continue
            try:  # twice, for it may have been damaged on the way
                lacks = self.fetch(f"{there}/{name}", target / name, about)
                lacks = lacks and self.fetch(f"{there}/{name}", target / name, about)
            except MissingObject:
                lacks = f"{name} is missing"
            if lacks:
                return lacks
        return ""

    def free_folder(self, step: str) -> str:
        """Return the name of a folder for a checkpoint's files in which nothing lies."""
        taken = {name.split("/")[1] for name in self.names(checkpoint.FOLDER)}
        again = (f"{step}-{number}" for number in range(2, len(taken) + 3))
        return next(name for name in (step, *again) if name not in taken)

    def prune(self, keep: int) -> None:
        """Remove all but the newest checkpoints and the chosen one: first what makes one whole, then its files."""
        chosen = self.chosen()
        self.delete(f"{checkpoint.FOLDER}/{step}.json" for step in self.steps()[keep:] if step != chosen)
        self.sweep()

    def sweep(self) -> None:
        """Remove the files of checkpoints that are not whole, as a crash leaves them; of damaged ones they stay."""
        names = self.names(checkpoint.FOLDER)
        indices = [name.split("/")[1].removesuffix(".json") for name in names if name.count("/") == 1]
        folders, kept = {name.split("/")[1] for name in names if name.count("/") > 1}, set[str]()
        for step in indices:
            known = self.index(step)
            own = step.partition(".")[0]
            kept |= {known["folder"]} if known else {folder for folder in folders if folder.startswith(own)}
        self.delete(name for name in names if name.count("/") > 1 and name.split("/")[1] not in kept)

    def fetch_run(self, part: str, last: bool = False) -> None:
        """Copy `run.json` and a checkpoint, to be read.

        Parameters
        ----------
        part
            Name of a checkpoint, or best; empty for the chosen one, else the newest.
        last
            Whether the newest is wanted, too.

        Raises
        ------
        ArgumentError
            There is no run, or no such checkpoint.
        """
        if (facts := self.get(FACTS)) is None:
            raise ArgumentError(f"{self.url} has no {FACTS}: name the --out of a run")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / FACTS).write_bytes(facts)
        chosen = self.chosen() if part in ("", best.NAME) else ""
        if part == best.NAME and not chosen:
            raise ArgumentError(f"{self.url} has chosen no checkpoint: name another one, or the run")
        if named := chosen or part:
            if part not in ("", best.NAME) and part not in self.steps():
                raise ArgumentError(f"{self.url}: {part} is not there; there is {', '.join(self.steps()) or 'none'}")
            if lacks := self.fetch_checkpoint(named):
                raise ArgumentError(f"{self.url}: {named} is not whole ({lacks}): name another checkpoint of the run")
            if chosen:
                best.keep(self.folder, self.folder / checkpoint.FOLDER / chosen)
        if not named or last:
            for step in self.steps():
                if not self.fetch_checkpoint(step):
                    return


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hasher()
        while block := file.read(_BLOCK):
            digest.update(block)
    return str(digest.hexdigest())

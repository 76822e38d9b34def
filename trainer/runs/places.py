"""Runs in buckets: which folder of this machine stands for which url. Messages name the url.

A run whose `--out` is a url is made in a scratch folder, as one on a disk is made in its own, and what is finished is
put into the bucket: logs and pages by `trainer.runs.mirror`, checkpoints by `trainer.runs.bucket_checkpoints`. Buckets
have no appending and no renaming, which a log and a whole checkpoint need. A file system on top of one, as fsspec's,
would hide that and not mend it; so all that writes or reads a run goes on using files, and two modules know of buckets.

Scratch folders lie where `TMPDIR` says, are shared by the processes of a machine, and go with the command.
"""

import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardkit.errors import ArgumentError, ShardkitError
from shardkit.storage import MissingObject, is_remote, local_path, shown
from trainer import parallel
from trainer.parallel import World
from trainer.runs.bucket import Bucket
from trainer.runs.folder import FACTS

_WRITABLE = ("s3", "gs", "az", "azure", "abfs", "abfss")
_OF_A_RUN = re.compile(r"(.+)/(?:checkpoints/(step_\d{8}[^/]*)|(best))/?")
_roots: list["tempfile.TemporaryDirectory[str]"] = []
_buckets: dict[Path, Bucket] = {}
_made: set[Path] = set()  # by this process, which downloads for the others of its machine
_fetched: dict[str, Path | None] = {}  # a url that was read, and its copy; None where it is gone


@contextmanager
def scratch() -> Iterator[None]:
    """Remove the folders of a command's runs at its end."""
    try:
        yield
    finally:
        while _roots:
            _roots.pop().cleanup()
        for known in (_buckets, _made, _fetched):
            known.clear()


def local(place: str) -> Path:
    """Return the folder that a run is written to: its own, or one that stands for a bucket's.

    Parameters
    ----------
    place
        Folder or url, as typed.

    Raises
    ------
    ArgumentError
        The url is none that can be written to.
    """
    if not is_remote(place):
        return local_path(place)
    if place.partition("://")[0] not in _WRITABLE:
        raise ArgumentError(f"{shown(place)} cannot be written to: name a folder, or a url of s3, gs or az")
    return _stands_for(place)


def only_local(place: str, option: str = "--out") -> Path:
    """Return the folder that an option names.

    Raises
    ------
    ArgumentError
        It names a bucket, and what is made there goes to folders only.
    """
    if is_remote(place):
        raise ArgumentError(
            f"{option} {shown(place)} is a url: this command writes to a disk; copy what it makes from there"
        )
    return local_path(place)


def bucket(folder: Path) -> Bucket | None:
    """Return the run in a bucket that a folder stands for, or one of its seeds'; None for a folder of its own."""
    if folder not in _buckets and (above := _buckets.get(folder.parent)) is not None:
        _buckets[folder] = above.below(folder.name)
    return _buckets.get(folder)


def leads(folder: Path) -> bool:
    """Return whether this process downloads to a folder that stands for a bucket's, for all of its machine."""
    return folder in _made or folder.parent in _made


def named(text: str) -> str:
    """Return a text in which urls stand in place of the folders that stand for them."""
    for folder, of in _buckets.items():
        text = text.replace(str(folder), of.url)
    return text


def begun(folder: Path, world: World) -> Path:
    """Share the folder that stands for a bucket's run with the processes of this machine; return it, with `run.json`.

    Parameters
    ----------
    folder
        As `local` gave it; one of its own is returned as it is.
    world
        All processes of the run.

    Raises
    ------
    StorageError
        The bucket is not there, refuses, or does not answer; on all processes.
    """
    if (own := bucket(folder)) is None:
        return folder
    shared = _shared(folder, own)
    parallel.from_each(lambda: _buckets[shared].fetch_facts() if leads(shared) else None)
    return shared


def share(source: str | None, needed: bool) -> None:
    """Read a run that weights are taken of, once a machine: all processes of a command call it.

    Parameters
    ----------
    source
        What `--init` names; nothing is done for anything but a url.
    needed
        Whether it has to be there.

    Raises
    ------
    ArgumentError
        The url is no run's; on all processes.
    """
    if source is None or not is_remote(source) or source in _fetched:
        return
    folder, part = _opened(source)
    shared = _shared(folder, _buckets[folder])
    try:
        parallel.from_each(lambda: _buckets[shared].fetch_run(part) if shared in _made else None)
    except (ArgumentError, MissingObject):
        if needed:
            raise
        _fetched[source] = None
        return
    _fetched[source] = _place(shared, part)


def read(place: str, last: bool = False, pages: bool = False) -> Path:
    """Return the folder of a run, or of one of its checkpoints, to be read: of a url, of a copy.

    Parameters
    ----------
    place
        Folder or url of a run or a checkpoint.
    last
        Whether the last checkpoint is wanted where validation chose another.
    pages
        Whether logs and pictures are wanted in place of checkpoints.

    Raises
    ------
    ArgumentError
        The url is no run's.
    StorageError
        It cannot be read.
    """
    if not is_remote(place):
        return local_path(place)
    folder, part = _opened(place)
    of = _buckets[folder]
    if pages:
        of.fetch_facts()
        of.fetch_records()
        return folder
    seeds = [] if part else of.seeds()
    for seed in seeds:
        of.below(seed).fetch_run("", last)
    if not seeds:
        of.fetch_run(part, last)
    _fetched[place] = found = _place(folder, part)
    return found


def run_at(source: str) -> Path | None:
    """Return the folder of the run or checkpoint that weights are taken of; None where it is none, as a file is.

    Raises
    ------
    ShardkitError
        A url is no run's, or cannot be read.
    """
    if not is_remote(source):
        return path if (path := Path(source)).is_dir() else None
    return _fetched[source] if source in _fetched else read(source)


def facts_at(url: str) -> dict[str, Any]:
    """Return what a run in a bucket says of itself, without its weights; nothing where it cannot be read."""
    match = _OF_A_RUN.fullmatch(url)
    try:
        found = json.loads(Bucket(match[1] if match else url, Path()).get(FACTS) or b"{}")
    except (ShardkitError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _opened(url: str) -> tuple[Path, str]:
    """Return a new folder for the run of a url, and which checkpoint of it is meant: empty where none is named."""
    match = _OF_A_RUN.fullmatch(url)
    return (_stands_for(match[1]), match[2] or match[3]) if match else (_stands_for(url), "")


def _place(folder: Path, part: str) -> Path:
    return folder / part if part in ("", "best") else folder / "checkpoints" / part


def _stands_for(url: str) -> Path:
    if not _roots:
        _roots.append(tempfile.TemporaryDirectory(prefix="trainer-run-", ignore_cleanup_errors=True))
    folder = Path(_roots[0].name).resolve() / str(len(_buckets)) / shown(url.rstrip("/")).rpartition("/")[2]
    folder.mkdir(parents=True)
    _buckets[folder] = Bucket(url, folder)
    _made.add(folder)
    return folder


def _shared(folder: Path, own: Bucket) -> Path:
    """Return the folder of the first process of this machine."""
    here = (os.environ.get("GROUP_RANK", socket.gethostname()), str(folder))  # torchrun's number of the machine
    first: dict[str, str] = {}
    for machine, path in parallel.gathered(here):
        first.setdefault(machine, path)
    shared = Path(first[here[0]])
    if shared != folder:
        _buckets[shared] = own.at(shared)
    return shared

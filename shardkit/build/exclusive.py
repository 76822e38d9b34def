"""One run at a time on a place: another is refused with a sentence that names the first.

On a disk a run holds the kernel's lock on a file in the folder (`shardkit.storage.locks`).

A bucket has no locks. There a run makes an object, which the store lets only one do, and renews it. Another run that
finds the object watches it: where it is renewed, the other is refused; where it is not for `LAPSE` seconds, the first
is dead, and its object is taken over, which again only one can do. A run that holds the same private folder need not
watch: the kernel has told it that the first is gone. Stores without conditional writes have no lock, nor has a dataset
on a disk without file locks; there the private folder's alone keeps a second run of the same command out.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError

from shardkit.errors import BuildError
from shardkit.storage import Store, locks, translate_errors
from shardkit.storage.locks import NAME

BEAT, LAPSE = 10.0, 35.0
"""Seconds between two signs of life in a bucket; seconds without one after which a run is dead."""

_Tag = dict[str, str]


class Running:
    """The locks that a run holds."""

    def __init__(self) -> None:
        self.private = ""  # names the private folder that is held, on this machine
        self.lost: str | None = None  # a bucket that another run has taken over

    def check(self) -> None:
        """Refuse to go on when this run was thought dead and another has taken its place.

        Raises
        ------
        BuildError
            Where it has.
        """
        if self.lost:
            raise BuildError(
                f"{self.lost} was taken over by another build, because this one could not reach it for long: run the"
                " same command again when that has ended"
            )

    @contextmanager
    def folder(self, folder: Path, required: bool = False) -> Iterator[None]:
        """Hold a folder on a disk, making it.

        Parameters
        ----------
        folder : Path
            It need not exist.
        required : bool
            Whether a filesystem without locks is an error.

        Raises
        ------
        BuildError
            Where another run holds it.
        """
        with locks.held(folder, _refused, 0o700 if required else 0o777) as held:
            if held is None and required:
                raise BuildError(f"{folder} is on a disk without file locks: name a folder on another one")
            if held is not None and required:
                there = os.fstat(held)
                self.private = f"{there.st_dev}:{there.st_ino}"
            yield

    @contextmanager
    def dataset(self, store: Store) -> Iterator[None]:
        """Hold the place of a dataset.

        Raises
        ------
        BuildError
            Where another run holds it.
        """
        if store.root is not None:
            with self.folder(store.root):
                yield
            return
        with translate_errors(f"{store.url}/{NAME}"):
            beat = _Beat(store, self)
        try:
            yield
        finally:
            beat.stop()


@contextmanager
def alone(private: Path | None, store: Store) -> Iterator[Running]:
    """Hold a private folder and a dataset's place for a run.

    Parameters
    ----------
    private : Path or None
        The private folder, if the run has one.
    store : Store
        The dataset's place.

    Raises
    ------
    BuildError
        Where another run holds one of them.
    """
    running = Running()
    if private is None:
        with running.dataset(store):
            yield running
    else:
        with running.folder(private, required=True), running.dataset(store):
            yield running


def _refused(place: str, known: str) -> BuildError:
    return BuildError(f"another build is running{known} on {place}: run the same command again when it has ended")


def _tag(facts: Any) -> _Tag:
    """Return what names this state of an object: clouds differ in which of the two they compare."""
    return {name: facts[name] for name in ("e_tag", "version") if facts.get(name)}


class _Beat:
    """Holds an object in a bucket and renews it on a thread, until stopped."""

    def __init__(self, store: Store, running: Running) -> None:
        self._store, self._running = store, running
        self._record = {**locks.who(), "private": running.private, "token": secrets.token_hex(8), "beat": 0}
        self._tag = self._take()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="beat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the object go."""
        self._end.set()
        self._thread.join(BEAT)  # not for ever: the store may be away
        with suppress(BaseError, OSError):
            if self._read()[1].get("token") == self._record["token"]:
                obstore.delete(self._store.remote, NAME)

    def _put(self, tag: _Tag | None) -> _Tag:
        """Write the record over what has this tag, or as a new object; its new tag. Raises what obstore raises."""
        data = json.dumps(self._record).encode()
        mode: Any = "create" if tag is None else tag
        try:
            return _tag(obstore.put(self._store.remote, NAME, data, mode=mode))
        except (NotSupportedError, NotImplementedError):
            return _tag(obstore.put(self._store.remote, NAME, data))

    def _take(self) -> _Tag:
        """Return the tag of the object made or taken over. Raises BuildError while another run renews it."""
        seen: _Tag | None = None
        deadline = time.monotonic() + LAPSE
        while True:
            try:
                return self._put(None)
            except (AlreadyExistsError, PreconditionError):
                pass
            try:
                tag, who = self._read()
            except FileNotFoundError:  # it ended meanwhile
                continue
            ours = bool(self._running.private) and all(who.get(k) == self._record[k] for k in ("host", "private"))
            if not ours and seen is not None and seen != tag:
                raise _refused(self._store.url, locks.known(who))
            if ours or (seen == tag and time.monotonic() >= deadline):
                try:
                    return self._put(tag)
                except PreconditionError:
                    raise _refused(self._store.url, locks.known(who)) from None
            seen = tag
            time.sleep(BEAT / 4)

    def _read(self) -> tuple[_Tag, dict[str, Any]]:
        found = obstore.get(self._store.remote, NAME)
        try:
            who = dict(json.loads(bytes(found.bytes())))
        except ValueError:
            who = {}
        return _tag(found.meta), who

    def _renew(self) -> None:
        while not self._end.wait(BEAT):
            self._record["beat"] += 1
            try:
                self._tag = self._put(self._tag)
            except (PreconditionError, AlreadyExistsError, FileNotFoundError):
                self._recognise()
            except (BaseError, OSError):  # the next beat may get through
                continue
            if self._running.lost:
                return

    def _recognise(self) -> None:
        """After a refused renewal: whether the object is ours after all, its last answer lost on the way."""
        try:
            tag, who = self._read()
        except FileNotFoundError:
            tag, who = {}, {}
        except (BaseError, OSError):
            return
        if who.get("token") == self._record["token"]:
            self._tag = tag
        else:
            self._running.lost = self._store.url

"""What a run in a bucket says, from its folder on this machine to the bucket: logs, pictures, pages, `run.json`.

Files that have changed are put whole, once a minute, before a checkpoint becomes whole, and at the end. So whoever goes
on from a checkpoint finds all lines up to it, and a crash loses only lines of steps that are trained again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from shardkit.errors import ShardkitError, StorageError
from shardkit.terminal.output import logger
from trainer.errors import TrainingError
from trainer.parallel import World, from_first
from trainer.runs import best, checkpoint, folder, lease, places
from trainer.runs.bucket import Bucket
from trainer.runs.lease import Lease

EVERY = 60.0
"""Seconds between two puts of what has changed."""
_NOT_THERE = {checkpoint.FOLDER, best.NAME, "wandb"}  # put by others; wandb's own files go to its server
_log = logger("trainer.out")
_held: dict[Path, "Mirror"] = {}

Say = Callable[[str], None]


class Mirror:
    """Puts what has changed in a run's folder. Of the first process, while it holds the run.

    Parameters
    ----------
    bucket
        The run.
    held
        The right to write to it.
    """

    def __init__(self, bucket: Bucket, held: Lease) -> None:
        self._bucket, self._lease = bucket, held
        self._known: dict[str, tuple[int, int]] = dict(self._found())  # as they are there
        self._one, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-mirror", daemon=True)

    def start(self) -> None:
        """Begin to put what changes, and to renew the lease."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, and put what has changed since; raises as `sync` does."""
        self._end.set()
        self._thread.join()
        self.sync()

    def sync(self) -> None:
        """Put all that has changed.

        Raises
        ------
        StorageError
            The bucket refuses, or is away.
        """
        with self._one:
            for name, state in self._found():
                if self._known.get(name) != state:
                    with suppress(FileNotFoundError):  # a file that was replaced meanwhile comes with the next call
                        self._bucket.put(name, (self._bucket.folder / name).read_bytes())
                        self._known[name] = state

    def check(self) -> None:
        """Raise TrainingError where another command has taken over the run."""
        self._lease.check()

    def _found(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Give name, size and time of every file."""
        root = self._bucket.folder
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root)
            if name.parts[0] not in _NOT_THERE and path.is_file() and path.suffix != ".part":
                stat = path.stat()
                yield name.as_posix(), (stat.st_size, stat.st_mtime_ns)

    def _run(self) -> None:
        waited = 0.0
        while not self._end.wait(lease.RENEW):
            waited += lease.RENEW
            try:
                self._lease.renew()
                if waited >= EVERY:
                    waited = 0.0
                    self.sync()
            except TrainingError as error:  # the next checkpoint ends the run
                _log.warning("%s", error)
                return
            except StorageError as error:
                _log.warning("logs cannot be put, trying again in %.0f s: %s", lease.RENEW, error)


def of(run: Path) -> Mirror:
    """Return the mirror of a run that this process holds."""
    return _held[run]


@contextmanager
def held(out: Path, world: World, say: Say) -> Iterator[None]:
    """Hold a run's folder, on a disk or in a bucket, for all processes of a run; at the end all of it is in the bucket.

    Parameters
    ----------
    out
        The folder, or the one that stands for a bucket's.
    world
        Which process this is.
    say
        Takes sentences for the user.

    Raises
    ------
    TrainingError
        Where another run holds it.
    StorageError
        Where a bucket cannot be written to.
    """
    bucket = places.bucket(out)
    if bucket is None:
        with folder.held(out, world):
            yield
        return
    with ExitStack() as stack:
        from_first(lambda: stack.enter_context(_of_first(bucket, say)), world)
        yield
        # All wait, for torchrun ends the others of a process that has ended.
        from_first(lambda: _held[out].close(), world)


@contextmanager
def _of_first(bucket: Bucket, say: Say) -> Iterator[None]:
    own = Lease(bucket)
    own.take(say)
    try:
        bucket.folder.mkdir(parents=True, exist_ok=True)
        bucket.fetch_records()
        bucket.sweep()
        mirror = _held[bucket.folder] = Mirror(bucket, own)
        mirror.start()
        try:
            yield
        except BaseException:
            with suppress(ShardkitError):  # of two errors the first is told
                mirror.close()
            raise
    finally:
        _held.pop(bucket.folder, None)
        with suppress(ShardkitError):
            own.release()

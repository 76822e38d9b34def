"""Who writes to a run in a bucket, where there are no locks: an object that its holder renews.

It says who the holder is, and changes with every renewal. A newcomer who finds one looks whether it changes: then the
holder lives, and the newcomer is refused; else the holder was killed, and the newcomer takes over. No clock of another
machine is asked. A holder that was taken for dead, as one that was cut off from the network, sees that at its next
renewal, and before it makes a checkpoint whole.
"""

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from shardkit.storage.locks import NAME, known, who
from trainer.errors import TrainingError
from trainer.runs import folder
from trainer.runs.bucket import Bucket

RENEW, EXPIRES, SETTLE = 15.0, 60.0, 1.0
"""Seconds between two renewals; after which one that does not change is of the dead; and in which two may meet."""


class Lease:
    """One holder's right to write to a run.

    Parameters
    ----------
    bucket
        The run.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self._about, self._renewed = bucket, {**who(), "token": secrets.token_hex(8)}, 0

    def take(self, say: Callable[[str], None]) -> None:
        """Become the holder, after a wait where the last one was killed.

        Parameters
        ----------
        say
            Takes a sentence on the wait.

        Raises
        ------
        TrainingError
            Another one holds it.
        StorageError
            The bucket is not there, or cannot be written to.
        """
        while not self._bucket.create(NAME, self._text()):
            before = self._bucket.get(NAME)
            if before is None:  # it has just been let go
                continue
            by = known(_read(before)) if "host" in _read(before) else ""
            say(
                f"a training was running{by} in {self._bucket.url}, and has not said that it ended: waiting for up to"
                f" {EXPIRES:.0f} s to see whether it goes on"
            )
            self._watch(before, by)
            self._bucket.put(NAME, self._text())
            time.sleep(SETTLE)
            self.check()
            return

    def renew(self) -> None:
        """Say that the holder lives; raises as `check` does."""
        self.check()
        self._renewed += 1
        self._bucket.put(NAME, self._text())

    def check(self) -> None:
        """Look whether this is still the holder.

        Raises
        ------
        TrainingError
            Another one has taken over.
        """
        there = _read(self._bucket.get(NAME) or b"")
        if there.get("token", self._about["token"]) != self._about["token"]:
            raise TrainingError(
                f"another training has taken over {self._bucket.url}{known(there)}, as this one was not heard of for"
                f" {EXPIRES:.0f} s: it goes on there, or name another --out"
            )

    def release(self) -> None:
        """Let it go, if it is still held."""
        if _read(self._bucket.get(NAME) or b"").get("token") == self._about["token"]:
            self._bucket.delete([NAME])

    def _watch(self, before: bytes, by: str) -> None:
        """Wait until the holder counts as dead, or has let go; raise TrainingError where it lives."""
        end = time.monotonic() + EXPIRES
        while time.monotonic() < end:
            time.sleep(min(EXPIRES / 20, RENEW / 4))
            now = self._bucket.get(NAME)
            if now is None:
                return
            if now != before:
                raise folder.refused(self._bucket.url, by)

    def _text(self) -> bytes:
        return json.dumps({**self._about, "renewed": self._renewed}).encode()


def _read(data: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError):
        return {}

"""Waits for a store that is away: what is read before anything runs, as a dataset's description, and files to build.

Reads of images have a wait of their own (`shardkit.loader.stream.reader`), which is asynchronous and goes on past
refusals: of a run that has read from a store, its credentials were right.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from shardkit.errors import ArgumentError, StorageError
from shardkit.storage.failures import Unanswered
from shardkit.terminal.output import logger

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds that a store is waited for, unless told otherwise."""
LONGEST_PAUSE, LONGEST_TRY = 2.0, 30.0
"""Seconds between two tries, and for one."""
SILENCE = 1.0
"""Seconds between two lines about failed reads."""
_log = logger("shardkit.stream")


class StoreAway(StorageError):
    """A store did not answer, or refused, for as long as it is waited for."""


class Throttle:
    """Lets one line a second into the log: in an outage every read fails, again and again."""

    def __init__(self) -> None:
        self._last, self._held = 0.0, 0

    def passed(self) -> int | None:
        """Return how many lines were held back before this one; None where this one is held back, too."""
        now = time.monotonic()
        if now - self._last < SILENCE:
            self._held += 1
            return None
        held, self._held, self._last = self._held, 0, now
        return held


def patience(left: float, deadline: float) -> float:
    """Return how many seconds a try may wait for an answer: half of what is left, so that there is another try."""
    return min(left, LONGEST_TRY, max(left / 2, deadline / 64))


def check_patience(attempts: int, deadline: float) -> None:
    """Check that a number of attempts and a deadline in seconds leave a try.

    Raises
    ------
    ArgumentError
        They leave none.
    """
    if attempts < 1 or deadline <= 0:
        raise ArgumentError(
            f"attempts={attempts} and deadline={deadline} leave no try: use at least 1 and some seconds"
        )


def pause(tries: int, first: float = 0.1) -> float:
    """Return how many seconds to rest after so many tries: more each time, and never the same for two that wait."""
    return float(min(first * 2 ** (tries - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.0))


def waited(once: Callable[[], T], what: str, deadline: float = DEADLINE, remedy: str = "check it and try again") -> T:
    """Call `once`, and again while the store is away, with at most one line of log a second.

    Parameters
    ----------
    once : callable
        Reads from the store.
    what : str
        What is read, in messages.
    deadline : float
        Seconds after which the store counts as away for good.
    remedy : str
        What the last message advises.

    Returns
    -------
    object
        What `once` returns.

    Raises
    ------
    StoreAway
        The deadline has passed.
    StorageError
        At once, where waiting mends nothing: what is missing, refused, set up wrongly.
    """
    begun, tries, lines, reason = time.monotonic(), 0, Throttle(), ""
    while True:
        left, tries = deadline - (time.monotonic() - begun), tries + 1
        try:
            return _within(once, patience(left, deadline))
        except Unanswered as error:
            reason = str(error)
        except TimeoutError:
            reason = reason or f"{what}: no answer in time"
        rest = pause(tries)
        if (took := time.monotonic() - begun) + rest >= deadline:
            raise StoreAway(f"{reason} ({tries} tries in {took:.1f} s): the store is away; {remedy}")
        if lines.passed() is not None:
            _log.warning("%s: failed, trying again for up to %.0f s: %s", what, deadline, reason)
        time.sleep(rest)


def _within(once: Callable[[], T], seconds: float) -> T:
    """Call in a thread, and raise TimeoutError if that takes longer; the thread ends with the client's own limit."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(once())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="shardkit-ask", daemon=True).start()
    return future.result(seconds)

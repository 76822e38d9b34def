"""What ends a command from outside: Ctrl-C with exit code 130, SIGTERM with 143, as shells name them.

A signal becomes an exception, so that locks and temporary files go. Libraries that are just being loaded may swallow
it, and threads may take long to end: so a command is gone after `GRACE` seconds at the latest, or at a second signal.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

SAID = "stopped; run the same command again to go on"
GRACE = 10.0
_asked: list[int] = []


def heed(program: str, at_once: bool = False) -> None:
    """Let SIGINT and SIGTERM end this process, `program` in messages; `at_once` while nothing has begun."""

    def end(number: int, frame: Any) -> None:
        _asked.append(number)
        if at_once or len(_asked) > 1:
            _leave(program)
        timer = threading.Timer(GRACE, _leave, (program,))
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as shells set it for what runs in the background
        signal.signal(signal.SIGINT, end)


def ended(program: str, run: Callable[[], int]) -> int:
    """Return the exit code of `run`; leave here where a signal ended it, whatever became of its exception."""
    try:
        return run()
    except BaseException:
        if _asked:
            _leave(program)
        raise


def code(number: int | None = None) -> int:
    """Return the exit code for a signal, by default the one that came first."""
    return 128 + (number or (_asked or [signal.SIGINT])[0])


def _leave(program: str) -> None:
    os.write(2, f"{program}: {SAID}\n".encode())  # past buffers and locks, which the signal may have interrupted
    os._exit(code())

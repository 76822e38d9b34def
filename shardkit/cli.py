"""The command line. Every error a user can cause ends in one sentence and exit code 1; a traceback is a bug.

Exit codes: 0 done, 1 could not, 2 bad usage, 3 done, but more files are quarantined than --max-quarantine allows,
4 done, but with an outcome that nobody can want (`shardkit.build.outcome`), whether or not 3 is true as well,
130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import os
import sys

from cyclopts import App, CycloptsError

from shardkit import __version__
from shardkit.commands import (
    building,
    collecting,
    errors,
    labelling,
    loading,
    looking,
    mixing,
    overlapping,
    stopping,
    usage,
)
from shardkit.errors import ShardkitError

app = App(
    name="shardkit",
    help="Stream hospital radiographs to GPUs: DICOM exports become resolution-binned, lossless, verified shards.",
    version=__version__,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
for command in (
    building.build,
    building.retry,
    building.transcode,
    collecting.collections,
    labelling.label,
    labelling.labels,
    labelling.unlabel,
    looking.scan,
    looking.info,
    looking.ledger,
    looking.verify,
    looking.preview,
    overlapping.overlap,
    loading.plan,
    loading.replay,
    mixing.mix,
    looking.demo,
):
    app.command(command)
_RENAMED = {"convert": "transcode"}


def run(words: list[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    words : list of str, optional
        The command line; by default the process's own.

    Returns
    -------
    int
        The exit code.
    """
    words = sys.argv[1:] if words is None else words
    if words and words[0] in _RENAMED:
        errors.plain(f"shardkit: {words[0]} is called {_RENAMED[words[0]]} now: shardkit {_RENAMED[words[0]]} --help")
        return 2
    try:
        code = app(words, result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        errors.plain(f"shardkit: {usage.sentence('shardkit', error)}")
        return 2
    except ShardkitError as error:
        errors.print(f"shardkit: {error}", style="red", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        errors.print(f"shardkit: {stopping.SAID}", style="yellow")
        return stopping.code()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the `shardkit` command, and end the process."""
    stopping.heed("shardkit")
    code = stopping.ended("shardkit", run)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: threads that pyarrow 26 may still be starting abort the interpreter's shutdown now and then.
    os._exit(code)

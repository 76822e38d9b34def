"""Ctrl-C ends a command with 130 and SIGTERM with 143, whatever the command is at."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

# A program of ours with one more command, which takes long and in which the exception may be lost.
SCRIPT = """
import signal, sys, time
from shardkit.commands import stopping
program, what = sys.argv[1:]
sys.argv = [program, "wait"]
stopping.GRACE = 0.3 if what == "swallowed" else 60
signal.signal(signal.SIGINT, signal.default_int_handler)

def wait():
    print("begun", flush=True)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            if what == "another":
                raise SystemError("an exception is set")
            if what != "swallowed":
                raise

if program == "shardkit":
    from shardkit import cli
    cli.app.command(wait)
else:
    from trainer.commands import cli
    made = cli.application
    def application(*words):
        app = made(*words)
        app.command(wait)
        return app
    cli.application = application
if what == "loading":
    stopping.heed(program, at_once=True)
    wait()
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("program", "what"),
    [
        pytest.param("trainer", "plain", marks=pytest.mark.deep),
        *(("shardkit", what) for what in ("plain", "swallowed", "another", "loading")),
    ],
)
def test_a_command_ends_with_the_exit_code_of_the_signal(
    program: str, number: signal.Signals, code: int, what: str
) -> None:
    words = [sys.executable, "-c", SCRIPT, program, what]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        begun = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=50)
    assert process.returncode == code, said
    assert said.splitlines()[-1] == f"{program}: stopped; run the same command again to go on"
    assert time.monotonic() - begun < 45


def test_a_second_signal_ends_at_once() -> None:
    words = [sys.executable, "-c", SCRIPT.replace("stopping.GRACE = 0.3", "stopping.GRACE = 60"), "shardkit"]
    with subprocess.Popen([*words, "swallowed"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=50)
    assert process.returncode == 143, "that of the first"

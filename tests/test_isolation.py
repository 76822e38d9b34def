"""Work that crashes, hangs or eats memory ends in a verdict, and the pool goes on."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from shardkit import isolation
from shardkit.errors import Quarantined

LONG = 60.0


@pytest.fixture(scope="module")
def pool() -> Iterator[isolation.Children]:
    children = isolation.Children(1, memory_limit=1 << 30)
    yield children
    children.close()


def _alive(pool: isolation.Children) -> int:
    """Process id of the child that runs a task now."""
    return isolation.result(pool.submit(os.getpid, timeout=LONG), LONG)


def test_a_value_comes_back(pool: isolation.Children) -> None:
    assert isolation.result(pool.submit(divmod, 17, 5, timeout=LONG), LONG) == (3, 2)
    assert _alive(pool) != os.getpid()


def test_what_a_task_raises_is_a_verdict_and_its_child_stays(pool: isolation.Children) -> None:
    before = _alive(pool)
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(divmod, 1, 0, timeout=LONG), LONG)
    assert caught.value.reason == "internal_error"
    assert "ZeroDivisionError" in caught.value.message
    assert _alive(pool) == before


def test_a_pool_that_is_closed_is_no_verdict_on_the_files_it_had() -> None:
    children = isolation.Children(1)
    futures = [children.submit(time.sleep, 30, timeout=LONG) for _ in range(3)]
    while not futures[0].running():
        time.sleep(0.02)
    children.close()
    for future in futures:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - any but a verdict
            isolation.result(future, LONG)
        assert not isinstance(caught.value, Quarantined), "the file would be quarantined because the build was stopped"


def test_a_crash_is_a_verdict_and_the_pool_goes_on(pool: isolation.Children) -> None:
    before = _alive(pool)
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(ctypes.string_at, 0, timeout=LONG), LONG)
    assert caught.value.reason == "decoder_crash"
    assert "SIGSEGV" in caught.value.message
    assert _alive(pool) != before


def test_a_task_that_leaves_by_itself_is_a_crash(pool: isolation.Children) -> None:
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(os._exit, 7, timeout=LONG), LONG)
    assert (caught.value.reason, "exit code 7" in caught.value.message) == ("decoder_crash", True)


def test_a_task_that_hangs_is_killed(pool: isolation.Children) -> None:
    before = _alive(pool)
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(time.sleep, 600, timeout=0.5), 0.5)
    assert caught.value.reason == "decode_timeout"
    assert _alive(pool) != before


def test_a_task_that_wants_ten_gigabytes_is_a_verdict(pool: isolation.Children) -> None:
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(bytearray, 10 << 30, timeout=LONG), LONG)
    assert caught.value.reason == "memory_limit"
    assert isolation.result(pool.submit(len, bytes(1 << 20), timeout=LONG), LONG) == 1 << 20


def test_one_crash_costs_no_other_task_its_result(pool: isolation.Children) -> None:
    futures = [pool.submit(pow, 2, i, timeout=LONG) for i in range(3)]
    crash = pool.submit(ctypes.string_at, 0, timeout=LONG)
    futures += [pool.submit(pow, 2, i, timeout=LONG) for i in range(3, 6)]
    with pytest.raises(Quarantined):
        isolation.result(crash, LONG)
    assert [isolation.result(f, LONG) for f in futures] == [2**i for i in range(6)]


def test_large_files_get_more_time() -> None:
    assert isolation.allowance(0, 30) == 30
    assert isolation.allowance(100 << 20, 30) > isolation.allowance(1 << 20, 30) > 30


PARENT = """
import os, time
from shardkit import isolation
pool = isolation.Children(2)
tasks = [pool.submit(time.sleep, 600, timeout=900) for _ in range(2)]
while sum(t.running() for t in tasks) < 2:
    time.sleep(0.05)
print("running", flush=True)
time.sleep(600)
"""


def _below(parent: int) -> list[int]:
    """Children of a process, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(above) == parent and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_die_with_their_parent(alive: Callable[[Iterable[int]], set[int]]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "running\n"
    children = _below(parent.pid)
    assert len(children) >= 2
    parent.kill()
    parent.communicate()
    for _ in range(200):
        if not alive(children):
            break
        time.sleep(0.05)
    assert not alive(children)

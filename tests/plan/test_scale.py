"""A plan's first step costs seconds and little memory, however many samples there are, and imports no GPU stack."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from shardkit.plan import Batching, Binned, Packed, Resized

PROBE = """
import json, resource, sys, time
import numpy as np
from shardkit.dataset.bins import Bin, Bins
from shardkit.plan import EpochPlan, Samples, from_text

def peak():
    try:  # of this program alone; what getrusage says begins with the parent's
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)

class Endless:
    # An array of any length that repeats a short one.
    def __init__(self, part):
        self.part, self.dtype = part, part.dtype
    def __getitem__(self, index):
        return self.part[index % len(self.part)]

n, shard, text, real = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "real"
weights = tuple(map(float, sys.argv[5:]))
some = np.arange(9973)
sides = [(300 + some * factor % 2700).astype(np.uint16) for factor in (7919, 104729)]
height, width = [np.resize(side, n) if real else Endless(side) for side in sides]
starts = np.append(np.arange(0, n, shard), n)
bins = Bins((Bin(1536, 3072), Bin(3072, 1536), Bin(3072, 3072)), 48)
members = starts[np.linspace(0, len(starts) - 1, len(weights) + 1).astype(int)]
samples = Samples("scale", starts, height, width, bins, weights=weights, members=members)
before, begun = peak(), time.process_time()  # which other programs on the machine do not lengthen
plan = EpochPlan(samples, 0, 0, from_text(text))
images = sum(len(micro.crops) for micro in plan[0])
print(json.dumps(
    {"images": images, "seconds": time.process_time() - begun, "more": peak() - before, "peak": peak()}
))
"""


def first_step(n: int, shard: int, batching: Batching, arrays: str, *weights: float) -> dict[str, Any]:
    """What a fresh process needs for the first step: seconds and bytes."""
    command = [sys.executable, "-c", PROBE, str(n), str(shard), str(batching), arrays, *map(str, weights or (1,))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


LARGE = [
    Packed(patch=48),
    Binned(tokens=24576, patch=48),
    Binned("thesis", tokens=24576, patch=48),
    Resized(224, 64, level="auto", crop=(0.2, 1.0), flip=0.5),
]


@pytest.mark.parametrize("batching", LARGE, ids=str)
def test_the_first_step_of_ten_million_samples_takes_seconds_and_little_memory(batching: Batching) -> None:
    found = first_step(10**7, 300, batching, "real")
    assert found["images"] > 0
    assert found["seconds"] < 5
    assert found["more"] < 1 << 30


def test_so_does_that_of_a_mixture_of_ten_million() -> None:
    found = first_step(10**7, 300, LARGE[0], "real", 0.25, 1, 1.5)
    assert found["images"] > 0
    assert found["seconds"] < 5
    assert found["more"] < 1 << 30


@pytest.mark.parametrize("batching", [LARGE[0], LARGE[1], LARGE[3]], ids=str)
def test_the_first_step_of_a_hundred_million_samples_takes_seconds_and_little_memory(batching: Batching) -> None:
    found = first_step(10**8, 1000, batching, "endless")
    assert found["images"] > 0
    assert found["seconds"] < 20
    assert found["peak"] < 2 << 30


# ------------------------------------------------------------------------------------------------------------ purity


def test_planning_imports_neither_torch_nor_dali_nor_a_store() -> None:
    code = (
        "import sys, shardkit.plan, shardkit.plan.score, shardkit.plan.spec;"
        "print([m for m in ('torch', 'nvidia', 'pyarrow', 'obstore', 'pydicom', 'imagecodecs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

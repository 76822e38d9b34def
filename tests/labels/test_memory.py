"""Memory that a join takes: measured by row, so that ten million rows need not be made to know what they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = (300_000, 900_000)
LIMITS = {"path": 350, "sop": 350, "study": 560}
"""Bytes a row of the table: of ten million below 4 GiB, with what the process has without any, and 6 GiB by study.
The texts of a reference, a path and a key alone are 60, 60 and 37."""
CHILD = """
import resource, sys
from benchmarks import labels
labels.shardkit(sys.argv[1], int(sys.argv[2]), sys.argv[3])
if sys.platform == "linux":  # where the other is what the parent had
    with open("/proc/self/status") as file:
        print(next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM")))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10))
"""
MAKE = "import sys; from benchmarks import labels; labels.make(sys.argv[1], int(sys.argv[2]), sys.argv[3])"


@pytest.mark.deep
@pytest.mark.parametrize("by", LIMITS)
def test_a_row_of_labels_takes_little_more_memory_than_its_texts(by: str, tmp_path: Path) -> None:
    peaks = []
    for rows in ROWS:
        for code in (MAKE, CHILD):
            command = [sys.executable, "-c", code, str(tmp_path / str(rows)), str(rows), by]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    of_row = (peaks[1] - peaks[0]) / (ROWS[1] - ROWS[0])
    assert of_row < LIMITS[by], f"{of_row:.0f} bytes a row, {[peak >> 20 for peak in peaks]} MiB"

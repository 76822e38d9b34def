"""Real processes under torchrun: ranks agree, a killed job goes on with another number of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RANK = """
import json, os, sys
import torch
import torch.distributed as dist
from shardkit import Loader, from_text

folder, text, state, stop, out = sys.argv[1:6]
dist.init_process_group("gloo")
loader = Loader(folder, batching=from_text(text), split=None, device="cpu", seed=4, window=8)
if state != "-":
    loader.load_state_dict(json.loads(open(state).read()))
rank, world = dist.get_rank(), dist.get_world_size()
seen, shapes = [], []
for batch in loader:
    tensor = batch.patches if hasattr(batch, "patches") else batch.images
    position, rows = batch.position, sorted(r for r in batch.rows.tolist() if r >= 0)
    seen.append([position.epoch, position.step, position.micro, rows, round(float(tensor.double().sum()), 3)])
    shapes.append(list(tensor.shape))
    # All ranks take a step together: unequal counts would hang or fail here.
    count = torch.tensor([len(seen)])
    dist.all_reduce(count)
    assert int(count) == world * len(seen)
    if batch.position.last and batch.position.step + 1 == int(stop):
        break
gathered = [None] * world
dist.all_gather_object(gathered, (seen, shapes, loader.state_dict()))
if rank == 0:
    with open(out, "w") as file:
        json.dump(gathered, file)
dist.destroy_process_group()
"""


@pytest.fixture
def torchrun(dataset_folder: Path, tmp_path: Path) -> Any:
    script = tmp_path / "rank.py"
    script.write_text(RANK)

    def run(world: int, text: str, state: Any = None, stop: int = -1) -> list[Any]:
        saved, out = tmp_path / "state.json", tmp_path / "out.json"
        if state is not None:
            saved.write_text(json.dumps(state))
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        words = [str(script), str(dataset_folder), text, str(saved) if state else "-", str(stop), str(out)]
        done = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return list(json.loads(out.read_text()))

    return run


@pytest.mark.deep
@pytest.mark.parametrize("text", ["packed:patch=16,per_step=4,tokens=512", "binned:patch=16,per_step=4,batch_size=2"])
def test_two_ranks_share_every_global_step_and_one_rank_resumes_their_state(torchrun: Any, text: str) -> None:
    alone = torchrun(1, text)
    (whole, _, end) = alone[0]
    two = torchrun(2, text, stop=2)
    first_half = sorted(batch for seen, _, _ in two for batch in seen)
    assert first_half == sorted(batch for batch in whole if batch[1] < 2)
    assert not {tuple(b[:3]) for b in two[0][0]} & {tuple(b[:3]) for b in two[1][0]}
    assert two[0][2] == two[1][2], "ranks have the same state"
    if text.startswith("binned"):
        assert two[0][1] == two[1][1], "ranks have the same bin at a time"
    rest = torchrun(1, text, state=two[0][2])
    assert first_half + sorted(rest[0][0]) == sorted(whole)
    assert rest[0][2] == end

"""MoCo v2 on two processes against its formulas in loops, with what would be wrong shown to be seen; DINO on two."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.objectives.views_made import objective, steps_of, trained
from trainer.models.masking import hashed

STEPS, PLACES, MICROS = 4, 3, 4  # 12 images a step, and a queue of 3 steps
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-2
WRONG = [
    "enqueue first",
    "no unshuffle",
    "no shuffle",
    "average after",
    "ring does not wrap",
    "ring begins again early",
    "queries by the key encoder",
    "keys by the query encoder",
    "positive last",
    "no temperature",
    "mean by micro-batch of the plan's first process",
]
RANK = """
import sys, torch
from pathlib import Path
from trainer import parallel
from tests.trainer.objectives.views_made import objective, steps_of, trained

world, found = parallel.start(), {}
for method, kind, side in (("moco", "cnn", 64), ("moco", "vit", 32), ("dino", "cnn", 64), ("dino", "vit", 32)):
    batches = steps_of(world.rank, world.size, 4, side, empty=0 if method == "moco" and kind == "cnn" else 1)
    folder = Path(sys.argv[1]) / f"{method}-{kind}"
    folder.mkdir(exist_ok=True)
    found[method, kind] = trained(objective(method, kind), batches, 4, folder, world)
if world.is_main:
    torch.save(found, sys.argv[1] + "/found.pt")
del found, world  # groups have threads, which must not live longer than Python
parallel.stop()
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two processes make of four steps, by method and kind of encoder."""
    folder, root = tmp_path_factory.mktemp("ranks"), Path(__file__).parents[3]
    (folder / "rank.py").write_text(RANK)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, folder / "rank.py", folder],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "found.pt", weights_only=False)


def _embedded(net: Any, weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Images through timm's network, normalised together, and the head by hand."""
    own = {n.removeprefix("encoder.encoder."): w for n, w in weights.items() if n.startswith("encoder.")}
    x: Tensor = torch.func.functional_call(net.encoder.encoder, own, (images.double(),))
    x = (x @ weights["head.0.weight"].T + weights["head.0.bias"]).clamp(min=0)
    x = x @ weights["head.2.weight"].T + weights["head.2.bias"]
    return x / x.square().sum(1, keepdim=True).sqrt()


def by_loops(made: Any, wrong: str = "") -> dict[str, Any]:
    """Four steps on one process: images one by one, the queue as a list."""
    net, batches = copy.deepcopy(made.model).train(), steps_of(0, 1, STEPS, 64)
    query = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters()}
    key = {n: p.detach().clone() for n, p in query.items()}
    queue, at, losses = list(made.queue.clone()), 0, []
    optimizer = torch.optim.SGD(query.values(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def follow() -> None:
        for name, p in query.items():
            key[name] = 0.999 * key[name] + 0.001 * p.detach()

    for step in range(STEPS):
        if wrong != "average after":
            follow()
        of = query if wrong == "keys by the query encoder" else key
        own = [b for b in batches if b.position.step == step]
        images = torch.cat([b.views[0][1] for b in own])
        seeds = torch.cat([b.binned(0).seeds[PLACES:] for b in own])  # of the second view
        order = hashed(seeds, torch.full_like(seeds, -1_000_003)).argsort()
        if wrong == "no shuffle":
            order = torch.arange(len(order))
        shuffled = torch.cat([_embedded(net, of, images[g]) for g in torch.split(order, PLACES)])
        keys: list[Any] = [None] * len(order)
        for place, image in enumerate(order.tolist()):
            keys[place if wrong == "no unshuffle" else image] = shuffled[place]
        if wrong == "average after":
            follow()
        if wrong != "keys by the query encoder":
            keys = [k.detach() for k in keys]

        def put(keys: list[Any] = keys) -> None:
            nonlocal at
            for k in keys:
                if wrong == "ring does not wrap" and at >= len(queue):
                    break
                queue[at % len(queue)] = k.detach()
                at += 1
            if wrong == "ring begins again early" and at >= len(queue) - len(keys):
                at = 0

        if wrong == "enqueue first":
            put()
        parts = []
        for micro, b in enumerate(own):
            q = _embedded(net, key if wrong == "queries by the key encoder" else query, b.views[0][0])
            total = torch.zeros((), dtype=torch.float64)
            for place in range(PLACES):
                positive = q[place] @ keys[PLACES * micro + place]
                logits = torch.stack([positive, *(q[place] @ n for n in queue)])
                logits = logits / (1.0 if wrong == "no temperature" else 0.2)
                total = total - logits.log_softmax(0)[-1 if wrong == "positive last" else 0]
            parts.append(total)
        if wrong == "mean by micro-batch of the plan's first process":
            parts = parts[::2]
        loss = torch.stack(parts).sum() / (PLACES * len(parts))
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        losses.append(loss.item())
        if wrong != "enqueue first":
            put()
    follow()  # ours follows at the end of a step, in place of the beginning of the next
    return {"losses": losses, "queue": torch.stack(queue), "query": query, "key": key}


def _differ(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    worst: float = max(abs(a - b) for a, b in zip(found["losses"], wanted["losses"], strict=True))
    worst = max(worst, float((found["kept"]["queue"] - wanted["queue"]).abs().max()))
    for name, p in wanted["query"].items():
        worst = max(worst, float((found["weights"][name] - p.detach()).abs().max()))
        worst = max(worst, float((found["kept"][f"teacher.{name}"] - wanted["key"][name]).abs().max()))
    return worst


@pytest.mark.parametrize("wrong", ["", *WRONG])
def test_two_processes_train_as_the_formulas_in_loops(two_ranks: Any, wrong: str) -> None:
    found = _differ(two_ranks["moco", "cnn"], by_loops(objective("moco", "cnn"), wrong))
    assert found > 1e-5 if wrong else found < 1e-10, found
    assert int(two_ranks["moco", "cnn"]["kept"]["pointer"]) == 12, "the queue has come round"


@pytest.mark.parametrize(("method", "kind"), [("moco", "cnn"), ("moco", "vit"), ("dino", "cnn"), ("dino", "vit")])
def test_one_process_and_two_train_alike(two_ranks: Any, method: str, kind: str, tmp_path: Path) -> None:
    side = {"vit": 32, "cnn": 64}[kind]
    empty = 0 if (method, kind) == ("moco", "cnn") else 1
    one = trained(objective(method, kind), steps_of(0, 1, 4, side, empty=empty), 4, tmp_path)
    two = two_ranks[method, kind]
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-5)
    for which in ("weights", "kept"):
        for name, value in one[which].items():
            if "running_" not in name and "num_batches" not in name:  # which are means over processes
                torch.testing.assert_close(two[which][name], value, rtol=1e-5, atol=1e-5, msg=name)

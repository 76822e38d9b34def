"""Attention within the sequences of a pack, as the trainer calls it: right, and how fast beside padded batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from benchmarks.gpu_steps import Where
from benchmarks.results import Record
from trainer.models.attention import attend

SHAPES = {"encoder": (12, 64), "decoder": (16, 32), "small": (6, 64)}
"""Heads and channels of a head: of ViT-B, of its decoder, of ViT-S."""
NEAR = 1e-2
"""Relative error of bfloat16 operands, at most: 8 bits of them are kept."""


def attention(where: Where) -> Record:
    """Compare output and gradients with float64, image by image, and time it beside a padded batch's.

    Returns
    -------
    dict
        rows: of every shape, relative errors; milliseconds forward and back of the pack, of the pack where the bound on
        a sequence's length is the longest one's instead of the pack's, and of scaled_dot_product_attention on the
        same sequences padded to the longest.
    """
    draw = np.random.default_rng(where.seed)
    tokens = 23_040 if where.on_gpu else 640
    lengths = _lengths(draw, tokens)
    cu = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device=where.device)
    rows, wrong = [], []
    for name, (heads, width) in SHAPES.items():
        kind = torch.bfloat16 if where.on_gpu else torch.float32
        given = [torch.randn(tokens, heads, width, device=where.device, dtype=kind) for _ in range(4)]
        errors = _errors(given, cu)
        row = {"shape": name, "tokens": tokens, "sequences": len(lengths), "longest": int(max(lengths)), **errors}
        row |= _timed(where, given, cu, lengths)
        rows.append(row)
        wrong += [f"{name}, {what}: relative error {off:.3g}" for what, off in errors.items() if not off < NEAR]
    return {"rows": rows, "wrong": wrong}


def _lengths(draw: np.random.Generator, tokens: int) -> list[int]:
    """Draw lengths of sequences as radiographs have them, some empty, that fill a pack."""
    found: list[int] = []
    mean = tokens // 16
    while sum(found) < tokens:
        found.append(min(int(draw.integers(mean // 3, 2 * mean)), tokens - sum(found)))
    return [*found, 0, 0]


def _errors(given: list[Tensor], cu: Tensor) -> dict[str, float]:
    q, k, v = (x.detach().clone().requires_grad_() for x in given[:3])
    out = attend(q, k, v, cu, q.shape[0])
    torch.autograd.backward(out, given[3])
    exact = [x.detach().double().requires_grad_() for x in given[:3]]
    whole = torch.cat([_plain(*(x[start:end] for x in exact)) for start, end in pairwise(cu.tolist())])
    torch.autograd.backward(whole, given[3].double())
    pairs = {"output": (out, whole)} | {
        f"gradient of {name}": (_gradient(a), _gradient(b)) for name, a, b in zip("qkv", (q, k, v), exact, strict=True)
    }
    return {
        name: float((a.detach().double() - b.detach()).norm() / b.detach().norm()) for name, (a, b) in pairs.items()
    }


def _gradient(of: Tensor) -> Tensor:
    assert of.grad is not None
    return of.grad


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    a, b, c = (x.transpose(0, 1) for x in (q, k, v))
    score = a @ b.transpose(1, 2) * q.shape[-1] ** -0.5
    return torch.matmul(score.softmax(-1), c).transpose(0, 1)


def _timed(where: Where, given: list[Tensor], cu: Tensor, lengths: list[int]) -> dict[str, float]:
    q, k, v = (x.detach().clone().requires_grad_() for x in given[:3])
    padded = [pad_sequence(list(torch.split(x.detach(), lengths)), batch_first=True) for x in given]
    a, b, c = (x.transpose(1, 2).contiguous().detach().requires_grad_() for x in padded[:3])
    up, tokens, longest = padded[3].transpose(1, 2), q.shape[0], max(lengths)
    return {
        "packed_ms": _ms(where, lambda: torch.autograd.backward(attend(q, k, v, cu, tokens), given[3])),
        "packed_bound_ms": _ms(where, lambda: torch.autograd.backward(attend(q, k, v, cu, longest), given[3])),
        "padded_ms": _ms(where, lambda: torch.autograd.backward(F.scaled_dot_product_attention(a, b, c), up)),
    }


def _ms(where: Where, work: Callable[[], object], repeats: int = 20) -> float:
    """Return the median time of a piece of work, which has run before, in milliseconds."""
    repeats = repeats if where.on_gpu else 2
    for _ in range(2):
        work()
    found = []
    for _ in range(repeats):
        where.wait()
        begun = time.perf_counter()
        work()
        where.wait()
        found.append(time.perf_counter() - begun)
    return median(found) * 1e3

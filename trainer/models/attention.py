"""Attention within sequences of a packed batch: one call, a kernel on CUDA, sequence by sequence elsewhere.

On CUDA it is `torch.nn.attention.varlen.varlen_attn` (flash attention for sequences of any length; half precision
only). On a CPU it is scaled dot-product attention of each sequence, wrapped as one operator so that `torch.compile`
sees static shapes. Both were compared with float64, on an H200 too: `python -m benchmarks gpu-check`.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
    """Return attention's output, in which a token sees its own sequence.

    Parameters
    ----------
    q, k, v
        (n, heads, width) queries, keys and values of all sequences, one after another.
    cu_seqlens
        int32, where sequences begin, and n.
    longest
        A bound on the length of a sequence, the same in every batch. CUDA leaves out what lies beyond, without a word;
        elsewhere a longer sequence is an error.

    Returns
    -------
    Tensor
        (n, heads, width).
    """
    if q.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        kind = q.dtype if q.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
        q, k, v, wanted = q.to(kind), k.to(kind), v.to(kind), q.dtype
        out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, longest, longest)
        return (out[0] if isinstance(out, tuple) else out).to(wanted)
    found: Tensor = _segments(q, k, v, cu_seqlens, longest)
    return found


@torch.library.custom_op("trainer::segments", mutates_args=())
def _segments(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
    out = torch.zeros_like(q)
    for start, end in _spans(cu_seqlens):
        if end - start > longest:
            raise ValueError(f"a sequence of {end - start} tokens is longer than the bound, {longest}")
        out[start:end] = _one(q[start:end], k[start:end], v[start:end])
    return out


@torch.library.custom_op("trainer::segments_backward", mutates_args=())
def _segments_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute each sequence's attention again instead of keeping it."""
    grads = tuple(torch.zeros_like(x) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5
    for start, end in _spans(cu_seqlens):
        dy, a, b, c = (x[start:end].transpose(0, 1) for x in (grad, q, k, v))  # (heads, n, width)
        share = (a @ b.transpose(1, 2) * scale).softmax(-1)
        of_share = dy @ c.transpose(1, 2)
        of_score = share * (of_share - (of_share * share).sum(-1, keepdim=True)) * scale
        parts = (of_score @ b, of_score.transpose(1, 2) @ a, share.transpose(1, 2) @ dy)
        for whole, part in zip(grads, parts, strict=True):
            whole[start:end] = part.transpose(0, 1)
    return grads[0], grads[1], grads[2]


def _spans(cu_seqlens: Tensor) -> list[tuple[int, int]]:
    ends = cu_seqlens.tolist()
    return [(start, end) for start, end in pairwise(ends) if end > start]


def _one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    a, b, c = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(a, b, c)[0].transpose(0, 1)


@_segments.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
    return torch.empty_like(q)


@_segments_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])


def _back(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, cu_seqlens = ctx.saved_tensors  # type: ignore[attr-defined]
    return (*_segments_backward(grad.contiguous(), q, k, v, cu_seqlens), None, None)


_segments.register_autograd(_back, setup_context=_keep)

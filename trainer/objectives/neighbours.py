"""Pictures of what features say: where an encoder looks, and which images of a micro-batch it finds alike."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from shardkit import BinnedBatch
from trainer.models.encoder import Encoder
from trainer.objectives import pictures
from trainer.objectives.dino_network import feature

Grey = npt.NDArray[np.uint8]
_LINES, _ALIKE, _HEADS = 5, 3, 2


@torch.no_grad()
def attention_and_neighbours(encoder: Encoder, batch: BinnedBatch) -> Grey:
    """Draw some images, what the class token attends to, and the images most and least alike.

    Parameters
    ----------
    encoder
        Left in validation mode.
    batch
        Images of one size, at least one.

    Returns
    -------
    ndarray of uint8
        (rows, cols). Similar is who has a great cosine of features, among the other images of the batch.
    """
    encoder.eval()
    with _LastAttention(encoder) as seen:
        found = feature(encoder.features(batch))
    there = torch.nonzero(batch.weight > 0).flatten().tolist()
    alike = (normalize(found.float(), dim=1) @ normalize(found.float(), dim=1).T).cpu()
    alike.fill_diagonal_(-2)
    images = batch.images[:, 0].float().cpu()
    maps = seen.maps()
    count = min(_ALIKE, len(there) - 1)
    lines, headings = [], ["image"]
    if maps is not None:
        headings += ["attention, mean", "head 1", f"head {maps.shape[1]}"][: 1 + min(_HEADS, maps.shape[1])]
    headings += [f"alike, {rank + 1}" for rank in range(count)] + (["least alike"] if count else [])
    for at in there[:_LINES]:
        cells = [pictures.grey_of(images[at])]
        if maps is not None:
            cells += _attention(maps[at].float().cpu(), images.shape[1:])
        others = sorted((i for i in there if i != at), key=lambda i: -float(alike[at, i]))
        cells += [pictures.grey_of(images[i]) for i in (*others[:count], *others[-1:])]
        lines.append(cells)
    return pictures.table(lines, headings)


def _attention(maps: Tensor, size: Any) -> list[Grey]:
    """Draw the mean over heads, and some of them: (heads, rows, cols), black where least, white where greatest."""
    chosen = [maps.mean(0), *(maps[[0, -1]][: min(_HEADS, len(maps))])]
    large = interpolate(torch.stack(chosen)[:, None], size=tuple(size), mode="nearest")[:, 0]
    return [pictures.grey_of(one) for one in large]


class _LastAttention:
    """Keeps what the last block of a vision transformer of timm's is given, and makes attention of it.

    Parameters
    ----------
    encoder
        Any; only one with blocks of `qkv` and a class token has maps.
    """

    def __init__(self, encoder: Any) -> None:
        blocks = getattr(getattr(encoder, "encoder", None), "blocks", None)
        last = getattr(blocks[-1], "attn", None) if isinstance(blocks, torch.nn.Sequential) and len(blocks) else None
        layout: Any = getattr(encoder, "layout", None)
        there = layout is not None and layout.class_token and hasattr(last, "qkv") and hasattr(last, "num_heads")
        self._attn: Any = last if there else None
        self._prefix = layout.prefix if there else 0
        self._given: Tensor | None = None

    def __enter__(self) -> "_LastAttention":
        self._hook = self._attn and self._attn.register_forward_pre_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        if self._hook:
            self._hook.remove()

    def _keep(self, _: Any, given: tuple[Tensor, ...]) -> None:
        self._given = given[0]

    def maps(self) -> Tensor | None:
        """Return what the class token attends to among patches: (B, heads, rows, cols); None without one."""
        if self._given is None:
            return None
        attn, x = self._attn, self._given
        q, k, _ = attn.qkv(x).reshape(*x.shape[:2], 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (attn.q_norm(q[:, :, :1]) * attn.scale) @ attn.k_norm(k).transpose(-2, -1)
        shares = scores.softmax(-1)[:, :, 0, self._prefix :]
        side = round(shares.shape[-1] ** 0.5)
        found: Tensor = shares.unflatten(-1, (side, -1))
        return found

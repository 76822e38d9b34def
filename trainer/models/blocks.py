"""Transformer blocks on sequences of any length, their parameters named as timm's."""

import torch
from torch import Tensor, nn

from trainer.models.attention import attend
from trainer.models.masking import hashed
from trainer.values import require


class Attention(nn.Module):
    """Multi-head self-attention within sequences."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
        """Attend within sequences: (n, width) -> (n, width)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        return self.proj(attend(q, k, v, cu_seqlens, longest).flatten(1))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two layers with a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map each token: (n, width) -> (n, width)."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, cu_seqlens: Tensor, longest: int, share: Tensor | None = None) -> Tensor:
        """Add attention and perceptron to the tokens: (n, width) -> (n, width).

        Parameters
        ----------
        x
            Tokens.
        cu_seqlens, longest
            Their sequences, see `attend`.
        share
            (2, n, 1), what attention and perceptron are multiplied by before they are added; see `kept`.
        """
        found = self.attn(self.norm1(x), cu_seqlens, longest)
        x = x + (found if share is None else found * share[0].to(found.dtype))
        found = self.mlp(self.norm2(x))
        return x + (found if share is None else found * share[1].to(found.dtype))  # type: ignore[no-any-return]


def check_blocks(of: str, width: int, heads: int) -> None:
    """Refuse widths that heads cannot share.

    Parameters
    ----------
    of
        What the names of the options begin with: nothing, or decoder_.
    width, heads
        Their values.

    Raises
    ------
    ArgumentError
        For such values.
    """
    require(f"model.{of}width", width, width >= 1, "1 or more")
    can = heads >= 1 and width % heads == 0
    require(f"model.{of}heads", heads, can, f"a divisor of --model.{of.replace('_', '-')}width {width}")


def check_drop_path(rate: float) -> None:
    """Refuse rates of stochastic depth that are none.

    Raises
    ------
    ArgumentError
        For such a rate.
    """
    require("model.drop_path", rate, 0 <= rate < 1, "0 or more, and below 1")


def drop_rates(rate: float, depth: int) -> list[float]:
    """Return each block's rate of stochastic depth: from 0 for the first to `rate` for the last, in equal steps."""
    return [rate * i / max(1, depth - 1) for i in range(depth)]


def kept(seeds: Tensor, block: int, rate: float) -> Tensor:
    """Draw which images a block's attention and perceptron act on (stochastic depth, Huang et al. 2016).

    Parameters
    ----------
    seeds
        int64 (S,), of the plan: what is drawn is the same on any number of processes, and in a run that goes on.
    block
        Number of the block.
    rate
        Share of the images that it leaves as they are.

    Returns
    -------
    Tensor
        float32 (2, S): 0, or 1 / (1 - rate).
    """
    drawn = torch.stack([hashed(seeds, torch.full_like(seeds, -2 - 2 * block - branch)) for branch in (0, 1)])
    return (drawn >= rate).float() / (1 - rate)


def initialise_linear(model: nn.Module) -> None:
    """Draw Xavier uniform weights for all linear maps, with biases of 0, in the order of the modules."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

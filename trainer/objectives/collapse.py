"""Signs that features of all images become one: how much they differ, in how many directions, how sure a teacher is."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.metrics import Later

_LEAST = {"feature_deviation": 0.05, "effective_rank": 2.0, "teacher_entropy": 0.01}
"""Below these a method has collapsed, whatever its loss is."""
_BEGUN = 0.1  # share of the steps
_FEWEST = 4  # images of which a rank is told: that of 3 is 2 at most, which would always be too low


@torch.no_grad()
def of_features(features: Tensor, weight: Tensor) -> dict[str, Tensor | Later]:
    """Return metrics of how much features of different images differ.

    Parameters
    ----------
    features
        (B, width), one an image.
    weight
        float (B,), 0 for none.

    Returns
    -------
    dict of str to Tensor or Later
        For `Output.metrics`. feature_deviation: standard deviation over images of features of length 1, mean over
        channels, times the root of the width: 0 for one feature of all, 1 for directions drawn at random (Chen and He
        2021). effective_rank: exp of the entropy of the singular values of centred features, each divided by their sum:
        1 to B - 1 (Roy and Vetterli 2007); of fewer than 4 images it is not measured. The decompositions of
        `torch.linalg` wait for a GPU. So the products of features go to the CPU with the step's sums, and singular
        values are made of them there, while the GPU has the update to do.
    """
    there = (weight > 0)[:, None]
    count = there.sum()
    x = torch.nn.functional.normalize(features.detach().float(), dim=1)
    x = torch.where(there, x - torch.where(there, x, 0.0).sum(0) / count.clamp(min=1), 0.0)
    deviation = (x.square().sum(0) / count.clamp(min=1)).sqrt().mean() * x.shape[1] ** 0.5
    two = count >= 2
    products = torch.cat([x.double() @ x.double().T, there.T.double()])
    return {
        "feature_deviation": torch.stack([torch.where(two, deviation, 0.0).double(), two.double()]),
        "effective_rank": Later(products, _rank),
    }


def _rank(products: Tensor) -> Tensor:
    """Return the metric of centred features' products with one another (B, B), and, below, of who is there."""
    if products[-1].sum() < _FEWEST:
        return torch.zeros(2, dtype=torch.float64)
    return torch.stack([effective_rank(products[:-1]), torch.ones((), dtype=torch.float64)])


def effective_rank(products: Tensor) -> Tensor:
    """Return in how many directions rows differ, by the entropy of singular values: float64 ().

    Parameters
    ----------
    products
        float64 (n, n), of centred rows with one another, on the CPU: the squares of their singular values are its
        eigenvalues. Of values that are not finite the rank is NaN, as another mean is: torch's decomposition raises an
        error of them, and a step with them is to be skipped, not to end the run.
    """
    if not bool(products.isfinite().all()):
        return products.new_full((), torch.nan)
    share = torch.linalg.eigvalsh(products).clamp(min=0).sqrt()
    share = share / share.sum().clamp(min=1e-12)
    return torch.exp(-torch.xlogy(share, share).sum())


@torch.no_grad()
def entropy(probabilities: Tensor, weight: Tensor) -> Tensor:
    """Return the mean entropy of rows as a share of that of equal probabilities, for `Output.metrics`.

    Parameters
    ----------
    probabilities
        (B, K), each row sums to 1.
    weight
        float (B,), 0 for none.
    """
    p = probabilities.detach().double()
    found = -torch.xlogy(p, p).sum(1) / math.log(p.shape[1])
    weight = weight.double()
    return torch.stack([torch.where(weight > 0, found * weight, 0.0).sum(), weight.sum()])


def settled(step: int, steps: int) -> bool:
    """Return whether a run has begun to learn: random weights, too, give all images nearly the same features."""
    return step >= _BEGUN * steps


def alarm(found: Mapping[str, float | None]) -> str:
    """Return a sentence where means of these metrics show a collapse; empty where they do not."""
    low = [
        f"{name.replace('_', ' ')} {value:.2g}, below {_LEAST[name]:g}"
        for name, value in found.items()
        if name in _LEAST and value is not None and value < _LEAST[name]
    ]
    if not low:
        return ""
    return f"features of all images have become nearly one ({'; '.join(low)}): lower --optim.lr, or begin anew"

"""Signs that features of all images become one: how much they differ, in how many directions, how sure a teacher is."""

from collections.abc import Mapping

import torch
from torch import Tensor

_LEAST = {"feature_deviation": 0.05, "effective_rank": 2.0, "teacher_entropy": 0.01}
"""Below these a method has collapsed, whatever its loss is."""
_BEGUN = 0.1  # share of the steps
_FEWEST = 4  # images of which a rank is told: that of 3 is 2 at most, which would always be too low


@torch.no_grad()
def of_features(features: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Return metrics of how much features of different images differ.

    Parameters
    ----------
    features
        (B, width), one an image.
    weight
        float (B,), 0 for none.

    Returns
    -------
    dict of str to Tensor
        For `Output.metrics`. feature_deviation: standard deviation over images of features of length 1, mean over
        channels, times the root of the width: 0 for one feature of all, 1 for directions drawn at random (Chen and He
        2021). effective_rank: exp of the entropy of the singular values of centred features, each divided by their sum:
        1 to B - 1 (Roy and Vetterli 2007); of fewer than 4 images it is not measured.
    """
    x = torch.nn.functional.normalize(features.detach().float(), dim=1)[weight > 0]
    if len(x) < 2:
        return {name: x.new_zeros(2, dtype=torch.float64) for name in ("feature_deviation", "effective_rank")}
    deviation = x.std(0, unbiased=False).mean() * x.shape[1] ** 0.5
    rank = _once(effective_rank(x)) if len(x) >= _FEWEST else x.new_zeros(2, dtype=torch.float64)
    return {"feature_deviation": _once(deviation), "effective_rank": rank}


def effective_rank(x: Tensor) -> Tensor:
    """Return in how many directions rows differ, by the entropy of singular values: (n, width) -> ().

    Of values that are not finite it is NaN, as another mean is: torch's decomposition raises an error of them, and a
    step with them is to be skipped, not to end the run.
    """
    finite = x.isfinite().all()
    share = torch.linalg.svdvals(torch.where(finite, x - x.mean(0), 0.0))
    share = share / share.sum().clamp(min=1e-12)
    return torch.where(finite, torch.exp(-torch.xlogy(share, share).sum()), torch.nan)


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
    found = -torch.xlogy(p, p).sum(1) / torch.log(torch.tensor(float(p.shape[1]), dtype=torch.float64))
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


def _once(value: Tensor) -> Tensor:
    return torch.stack([value.double(), value.new_ones((), dtype=torch.float64)])

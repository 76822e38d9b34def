"""The contrast of each image with all others of a step: its own key among theirs (van den Oord et al. 2018)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrast(queries: Tensor, keys: Tensor, there: Tensor, first: int, temperature: float) -> Tensor:
    """Return 2 T times the cross-entropy of cosines over T (Chen et al. 2021, MoCo v3, arXiv:2104.02057).

    Parameters
    ----------
    queries
        (S, width), of a micro-batch.
    keys
        (N, width), of all micro-batches of a step in the plan's order; they have no gradient.
    there
        bool (N,), whether there is an image: other keys are nobody's.
    first
        Place of this micro-batch's first key.
    temperature
        T.

    Returns
    -------
    Tensor
        (S,), one a query, float32 or better; finite where there is no image.
    """
    with torch.autocast(queries.device.type, enabled=False):
        kind = torch.promote_types(queries.dtype, torch.float32)
        cosines = F.normalize(queries.to(kind), dim=1) @ F.normalize(keys.detach().to(kind), dim=1).T
        own = first + torch.arange(len(queries), device=queries.device)
        nobody = (~there).expand(len(queries), -1).scatter(1, own[:, None], False)
        logits = (cosines / temperature).masked_fill(nobody, -torch.inf)
        return 2 * temperature * F.cross_entropy(logits, own, reduction="none")

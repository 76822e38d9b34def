"""Predictions of made-up patients with several images each, whose findings and scores go together."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.evaluate.kinds import Floats, Kind
from trainer.evaluate.predictions import Predictions, PredictionsAbout, table_of


def predictions(
    scores: Floats, targets: Floats, kind: Kind = "multilabel", run: str = "run", seed: int = 0, **facts: Any
) -> Predictions:
    """Return predictions of samples in this order."""
    about = PredictionsAbout(
        run=run,
        seed=seed,
        step=1,
        site="here",
        data="shards",
        digest="",
        split="test",
        labels="labels",
        labels_digest="",
        kind=kind,
        classes=tuple(f"class {k}" for k in range(scores.shape[1])),
    )
    return Predictions(about, table_of(about, [f"{at:08x}" for at in range(len(scores))], scores, targets, facts))


def clustered(
    patients: int, images: int, classes: int = 1, seed: int = 0, shift: float = 1.0, prevalence: float = 0.3
) -> Predictions:
    """Return predictions whose findings are a patient's, and most of what scores vary by, too."""
    random = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), images)
    ill = (random.random((patients, classes)) < prevalence).astype(float)
    shared = random.normal(size=(patients, classes))
    scores = shift * ill[who] + 0.8 * shared[who] + 0.6 * random.normal(size=(len(who), classes))
    return predictions(scores, ill[who], patient=[f"{number:x}" for number in who])

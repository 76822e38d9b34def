"""Folders with made-up predictions of runs at sites, as `evaluate` leaves them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluate.kinds import Floats, Kind
from trainer.evaluate.page.write import write as write_page
from trainer.evaluate.predictions import Predictions, PredictionsAbout, table_of, write
from trainer.evaluate.results import FILE, Settings, evaluation, found

DRAWS = Settings(replicates=120)
ABOUT = PredictionsAbout(
    run="ft",
    seed=None,
    step=1200,
    site="nih",
    data="shards/nih",
    digest="ab12",
    split="test",
    labels="findings",
    labels_digest="cd34",
    kind="multilabel",
    classes=("Edema", "Mass"),
    select_split="val",
    select_metric="auc",
    select_value=0.75,
    weights="random weights",
)


def put(
    folder: Path,
    *,
    images: int = 80,
    patients: int = 40,
    sharp: float = 2.0,
    facts: bool = True,
    absent: tuple[str, ...] = (),
    **about: Any,
) -> Predictions:
    """Write predictions of a run at a site; scores are as far apart as `sharp` says, `absent` classes have no positive.

    The same site has the same targets for every run.
    """
    of = replace(ABOUT, **about)
    random = np.random.default_rng(len(of.site))
    targets = _targets(of.kind, images, of.classes, random)
    for name in absent:
        targets[:, of.classes.index(name)] = 0.0
    noise = np.random.default_rng([of.seed or 0, len(of.run)]).normal(size=targets.shape)
    scores = targets + 5 / sharp * noise if of.kind == "regression" else sharp * (targets - 0.5) + noise
    known: dict[str, Any] = {"patient": [f"{at % patients:032x}" for at in range(images)]}
    if facts:
        known["view"] = ["AP" if at % 3 else None for at in range(images)]
        known["sex"] = ["M" if at % 2 else "F" for at in range(images)]
        known["age"] = [20.0 + at % 60 for at in range(images)]
    made = Predictions(of, table_of(of, [f"{at:020x}-0b" for at in range(images)], scores, targets, known))
    write(made, folder / of.run / (f"seed_{of.seed}" if of.seed is not None else "") / of.site / FILE)
    return made


def _targets(kind: Kind, images: int, classes: tuple[str, ...], random: np.random.Generator) -> Floats:
    if kind == "regression":
        return random.normal(50, 10, (images, len(classes)))
    if kind == "multiclass":
        return np.eye(len(classes))[random.integers(0, len(classes), images)]
    return (random.random((images, len(classes))) < 0.3).astype(np.float64)


def page(folder: Path, settings: Settings = DRAWS) -> str:
    """Return the page of a folder."""
    return write_page(evaluation(found(folder), settings), folder).read_text()

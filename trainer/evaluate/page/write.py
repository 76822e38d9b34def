"""The page as a file, and all of its numbers beside it: both of tables of predictions alone."""

import json
import math
from pathlib import Path
from typing import Any

from shardkit.report import number, render
from shardkit.terminal.words import counted
from trainer.evaluate.page import classes, comparisons, curves, decisions, errors, groups, headline, numbers, origins
from trainer.evaluate.page.words import NONE, in_sentence, mean_name
from trainer.evaluate.record import as_json
from trainer.evaluate.results import Evaluation
from trainer.runs.files import atomic_write

NAME, SCORES = "index.html", "scores.json"


def write(of: Evaluation, folder: Path, pictures: bool = True) -> Path:
    """Write `index.html` and `scores.json`, each whole or not at all.

    Parameters
    ----------
    of
        What is told.
    folder
        Where both go; pictures of errors are taken from it.
    pictures
        Whether the page shows them.

    Returns
    -------
    Path
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = ", ".join(of.labels)
    parts = _parts(of, folder, pictures)
    page = render(
        "evaluation.html",
        "trainer.evaluate.page",
        title=f"{labels} at {', '.join(of.sites)}: evaluation",
        kind="Evaluation",
        name=f"{labels}: {', '.join(of.runs)}",
        contents={name: title for name, (title, found) in parts.items() if found},
        task=_task(of),
        score=mean_name(of.entries[0]),
        of=of,
        drawn=f"{number(of.settings.replicates)} draws of patients",
        level=f"{100 * of.settings.level:.3g} %",
        seeds=any(len(entry.seeds) > 1 for entry in of.entries),
        matrix=headline.cells(of),
        forest=headline.forest(of),
        sentences=headline.sentences(of),
        origins=origins.found(of, places=pictures),
        **{name: found for name, (_, found) in parts.items()},
    )
    for name, content in ((NAME, page), (SCORES, json.dumps(plain(as_json(of)), indent=1).encode())):
        with atomic_write(folder / name) as fresh:
            fresh.write_bytes(content)
    return folder / NAME


def _parts(of: Evaluation, folder: Path, pictures: bool) -> dict[str, tuple[str, Any]]:
    """Return the sections that have something to say: title and content by id."""
    calibration = {"errors": decisions.calibration(of), "drawings": curves.calibration(of)}
    pairs = {"compared": comparisons.against(of), "left": comparisons.not_compared(of)}
    return {
        "scores": ("Scores", classes.means(of)),
        "classes": ("By target" if of.kind == "regression" else "By class", [classes.by_class(e) for e in of.entries]),
        "groups": ("By view, sex and age", groups.found(of)),
        "comparisons": ("Runs against each other", pairs if any(pairs.values()) else {}),
        "over_seeds": ("Seeds", comparisons.seeds(of)),
        "roc": ("ROC curves", [] if of.kind == "regression" else curves.roc(of)),
        "scatters": ("Predicted and known", numbers.scatters(of)),
        "thresholds": ("At thresholds", decisions.thresholds(of)),
        "confusions": ("What was taken for what", decisions.confusions(of)),
        "calibration": ("Calibration", {} if of.kind == "regression" else calibration),
        "oracle": ("Oracle AUC", [] if of.kind == "regression" else decisions.oracle(of)),
        "worst": ("The worst errors", errors.shelves(of, folder) if pictures else []),
        "files": ("What it is made of", _files(of, pictures)),
    }


def _task(of: Evaluation) -> str:
    about = of.entries[0].first.about
    kinds = {
        "multilabel": ("label", "labels, each by itself"),
        "multiclass": ("category", "categories of one label"),
        "regression": ("number", "numbers"),
    }
    return counted(len(about.classes), *kinds[about.kind])


def _files(of: Evaluation, places: bool) -> list[list[str]]:
    """Return what predictions are of; where datasets lie is told only where pictures are, too."""
    rows = []
    for entry in of.entries:
        for one in entry.seeds:
            a = one.about
            seed = "" if a.seed is None else f", seed {a.seed}"
            chosen = "last" if a.select_metric is None else f"best {in_sentence(a.select_metric)}"
            data = a.data if places else a.site
            rows.append(
                [f"{a.run}{seed} at {a.site}", data, a.digest[:12], a.split, a.labels, a.labels_digest[:12],
                 a.normalise or NONE, f"{number(a.step)}, {chosen}"]
            )  # fmt: skip
    return rows


def plain(value: Any) -> Any:
    """Return values that JSON can hold: no number that is none."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value

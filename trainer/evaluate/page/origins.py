"""What a reader has to know before any number: where weights began, what was chosen on which split, which warnings."""

import re
from dataclasses import dataclass
from typing import Any

from shardkit.report import number
from trainer.evaluate.page.words import in_sentence, shown
from trainer.evaluate.predictions import PredictionsAbout
from trainer.evaluate.results import LEAK, Evaluation

TEST = "test"


@dataclass(frozen=True, slots=True)
class Origin:
    """A run, or one seed of it.

    Parameters
    ----------
    run, weights, step, selected
        Its name, where it began, the update, and how that was chosen; plain text.
    on_test
        Whether it was chosen on the split that scores are of.
    """

    run: str
    weights: str
    step: str
    selected: str
    on_test: bool


def found(of: Evaluation, *, places: bool = True) -> dict[str, Any]:
    """Return what runs are, and the warnings of their predictions, each once with the runs and sites it is of.

    Parameters
    ----------
    of
        What a page tells.
    places
        Whether it says in which folders weights lay that a run began with, or their names only.
    """
    abouts = [one.about for entry in of.entries for one in entry.seeds]
    notes: dict[str, list[str]] = {}
    for about in abouts:
        for note in about.notes:
            where = f"{about.site}" if len(of.runs) == 1 else f"{about.run} at {about.site}"
            notes.setdefault(note, []).append(where)
    return {
        "rows": list({(one.run, one.seed): _origin(one, places) for one in abouts}.values()),
        "stamped": sorted({one.run for one in abouts if on_test(one)}),
        "notes": [_note(note, places, of) for note, places in notes.items()],
    }


def on_test(about: PredictionsAbout) -> bool:
    """Return whether a run's checkpoint was chosen on a test split, whichever labels table it is of."""
    return about.select_split is not None and about.select_split.rpartition(":")[2] == TEST


def _origin(about: PredictionsAbout, places: bool) -> Origin:
    name = about.run if about.seed is None else f"{about.run}, seed {about.seed}"
    if about.select_split is None:
        chosen = "the last one: nothing was chosen"
    else:
        value = "" if about.select_value is None else f" ({shown(about.select_value)})"
        chosen = f"best {in_sentence(about.select_metric or 'loss')} on {about.select_split}{value}"
    weights = about.weights if places else re.sub(r"(those of )[^,]*/", r"\1", about.weights)
    return Origin(name, weights or "not known", number(about.step), chosen, on_test(about))


def _note(note: str, places: list[str], of: Evaluation) -> tuple[str, str, str]:
    """Return (kind, where, sentence)."""
    where = "" if len(of.entries) == 1 else f"{', '.join(dict.fromkeys(places))}: "
    return ("alert" if note.startswith(LEAK) else "", where, note)

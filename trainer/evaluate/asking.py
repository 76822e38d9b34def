"""What a run is asked about a site: which split, with which targets, and what a reader has to know of both."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shardkit import Dataset, Loader
from shardkit.errors import ArgumentError
from shardkit.labels import Labels, LabelTable
from shardkit.labels.split_names import Split
from shardkit.labels.summary import MANIFEST, summarise
from shardkit.storage import shown
from shardkit.terminal.words import counted
from trainer.evaluate.kinds import Floats
from trainer.evaluate.predictions import PredictionsAbout
from trainer.evaluate.results import LEAK
from trainer.tasks.facts import FACTS
from trainer.tasks.trained import Trained

_TEST = "test"


def short_names(places: Sequence[str]) -> dict[str, str]:
    """Return a short name for each place: the last part of it, with the one before where two are alike."""
    plain = {one: shown(one).replace("***@", "") for one in places}
    parts = {one: [part for part in re.split(r"[/\\]+", text) if part] or [text] for one, text in plain.items()}
    last = [of[-1] for of in parts.values()]
    return {one: of[-1] if last.count(of[-1]) == 1 else "-".join(of[-2:]) for one, of in parts.items()}


def chosen_split(of: Trained, site: Dataset, labels: str) -> str:
    """Return the split that a run is asked about where none is named.

    The dataset that it was trained on has the split that the training left: the official one of a labels table if it
    trained by that, else the one by patients' hashes. Elsewhere the official test split of the labels goes first.

    Parameters
    ----------
    of
        The run.
    site
        The dataset.
    labels
        Name of the labels table.
    """
    trained = Split.read(of.config.loader.split).of(site.labels_names)
    if trained is not None and trained.table and _TEST in _official(site, trained.table):
        return str(trained.called(_TEST))
    elsewhere = of.facts["digest"] != site.description.digest
    return f"{labels}:{_TEST}" if elsewhere and labels != FACTS and _TEST in _official(site, labels) else _TEST


def _official(site: Dataset, labels: str) -> set[str]:
    return set(site.label_table(labels).table["split"].drop_null().unique().to_pylist())


def about(
    of: Trained,
    run: tuple[str, int | None],
    site: Dataset,
    name: str,
    split: str,
    labels: str,
    classes: tuple[str, ...],
) -> PredictionsAbout:
    """Return what predictions of a run on a site will say of themselves.

    Parameters
    ----------
    of, run
        The run, and what it is called: a name, and its seed where it is one of several.
    site, name
        The dataset, and what it is called.
    split, labels
        Name of the split, and of the labels table.
    classes
        Those of the run.
    """
    facts = labels == FACTS
    table = None if facts else site.label_table(labels)
    select = of.selection
    return PredictionsAbout(
        run=run[0],
        seed=run[1],
        step=of.step,
        site=name,
        data=shown(site.url),
        digest=site.description.digest,
        split=split,
        labels=labels,
        labels_digest=site.description.digest if table is None else table.digest,
        kind=of.task.kind,
        classes=classes,
        select_split=select.get("split"),
        select_metric=select.get("metric"),
        select_value=select.get("value"),
        weights=of.began,
        notes=tuple(_notes(of, site, split, table)),
    )


def _notes(of: Trained, site: Dataset, split: str, table: LabelTable | None) -> list[str]:
    asked, digest = Split.read(split).of(site.labels_names), site.description.digest
    official = asked.table if asked is not None else ""
    found = []
    if official:
        leaks = summarise(site.label_table(official), site.table(MANIFEST), digest).leaks
        found += [f"{LEAK}the official split of {official} {leak.words}." for leak in leaks]
    elif table is not None and _TEST in _official(site, table.description.name):
        name = table.description.name
        found.append(
            f"The labels {name} have an official test split, and this is the one by patients, as in the run's training:"
            f" published scores are of {name}:test."
        )
    if of.facts["digest"] == digest:
        found += _seen(of, site, split)
    if table is not None and table.description.dataset != digest:
        found.append("The dataset has grown since its labels were joined: shardkit label joins them again.")
    return found


def _seen(of: Trained, site: Dataset, split: str) -> list[str]:
    """Say how much of the split was trained on."""
    trained, asked = (
        site.table(["key", "patient", "group"], None if name == "all" else name)
        for name in (of.config.loader.split, split)
    )
    found = []
    for column, what in (("key", "image"), ("patient", "patient"), ("group", "near-duplicate group")):
        both = set(trained[column].drop_null().to_pylist()) & set(asked[column].drop_null().to_pylist())
        if both:
            found.append(f"{len(both):,} {what}{'' if len(both) == 1 else 's'}")
    if not found:
        return []
    return [f"{LEAK}the run was trained on images of this split, or of its patients: {', '.join(found)} in common."]


def asked_targets(of: Trained, loader: Loader, labels: str, classes: tuple[str, ...]) -> tuple[Floats, list[str]]:
    """Return targets by row of the manifest, NaN where unknown, by the run's policy; and what a reader should know.

    What a site says of classes that the run does not have counts as unknown, and classes that it says nothing of are
    unknown on all of its images.

    Parameters
    ----------
    of
        The run.
    loader
        Of the site.
    labels
        Name of the labels table.
    classes
        Those of the run.

    Raises
    ------
    ArgumentError
        The site says nothing of any class.
    """
    task = replace(of.task, labels=labels)
    said = task.read(loader)
    task = task.of_run(of.facts, said)
    names = tuple(name for name in classes if name in said.columns) if task.kind == "regression" else classes
    found = task.made(said, names)
    values = np.full((len(found.values), len(classes)), np.nan)
    values[:, [classes.index(name) for name in found.classes]] = np.where(found.known, found.values, np.nan)
    known = ~np.isnan(values)
    if not known.any():
        raise ArgumentError(f"the labels {labels} know none of the classes of {of.run}: choose other --labels")
    notes = []
    if absent := [name for name, there in zip(classes, known.any(axis=0), strict=True) if not there]:
        notes.append(f"The labels {labels} say nothing of {', '.join(absent)}.")
    if task.kind == "multiclass":
        notes += _other_categories(said, task.chosen(said)[0], known[:, 0])
    return values, notes


def _other_categories(said: Labels, column: str, known: npt.NDArray[np.bool_]) -> list[str]:
    """Name categories that the run does not have: their images are not scored."""
    at = said.columns.index(column)
    rows = said.known[:, at] & ~known
    words = said.categories.get(column, ())
    others = sorted({words[int(value)] for value in said.values[rows, at] if 0 <= value < len(words)})
    if not others:
        return []
    return [f"{counted(int(rows.sum()), 'image')} of categories that the run does not know: {', '.join(others)}."]

"""What a run is asked about a site: which split, with which targets, and what a reader has to know of both."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

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
from trainer.runs.folder import Facts
from trainer.runs.lineage import lineage
from trainer.runs.training_data import GONE, Rows, split_at, split_rows, trained_at
from trainer.tasks.facts import FACTS
from trainer.tasks.trained import Trained, has_task

_TEST = "test"


def chosen_split(facts: Facts, site: Dataset, labels: str) -> str:
    """Return the split that a run is asked about where none is named.

    The dataset that it was trained on has the split that the training left: the official one of a labels table if it
    trained by that, else the one by patients' hashes. Elsewhere the official test split of the labels goes first.

    Parameters
    ----------
    facts
        What `run.json` says of the run.
    site
        The dataset.
    labels
        Name of the labels table.
    """
    here = trained_at(facts, site)
    trained = split_at(facts, site)
    if trained is not None and trained.table and _TEST in _official(site, trained.table):
        return str(trained.called(_TEST))
    return f"{labels}:{_TEST}" if not here and labels != FACTS and _TEST in _official(site, labels) else _TEST


def validation_split(of: Trained, site: Dataset) -> str:
    """Return the val split beside that of the training; empty where the run was not trained or knows no label there."""
    trained = split_at(of.facts, site) if trained_at(of.facts, site) else None
    if trained is None:
        return ""
    split, labels = str(trained.called("val")), of.task.labels
    try:
        there = labels == FACTS or len(site.label_table(labels).table) > 0
        return split if there and len(site.filter(split=split)) else ""
    except ArgumentError:  # there is no such table or split
        return ""


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
        split_digest=site.label_table(official).digest if (official := _table_of(split, site)) else "",
        kind=of.task.kind,
        classes=classes,
        select_split=select.get("split"),
        select_metric=select.get("metric"),
        select_value=select.get("value"),
        weights=of.began,
        notes=tuple(_notes(of, site, split, table)),
    )


def _table_of(split: str, site: Dataset) -> str:
    """Return the labels table whose official split it is; empty where there is none."""
    named = Split.read(split).of(site.labels_names)
    return named.table if named is not None else ""


def _notes(of: Trained, site: Dataset, split: str, table: LabelTable | None) -> list[str]:
    official, digest, found = _table_of(split, site), site.description.digest, []
    if official:
        leaks = summarise(site.label_table(official), site.table(MANIFEST), digest).leaks
        found += [f"{LEAK}the official split of {official} {leak.words}." for leak in leaks]
    elif table is not None and _TEST in _official(site, table.description.name):
        name = table.description.name
        found.append(
            f"The labels {name} have an official test split, and this is the one by patients, as in the run's training:"
            f" published scores are of {name}:test."
        )
    if trained_at(of.facts, site):
        found += _seen(of, site, split) + _chosen_on(of, site, split)
    found += _seen_before(of, site, split)
    if table is not None and table.description.dataset != digest:
        found.append("The dataset has grown since its labels were joined: shardkit label joins them again.")
    return found


def _seen(of: Trained, site: Dataset, split: str) -> list[str]:
    """Say how much of the split was trained on; of a dataset that has grown since, as it is now."""
    if split_at(of.facts, site) is None:
        return [f"{LEAK}{GONE}."]
    both = _in_common(of.facts, site, split)
    return [f"{LEAK}the run was trained on images of this split, or of its patients: {both} in common."] if both else []


def _seen_before(of: Trained, site: Dataset, split: str) -> list[str]:
    """Say how much of the split runs were trained on that the run began with, and what is not known of them."""
    line, found = lineage(of.facts), list[str]()
    for later, facts in pairwise(line.runs):
        if _left_nothing(facts, later) or not trained_at(facts, site):
            continue
        labelled = has_task(facts)
        begin, how = (LEAK, "with labels") if labelled else ("", "without labels")
        if split_at(facts, site) is None:
            found.append(f"{begin}of a run that it began with, trained {how}: {GONE}.")
        elif both := _in_common(facts, site, split):
            who = f"{'the' if labelled else 'The'} run began with weights that were trained, {how},"
            found.append(f"{begin}{who} on images of this split, or of its patients: {both} in common.")
    if line.before:
        found.append(
            "Whether weights that the run began with were trained on images of this split is not known:"
            f" {line.before} is no run, or is gone."
        )
    return list(dict.fromkeys(found))


def _left_nothing(facts: Facts, later: Facts) -> bool:
    """Return whether nothing that a run learnt is in a later one: it trained a head alone, which is not the later's."""
    return bool(facts["config"].get("objective.freeze")) and facts.get("classes") != later.get("classes")


def _in_common(facts: Facts, site: Dataset, split: str) -> str:
    """Count what of a split a run was trained on, in words; empty where there is nothing."""
    trained_on = split_at(facts, site)
    trained, asked = (
        site.table(["key", "patient", "group"], None if name == "all" else name) for name in (str(trained_on), split)
    )
    found = []
    for column, what in (("key", "image"), ("patient", "patient"), ("group", "near-duplicate group")):
        both = set(trained[column].drop_null().to_pylist()) & set(asked[column].drop_null().to_pylist())
        if both:
            found.append(f"{len(both):,} {what}{'' if len(both) == 1 else 's'}")
    return ", ".join(found)


def _chosen_on(of: Trained, site: Dataset, split: str) -> list[str]:
    """Say that the checkpoint was chosen by its score on the very split; of test splits the page says it by itself."""
    word, trained = of.selection.get("split"), split_at(of.facts, site)
    if word in (None, _TEST) or trained is None or split != str(trained.called(word)):
        return []
    return [f"{LEAK}the checkpoint was chosen by its score on this split, so the score is too good."]


def asked_targets(of: Trained, loader: Loader, labels: str, classes: tuple[str, ...]) -> tuple[Floats, list[str]]:
    """Return targets by row of the manifest, NaN where unknown, by the run's policy; and what a reader should know.

    What a site says of classes that the run does not have counts as unknown, and classes that it says nothing of are
    unknown on all of its images. Notes are of the images of the split.

    Parameters
    ----------
    of
        The run.
    loader
        Of the split.
    labels
        Name of the labels table.
    classes
        Those of the run.

    Raises
    ------
    ArgumentError
        The labels say nothing of any class on images of the split.
    """
    task = replace(of.task, labels=labels)
    said = task.read(loader)
    task = task.of_run(of.facts, said)
    names = tuple(name for name in classes if name in said.columns) if task.kind == "regression" else classes
    found = task.made(said, names)
    values = np.full((len(found.values), len(classes)), np.nan)
    values[:, [classes.index(name) for name in found.classes]] = np.where(found.known, found.values, np.nan)
    rows = split_rows(loader)
    known = ~np.isnan(values[rows])
    if not known.any():
        raise ArgumentError(
            f"the labels {labels} know none of the classes of {of.run} in this split: choose other --labels or --split"
        )
    there, notes = known.any(axis=0), list[str]()
    if task.kind == "multiclass":
        there = (values[rows] == 1).any(axis=0)
        notes = _other_categories(said, task.chosen(said)[0], rows[~known[:, 0]])
    notes += task.counted(said, rows)
    if absent := [name for name, one in zip(classes, there, strict=True) if not one]:
        what = "know no image" if task.kind == "multiclass" else "say nothing"
        notes.append(f"The labels {labels} {what} of {', '.join(absent)} in this split.")
    return values, notes


def _other_categories(said: Labels, column: str, unknown: Rows) -> list[str]:
    """Name categories that the run does not have, of rows of the split that it knows no class of: none is scored."""
    at = said.columns.index(column)
    rows = unknown[said.known[unknown, at]]
    words = said.categories.get(column, ())
    others = sorted({words[int(value)] for value in said.values[rows, at] if 0 <= value < len(words)})
    if not others:
        return []
    return [f"{counted(len(rows), 'image')} of categories that the run does not know: {', '.join(others)}."]

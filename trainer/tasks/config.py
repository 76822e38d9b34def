"""A task as data: which labels, what they count as, and what stands on the encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from cyclopts import Parameter

from shardkit import Loader
from shardkit.errors import ArgumentError
from shardkit.labels import Labels
from trainer.evaluate.kinds import Kind
from trainer.models.base import EncoderConfig, ModelConfig
from trainer.models.classifier import Classifier, HeadConfig
from trainer.runs.training_data import split_rows
from trainer.tasks import leaks, targets
from trainer.tasks.facts import FACTS, facts
from trainer.tasks.targets import Blank, Policy, Targets, Uncertain
from trainer.tasks.task import Task
from trainer.tasks.training_targets import TrainingTargets

_HEAD = HeadConfig()


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What a labelled run does.

    Parameters
    ----------
    labels
        Name of a labels table of the dataset, see shardkit labels; or facts: view, sex, body_part and age of the
        manifest.
    columns
        Which labels of it; all of the fitting kind where none are named.
    kind
        multilabel: each label by itself; multiclass: the categories of one label; regression: numbers.
    uncertain
        What -1 counts as: zeros, ones, or ignore.
    ones
        Labels whose -1 counts as 1, whatever `uncertain` says.
    blank
        What a blank counts as, of a sample that has a row in the table: zeros or ignore. Samples without a row have
        weight 0.
    fold
        Labels, or categories, that count as another one, e.g. COVID-19=pneumonia.
    weights
        balanced: rare classes count more.
    freeze
        Only the head is trained.
    head
        What stands on the encoder.
    """

    labels: Annotated[str, Parameter(name=("--labels", "--objective.labels"))] = ""
    columns: tuple[str, ...] = ()
    kind: Kind = "multilabel"
    uncertain: Uncertain = "zeros"
    ones: tuple[str, ...] = ()
    blank: Blank = "zeros"
    fold: tuple[str, ...] = ()
    weights: Literal["none", "balanced"] = "none"
    freeze: bool = False
    head: HeadConfig = _HEAD

    def build(self, model: ModelConfig, loader: Loader) -> Task:
        """Build the task, with a head of random weights."""
        if not isinstance(model, EncoderConfig):
            kind = type(model).__name__.removesuffix("Config")
            raise ArgumentError(f"a {kind} has no encoder that a task could use: choose another --model")
        if self.head.batch_norm and getattr(loader.batching, "batch_size", None) == 1:
            raise ArgumentError(
                "--objective.head.batch-norm normalises over a micro-batch's images, and one image becomes 0 whatever"
                f" it is: give --loader.batching {loader.batching} a batch_size of 2 or more, or"
                " --objective.head.no-batch-norm"
            )
        labels = self.read(loader)
        of = self.made(labels)
        rows, split = split_rows(loader), leaks.split_name(loader)
        trained = TrainingTargets.of(of, rows, self.kind)
        notes = trained.check(self.labels, split)
        notes += self.counted(labels, rows)
        weights = trained.weights(self.weights)
        notes += leaks.warnings(loader, self.labels, labels.split)
        encoder = model.encoder(last_norm=not self.head.norm)
        encoder.requires_grad_(not self.freeze)
        classifier = Classifier(encoder, len(of.classes), self.head)
        mean, deviation = map(torch.from_numpy, trained.unit)
        classifier.head.offset.copy_(mean)
        classifier.head.scale.copy_(deviation)
        return Task(classifier, of, trained, weights, tuple(notes), self.chosen(labels))

    def targets(self, loader: Loader, classes: tuple[str, ...] = ()) -> Targets:
        """Return the targets of all samples; `classes` are those of a run that has some."""
        return self.made(self.read(loader), classes)

    def read(self, loader: Loader) -> Labels:
        """Read the labels by row.

        Raises
        ------
        ArgumentError
            Where there are none of that name.
        """
        if not self.labels:
            raise ArgumentError("--labels is missing: name a labels table of the dataset (shardkit labels), or facts")
        return facts(loader, self.columns) if self.labels == FACTS else loader.labels(self.labels)

    def chosen(self, labels: Labels) -> tuple[str, ...]:
        """Return the labels that are learnt from: those that are named, else all that fit."""
        if self.kind == "multiclass":
            return (targets.the_column(labels, self.columns),)
        fitting = "binary" if self.kind == "multilabel" else "number"
        return self.columns or tuple(name for name in labels.columns if labels.kinds[name] == fitting)

    def of_run(self, facts: Mapping[str, Any], labels: Labels) -> "TaskConfig":
        """Return the task with the labels that a run learnt from, where it names none and the table has any of them.

        Parameters
        ----------
        facts
            The run's `run.json`. Older ones name no labels.
        labels
            The table that is asked now.
        """
        learnt = tuple(facts.get("objective", {}).get("columns", ()))
        known = not self.columns and any(name in labels.columns for name in learnt)
        return replace(self, columns=learnt) if known else self

    def counted(self, labels: Labels, rows: npt.NDArray[np.int64]) -> list[str]:
        """Say what blanks and -1 of the labels that are learnt from count as, on samples of these rows."""
        policy = Policy(self.uncertain, self.ones, self.blank)
        return [] if self.kind == "regression" else targets.counted(labels, self.chosen(labels), policy, rows)

    def made(self, labels: Labels, classes: tuple[str, ...] = ()) -> Targets:
        """Return the targets that labels count as, by this policy; `classes` as of `targets`."""
        if self.kind == "regression":
            return targets.numbers(labels, classes or self.columns)
        fold, policy = dict(map(_pair, self.fold)), Policy(self.uncertain, self.ones, self.blank)
        if self.kind == "multilabel":
            return targets.binary(labels, self.columns, policy, fold, classes)
        return targets.categories(labels, self.chosen(labels)[0], fold, classes, policy)


def _pair(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise ArgumentError(f"--objective.fold {text} must be old=new: a label or category, and what it counts as")
    return old, new

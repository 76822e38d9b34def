"""A task as data: which labels, what they count as, and what stands on the encoder."""

from dataclasses import dataclass
from typing import Literal

from shardkit import Loader
from shardkit.errors import ArgumentError
from trainer.models.base import EncoderConfig, ModelConfig
from trainer.models.classifier import Classifier, HeadConfig
from trainer.tasks import targets
from trainer.tasks.targets import Kind, Targets, Uncertain
from trainer.tasks.task import Task

_HEAD = HeadConfig()


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What a labelled run does.

    Parameters
    ----------
    labels
        Name of a labels table of the dataset; the option --labels of a command.
    columns
        Which labels of it; all of the fitting kind where none are named.
    kind
        multilabel: each label by itself; multiclass: the categories of one label; regression: numbers.
    uncertain
        What -1 counts as: zeros, ones, or ignore.
    ones
        Labels whose -1 counts as 1, whatever `uncertain` says.
    blank
        What a blank counts as, of a sample that the table knows: zeros or ignore. Samples that it does not know have
        weight 0.
    fold
        Categories that count as another, e.g. COVID-19=pneumonia.
    weights
        balanced: rare classes count more.
    freeze
        Only the head is trained.
    head
        What stands on the encoder.
    """

    labels: str = ""
    columns: tuple[str, ...] = ()
    kind: Kind = "multilabel"
    uncertain: Uncertain = "zeros"
    ones: tuple[str, ...] = ()
    blank: Literal["zeros", "ignore"] = "zeros"
    fold: tuple[str, ...] = ()
    weights: Literal["none", "balanced"] = "none"
    freeze: bool = False
    head: HeadConfig = _HEAD

    def build(self, model: ModelConfig, loader: Loader) -> Task:
        """Build the task, with a head of random weights."""
        if not isinstance(model, EncoderConfig):
            kind = type(model).__name__.removesuffix("Config")
            raise ArgumentError(f"a {kind} has no encoder that a task could use: choose another --model")
        of = self.targets(loader)
        encoder = model.encoder(last_norm=not self.head.norm)
        encoder.requires_grad_(not self.freeze)
        return Task(Classifier(encoder, len(of.classes), self.head), of, self.kind)

    def targets(self, loader: Loader, classes: tuple[str, ...] = ()) -> Targets:
        """Return the targets of all samples; `classes` are those of a run that has some."""
        labels = loader.labels(self.labels)
        if self.kind == "multilabel":
            return targets.binary(labels, classes or self.columns, self.uncertain, self.ones, self.blank)
        if self.kind == "regression":
            return targets.numbers(labels, classes or self.columns)
        fold = dict(pair.split("=", 1) for pair in self.fold)
        return targets.categories(labels, (*self.columns, *labels.columns)[0], fold, classes)

"""What an assessment is asked for: which labels count as what, and how features are judged."""

from dataclasses import dataclass
from typing import Final

from shardkit.errors import ArgumentError
from trainer.evaluate.kinds import Kind
from trainer.tasks.targets import Blank, Uncertain

NEIGHBOURS: Final = 20
FRACTIONS, DRAWS, FOLDS = (0.01, 0.1, 1.0), 5, 5


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """How features are judged.

    Parameters
    ----------
    fractions
        Shares of the training patients whose labels are used.
    draws
        How often patients are drawn for a share below 1.
    folds
        Folds by patient; 0: the official test split, or the manifest's where the labels have none. By default the
        official one, and 5 folds where there is none.
    k
        Neighbours that vote.
    replicates
        How often the patients who are asked about are drawn again for intervals.
    seed
        What folds and draws are drawn from.

    Raises
    ------
    ArgumentError
        For a number that nothing can be judged with.
    """

    fractions: tuple[float, ...] = FRACTIONS
    draws: int = DRAWS
    folds: int | None = None
    k: int = NEIGHBOURS
    replicates: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("k", 1), ("draws", 1), ("replicates", 1), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                raise ArgumentError(f"--{name} {value} must be {least} or more")
        if self.folds is not None and (self.folds < 0 or self.folds == 1):
            raise ArgumentError(f"--folds {self.folds} must be 2 or more, or 0 for a test split")
        for share in self.fractions:
            if not 0 < share <= 1:
                raise ArgumentError(f"--fractions {share:g} must be above 0 and at most 1: 10 % is 0.1")
        if not self.fractions:
            raise ArgumentError("--fractions needs a share of the patients, such as 0.1")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What labels count as: the same options as finetune has.

    Parameters
    ----------
    columns
        Which labels of the table; all of the fitting kind where none are named.
    kind
        multilabel, multiclass or regression; by default what the labels are.
    uncertain
        What -1 counts as: zeros, ones, or ignore.
    ones
        Labels whose -1 counts as 1, whatever `uncertain` says.
    blank
        What a blank counts as, of a sample that has a row in the table: zeros or ignore.
    fold
        Categories that count as another, e.g. COVID-19=pneumonia.
    """

    columns: tuple[str, ...] = ()
    kind: Kind | None = None
    uncertain: Uncertain = "zeros"
    ones: tuple[str, ...] = ()
    blank: Blank = "zeros"
    fold: tuple[str, ...] = ()

"""Several seeds of one run on the same samples: mean, deviation, and an interval over patients and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from shardkit.errors import ArgumentError
from trainer.evaluate.comparison import check_same
from trainer.evaluate.intervals import LEVEL, REPLICATES, SEED, Estimates, put_together, resampled, with_seeds_drawn
from trainer.evaluate.kinds import Floats
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.scores import THRESHOLD
from trainer.evaluate.statistics import at_once, mean_over, score_named


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A score over seeds.

    Attributes
    ----------
    seeds : tuple of int or None
        Which seeds.
    values : tuple of tuple of float or None
        The score of each seed, class by class.
    means : tuple of float or None
        Mean over classes of each seed.
    deviations : tuple of float or None
        Standard deviation (n - 1) of each class over seeds; None of one seed.
    deviation : float or None
        That of the mean over classes, which is what Krones et al. print; it is not the mean of `deviations`.
    patients : Estimates
        Mean over seeds; the interval is over patients only: what these very runs are worth.
    both : Estimates or None
        The same, its interval over patients and seeds: what another training would be worth. None of one seed.
    """

    seeds: tuple[int | None, ...]
    values: tuple[tuple[float | None, ...], ...]
    means: tuple[float | None, ...]
    deviations: tuple[float | None, ...]
    deviation: float | None
    patients: Estimates
    both: Estimates | None

    @property
    def overall(self) -> Estimates:
        """The widest of the intervals: over patients and, of several seeds, over seeds, too."""
        return self.both or self.patients


def over_seeds(
    runs: Sequence[Predictions],
    score: str,
    *,
    threshold: float = THRESHOLD,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    seed: int = SEED,
) -> OverSeeds:
    """Score several seeds of a run.

    Parameters
    ----------
    runs
        Predictions of each seed, of the same samples and targets.
    score, threshold, replicates, level, seed
        As for `intervals.estimates`. A replicate draws patients for all seeds alike.

    Raises
    ------
    ArgumentError
        There is none, or they are not of the same samples.
    """
    if not runs:
        raise ArgumentError("there are no seeds to put together: name a run, or a folder of seeds")
    for other in runs[1:]:
        check_same(runs[0], other)
    made = [score_named(of, score).make(of, threshold) for of in runs]
    values = np.stack([at_once(statistic, of) for statistic, of in zip(made, runs, strict=True)])
    drawn = np.stack([resampled(statistic, runs[0], replicates, seed) for statistic in made])
    means = mean_over(values, ~np.isnan(values[0]))
    several = len(runs) > 1
    deviations = values.std(axis=0, ddof=1) if several else np.full(values.shape[1], np.nan)
    value, chosen = values.mean(axis=0), with_seeds_drawn(drawn, seed) if several else None
    return OverSeeds(
        tuple(of.about.seed for of in runs),
        tuple(_told(row) for row in values),
        _told(means),
        _told(deviations),
        _told(means.std(ddof=1, keepdims=True))[0] if several else None,
        put_together(runs[0], score, value, drawn.mean(axis=0), level),
        None if chosen is None else put_together(runs[0], score, value, chosen, level),
    )


def on_common(runs: Sequence[Predictions]) -> tuple[Predictions, ...]:
    """Return predictions of several seeds on the samples that all of them have, with a note where one lacks some.

    Parameters
    ----------
    runs
        Predictions of each seed.

    Raises
    ------
    ArgumentError
        No sample is in all of them.
    """
    keys = [np.array(of.keys) for of in runs]
    common = reduce(np.intersect1d, keys)
    every = reduce(np.union1d, keys)
    if len(common) == len(every):
        return tuple(runs)
    about = runs[0].about
    lacking = {of.about.seed: len(every) - len(one) for of, one in zip(runs, keys, strict=True)}
    told = " and ".join(f"seed {seed} lacks {many:,}" for seed, many in lacking.items() if many)
    if not len(common):
        raise ArgumentError(f"the seeds of {about.run} at {about.site} have no image in common: {told}")
    note = f"Seeds are scored on the {len(common):,} images that all of them have: {told}."
    kept = [of.take(np.isin(one, common)) for of, one in zip(runs, keys, strict=True)]
    return tuple(Predictions(replace(of.about, notes=(*of.about.notes, note)), of.table) for of in kept)


def _told(values: Floats) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)

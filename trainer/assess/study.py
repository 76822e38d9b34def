"""Every feature, every classifier, every share of the patients: fitted on some patients, and asked about others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shardkit.errors import ArgumentError
from trainer.assess import parts
from trainer.assess.config import FOLDS, StudyConfig
from trainer.assess.features import Matrix
from trainer.assess.knn import knn
from trainer.assess.linear import Known, linear
from trainer.assess.parts import Rows
from trainer.assess.scoring import MAIN, each, estimated
from trainer.assess.sites import Answers, Site
from trainer.evaluate.intervals import Estimates
from trainer.evaluate.kinds import Floats, Kind, Mask
from trainer.evaluate.predictions import Predictions, PredictionsAbout, table_of

KNN, LINEAR = "k-NN", "logistic"


@dataclass(frozen=True)
class Place:
    """A site with what its labels say, and its features by the name of what made them."""

    site: Site
    answers: Answers
    features: Mapping[str, Matrix]

    @cached_property
    def labelled(self) -> Mask:
        """bool (n,), whether anything is known of a sample."""
        return np.asarray(~np.isnan(self.answers.targets).all(axis=1))

    @cached_property
    def unread(self) -> Mask:
        """bool (n,), whether a sample has no features of one kind at least: it is left out of all."""
        return np.any([~np.isfinite(values).all(axis=1) for values in self.features.values()], axis=0)

    @property
    def known(self) -> Mask:
        """bool (n,), whether a sample can be learnt from, or asked about."""
        return self.labelled & ~self.unread

    def of(self, source: str, rows: Rows) -> Floats:
        """Return features of some samples."""
        return self.features[source][rows].astype(np.float64)


@dataclass(frozen=True)
class Result:
    """How good a classifier on features is, at a share of the patients, on a site.

    Attributes
    ----------
    site, source, method : str
        Where it was asked, on whose features, by k-NN or logistic regression.
    fraction : float
        Share of the training patients whose labels were used.
    patients, images : float
        How many that is, the mean over fits.
    estimates : Estimates
        The score with its interval, by class and as their mean.
    draws : tuple of float or None
        The mean over classes for each draw of the patients; None where no class is scored.
    penalties : tuple of float
        Those chosen, of each fit; empty for k-NN.
    fits : tuple of tuple of Predictions
        Of each part, those of each draw.
    """

    site: str
    source: str
    method: str
    fraction: float
    patients: float
    images: float
    estimates: Estimates
    draws: tuple[float | None, ...]
    penalties: tuple[float, ...]
    fits: tuple[tuple[Predictions, ...], ...] = field(repr=False)


@dataclass(frozen=True)
class Judged:
    """What a study found, and how it asked.

    Attributes
    ----------
    kind : {"multilabel", "multiclass", "regression"}
        Of the task.
    asked : str
        Who was asked about at the first site, in words.
    tested : mapping of str to tuple of str
        Keys of the samples that were asked about, by site.
    results : tuple of Result
        What was found.
    unread : mapping of str to tuple of str
        Keys of labelled samples that are left out, as their images could not be read, by site.
    """

    kind: Kind
    asked: str
    tested: Mapping[str, tuple[str, ...]]
    results: tuple[Result, ...]
    unread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def sites(self) -> list[str]:
        """Names of the sites; the first is learnt from."""
        return list(self.tested)


def study(places: Sequence[Place], config: StudyConfig) -> Judged:
    """Judge all features.

    Parameters
    ----------
    places
        The first is learnt from, and asked about where it was not learnt from; the others are asked about only.
    config
        How.

    Raises
    ------
    ArgumentError
        For a split or folds that cannot be made, and a site without features.
    """
    for place in places:
        if place.labelled.any() and not place.known.any():
            raise ArgumentError(
                f"no labelled image of {place.site.data} has features that are numbers: run shardkit verify, and where"
                " it finds nothing, the run has diverged: name an earlier checkpoint"
            )
    first = places[0]
    trials, asked = _trials(first, config)
    others = {place.site.name: _asked_elsewhere(place) for place in places[1:]}
    results = []
    for source in first.features:
        for method in (KNN, LINEAR):
            for fraction in sorted(config.fractions):
                results += _judged(places, trials, others, source, method, fraction, config)
    rows = {first.site.name: np.unique(np.concatenate([test for _, test in trials])), **others}
    tested = {p.site.name: tuple(p.site.keys[row] for row in rows[p.site.name]) for p in places}
    lost = {p.site.name: np.flatnonzero(p.labelled & p.unread) for p in places}
    unread = {p.site.name: tuple(p.site.keys[row] for row in lost[p.site.name]) for p in places}
    return Judged(first.answers.kind, asked, tested, tuple(results), unread)


def _trials(place: Place, config: StudyConfig) -> tuple[list[tuple[Rows, Rows]], str]:
    """Return train and test rows of each part, and in words what they are. Train holds the val split, too."""
    answers, patients, known = place.answers, place.site.numbers, place.known
    official = (answers.split == "test").any()
    number = config.folds if config.folds is not None else 0 if official else FOLDS
    if number:
        rows = np.flatnonzero(known)
        if number < 2 or len(np.unique(patients[rows])) < number:
            raise ArgumentError(f"--folds {number} cannot be made of {len(np.unique(patients[rows])):,} patients")
        of = parts.strata(answers.kind, answers.targets[rows])
        dealt = parts.folds(of, patients[rows], number, config.seed)
        return [(rows[train], rows[test]) for train, test in dealt], f"{number} folds by patient"
    split = answers.split if official else place.site.own_split
    train, test = (np.flatnonzero(known & np.isin(split, names)) for names in (("train", "val"), ("test",)))
    name = f"the official test split of {answers.labels}" if official else "the manifest's test split"
    if not len(train) or not len(test):
        raise ArgumentError(f"{place.site.data} has no labelled image on both sides of {name}: use --folds 5")
    if np.isin(patients[train], patients[test]).any():
        both = len(np.intersect1d(patients[train], patients[test]))
        train = train[~np.isin(patients[train], patients[test])]
        name += f", without the training images of {both} patients who are in both"
    return [(train, test)], name


def _asked_elsewhere(place: Place) -> Rows:
    """Return the rows of another site that are asked about: its official test split, or all that are labelled."""
    test = place.known & (place.answers.split == "test")
    return np.flatnonzero(test if test.any() else place.known)


def _judged(
    places: Sequence[Place],
    trials: Sequence[tuple[Rows, Rows]],
    others: Mapping[str, Rows],
    source: str,
    method: str,
    fraction: float,
    config: StudyConfig,
) -> list[Result]:
    """Fit each part and draw once, and ask about all sites."""
    first = places[0]
    fits: dict[str, list[tuple[Predictions, ...]]] = {place.site.name: [] for place in places}
    sizes, penalties = [], []
    for train, test in trials:
        of, patients = parts.strata(first.answers.kind, first.answers.targets[train]), first.site.numbers[train]
        asked = {first.site.name: test, **others}
        drawn: dict[str, list[Predictions]] = {name: [] for name in fits}
        for draw in range(config.draws if fraction < 1 else 1):
            rows = train[parts.share(of, patients, fraction, config.seed + draw)]
            known = Known(first.of(source, rows), first.answers.targets[rows], first.site.numbers[rows])
            sizes.append((len(np.unique(known.patients)), len(rows)))
            wanted = [place.of(source, asked[place.site.name]) for place in places]
            scores, penalty = _scores(method, first.answers, known, np.concatenate(wanted), config)
            penalties += penalty
            ends = np.cumsum([len(one) for one in wanted])[:-1]
            for place, said in zip(places, np.split(scores, ends), strict=True):
                name = place.site.name
                drawn[name].append(_predictions(place, source, method, asked[name], said))
        for name, found in drawn.items():
            fits[name].append(tuple(found))
    people, images = np.mean(sizes, axis=0)
    score = MAIN[first.answers.kind]
    return [
        Result(
            site=name,
            source=source,
            method=method,
            fraction=fraction,
            patients=float(people),
            images=float(images),
            estimates=estimated(found, score, config.replicates),
            draws=tuple(each(found, score)),
            penalties=tuple(penalties),
            fits=tuple(found),
        )
        for name, found in fits.items()
    ]


def _scores(
    method: str, answers: Answers, known: Known, asked: Floats, config: StudyConfig
) -> tuple[Floats, list[float]]:
    if method == KNN:
        return knn(answers.kind, known.features, known.targets, asked, config.k), []
    return linear(answers.kind, known, asked, config.seed)


def _predictions(place: Place, source: str, method: str, rows: Rows, scores: npt.NDArray[np.float64]) -> Predictions:
    site, answers = place.site, place.answers
    about = PredictionsAbout(
        run=f"{source}, {method}",
        seed=None,
        step=0,
        site=site.name,
        data=site.data,
        digest=site.digest,
        split="asked about",
        labels=answers.labels,
        labels_digest="",
        kind=answers.kind,
        classes=answers.classes,
    )
    keys, patients = ([of[row] for row in rows] for of in (site.keys, site.patients))
    return Predictions(about, table_of(about, keys, scores, answers.targets[rows], {"patient": patients}))

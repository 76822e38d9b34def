"""A study: what is asked about is never learnt from or chosen by, in any split, share or site."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shardkit.errors import ArgumentError
from trainer.assess import parts, record
from trainer.assess.config import StudyConfig
from trainer.assess.scoring import each, estimated
from trainer.assess.seen import Seen
from trainer.assess.sites import Answers, Site
from trainer.assess.study import KNN, LINEAR, Judged, Place, study
from trainer.evaluate.intervals import estimates
from trainer.evaluate.scores import summary

PATIENTS, QUICK = 60, StudyConfig(fractions=(0.1, 1.0), draws=2, replicates=100)
WHOLE = replace(QUICK, fractions=(1.0,))


def place(seed: int = 0, official: bool = True, name: str = "here") -> Place:
    """A site whose images tell a category; a third of the patients is the official test split."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(PATIENTS), rng.integers(1, 4, PATIENTS))
    of = rng.integers(0, 2, PATIENTS)[who]
    split = np.where(who % 3 == 0, "test", np.where(who % 3 == 1, "val", "train")).astype(object)
    number = len(who)
    site = Site(name, name, "0" * 8, tuple(f"{i:08x}" for i in range(number)), tuple(f"{w:04x}" for w in who), split)
    answers = Answers("view", "multiclass", ("AP", "PA"), np.eye(2)[of], split if official else np.full(number, None))
    good = (of[:, None] + rng.normal(0, 0.7, (number, 6))).astype(np.float32)
    return Place(site, answers, {"good": good, "noise": rng.normal(size=(number, 6)).astype(np.float32)})


def told(judged: Judged) -> dict[tuple[str, str, str, float], float | None]:
    return {(r.site, r.source, r.method, r.fraction): r.estimates.mean.value for r in judged.results}


def test_features_that_tell_more_have_a_higher_score_by_either_method() -> None:
    found = told(study([place()], WHOLE))
    for method in (KNN, LINEAR):
        good, noise = (found["here", source, method, 1.0] for source in ("good", "noise"))
        assert good is not None
        assert noise is not None
        assert good > 0.9 > 0.7 > noise


@pytest.mark.parametrize("folds", [None, 4], ids=["official split", "folds"])
def test_labels_of_those_asked_about_change_no_score(folds: int | None) -> None:
    """Turned over on the test side, labels give scores of samples that are the same to the last bit."""
    config = replace(WHOLE if folds else QUICK, folds=folds)
    of = place()
    before = study([of], config)
    for result in before.results:
        for part, (first, *_) in enumerate(result.fits):
            rows = np.array([of.site.keys.index(key) for key in first.keys])
            turned = of.answers.targets.copy()
            turned[rows] = turned[rows][:, ::-1]
            if folds is None:
                after = study([replace(of, answers=replace(of.answers, targets=turned))], config)
                again = next(r for r in after.results if (r.source, r.method, r.fraction) == key_of(result))
                np.testing.assert_array_equal(again.fits[part][0].scores, first.scores)
            asked = set(np.array(of.site.patients)[rows])
            others = {p for p, k in zip(of.site.patients, of.site.keys, strict=True) if k not in first.keys}
            assert not asked & others
        if folds is None:
            break


def key_of(result: object) -> tuple[str, str, float]:
    return result.source, result.method, result.fraction  # type: ignore[attr-defined]


def test_features_of_those_asked_about_change_nobody_elses_score() -> None:
    """Nothing is standardised, or chosen, with the test side's features."""
    of = place()
    test = of.answers.split == "test"
    first = np.flatnonzero(test)[0]
    features = {name: values.copy() for name, values in of.features.items()}
    for values in features.values():
        values[np.flatnonzero(test)[1:]] += 1000
    before, after = (study([one], QUICK) for one in (of, replace(of, features=features)))
    for a, b in zip(before.results, after.results, strict=True):
        at = a.fits[0][0].keys.index(of.site.keys[first])
        np.testing.assert_array_equal(a.fits[0][0].scores[at], b.fits[0][0].scores[at])


@pytest.mark.deep
def test_the_official_split_counts_else_folds_and_the_manifests_where_asked() -> None:
    assert study([place()], WHOLE).asked == "the official test split of view"
    assert study([place(official=False)], WHOLE).asked == "5 folds by patient"
    own = study([place(official=False)], replace(WHOLE, folds=0))
    assert own.asked == "the manifest's test split"
    assert own.tested == study([place()], WHOLE).tested
    everybody = study([place()], replace(WHOLE, folds=3)).tested["here"]
    assert len(everybody) == len(place().site.keys)


def test_a_patient_on_both_sides_of_an_official_split_is_not_learnt_from_and_that_is_said() -> None:
    of = place()
    split = of.answers.split.copy()
    split[np.flatnonzero(split == "train")[0]] = "test"
    leaking = replace(of, answers=replace(of.answers, split=split))
    judged = study([leaking], WHOLE)
    assert "1 patient" in judged.asked
    whole = judged.results[0]
    test = set(np.array(of.site.patients)[split == "test"])
    assert whole.patients == len({p for p in of.site.patients if p not in test})


def test_another_site_is_asked_about_only() -> None:
    here, there = place(), place(1, official=False, name="there")
    turned = replace(there, answers=replace(there.answers, targets=there.answers.targets[:, ::-1]))
    before, after = told(study([here, there], WHOLE)), told(study([here, turned], WHOLE))
    for (site, *key), value in before.items():
        other = after[site, *key]  # type: ignore[index]
        assert value is not None
        assert other == (pytest.approx(1 - value) if site == "there" else value)


def test_a_mean_over_draws_is_told_with_what_each_draw_gave() -> None:
    few = next(r for r in study([place()], QUICK).results if r.fraction == 0.1)
    assert len(few.draws) == 2
    assert few.estimates.mean.value == pytest.approx(np.mean(np.array(few.draws, float)))
    assert few.patients == round(0.1 * len({p for p in range(PATIENTS) if p % 3}))


def test_one_fit_has_the_interval_of_its_predictions_and_folds_the_mean_of_their_scores() -> None:
    for result in study([place()], WHOLE).results:
        assert estimated(result.fits, "auc", 100) == estimates(result.fits[0][0], "auc", replicates=100)
    parted = study([place()], replace(WHOLE, folds=3)).results[0]
    each_fold = [summary("multiclass", fits[0].scores, fits[0].targets)["auc"] for fits in parted.fits]
    mean = parted.estimates.mean
    assert mean.value == pytest.approx(np.mean(np.array(each_fold, float)))
    assert mean.value is not None
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low < mean.value < mean.high
    assert each(parted.fits, "auc") == [pytest.approx(mean.value)]


def rare(positives: int) -> Place:
    """A site with a rare label beside its own, and without an official split."""
    of = place(official=False)
    targets = of.answers.targets.copy()
    targets[:, 1] = 0
    targets[np.flatnonzero(np.diff(of.site.numbers, prepend=-1))[: 7 * positives : 7], 1] = 1
    return replace(of, answers=replace(of.answers, kind="multilabel", classes=("PA", "rare"), targets=targets))


def test_a_class_that_few_folds_have_is_scored_in_those_and_that_is_said() -> None:
    judged = study([rare(2)], replace(QUICK, replicates=10))
    for result in judged.results:
        often, seldom = result.estimates.of
        folds = [summary("multilabel", fits[0].scores[:, 1:], fits[0].targets[:, 1:])["auc"] for fits in result.fits]
        scored = [value for value in folds if value is not None]
        assert 0 < len(scored) < 5
        assert seldom.value is not None
        assert often.value is not None
        if result.fraction == 1:
            assert seldom.value == pytest.approx(np.mean(scored))
        assert result.estimates.mean.value == pytest.approx((often.value + seldom.value) / 2)
        assert np.mean(np.array(result.draws, float)) == pytest.approx(result.estimates.mean.value)
    told = [sentence for _, sentence in record.notes(judged, Seen(whole=True))]
    assert f"rare of here can be scored in {len(scored)} of 5 folds: its score is of those." in told


def test_a_class_that_no_fold_has_is_named_with_its_reason() -> None:
    judged = study([rare(0)], replace(WHOLE, replicates=10))
    assert [one.reason for one in judged.results[0].estimates.of][1] == "no positive"
    told = [sentence for _, sentence in record.notes(judged, Seen(whole=True))]
    assert "rare of here has no score, and counts in no mean: no positive." in told


@pytest.mark.filterwarnings("error")
def test_where_nothing_is_scored_a_draw_has_no_number(tmp_path: Path) -> None:
    """A site that knows no target of the classes."""
    here, there = place(), place(1, official=False, name="there")
    blank = replace(there, answers=replace(there.answers, targets=np.full_like(there.answers.targets, np.nan)))
    judged = study([here, blank], replace(WHOLE, replicates=10))
    assert {result.draws for result in judged.results if result.site == "there"} == {(None,)}
    record.write(tmp_path, {}, [record.Table("view", judged, ())])
    (table,) = json.loads((tmp_path / "assess.json").read_text(), parse_constant=pytest.fail)["tables"]
    assert {row["value"] for row in table["rows"] if row["site"] == "there"} == {None}


def test_positives_and_negatives_in_different_folds_are_no_unknown_targets() -> None:
    of = study([place(official=False)], replace(WHOLE, folds=2)).results[0].fits
    parted = []
    for at, fits in enumerate(of):
        table = fits[0].table
        for name in ("AP", "PA"):
            column = table.schema.get_field_index(f"target.{name}")
            kind = table.schema.field(column)
            table = table.set_column(column, kind, pa.array([float(at == (name == "AP"))] * len(table), kind.type))
        parted.append((replace(fits[0], table=table),))
    assert {one.reason for one in estimated(parted, "auc", 10).of} == {"no fold with a positive and a negative"}


def test_images_that_could_not_be_read_are_left_out_of_all_and_named() -> None:
    """Whichever features are lacking: all kinds are asked about the same images."""
    here, there = place(), place(1, official=False, name="there")
    lost = {"here": [0, int(np.flatnonzero(here.answers.split == "test")[0])], "there": [3]}
    for of in (here, there):
        of.features["noise"][lost[of.site.name]] = np.nan
    judged = study([here, there], WHOLE)
    for of in (here, there):
        gone = {of.site.keys[row] for row in lost[of.site.name]}
        assert not gone & set(judged.tested[of.site.name])
        assert not gone & {key for r in judged.results if r.site == of.site.name for key in r.fits[0][0].keys}
        assert set(judged.unread[of.site.name]) == gone
    train = here.answers.split != "test"
    assert {result.images for result in judged.results} == {train.sum() - train[lost["here"]].sum()}
    told = [sentence for _, sentence in record.notes(judged, Seen(whole=True))]
    assert "1 image of there could not be read, and nothing is learnt from or said of: 00000003." in told


def test_features_that_are_no_numbers_are_refused() -> None:
    of = place()
    of.features["noise"][:] = np.nan
    with pytest.raises(ArgumentError, match="no labelled image of here has features"):
        study([of], QUICK)


def test_folds_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ArgumentError, match="--folds 100 cannot be made of 60 patients"):
        study([place()], replace(QUICK, folds=100))


def test_dealing_is_by_patient_whatever_the_order_of_the_images() -> None:
    of = place()
    strata = parts.strata("multiclass", of.answers.targets)
    for train, test in parts.folds(strata, of.site.numbers, 5, 0):
        assert not set(of.site.numbers[train]) & set(of.site.numbers[test])

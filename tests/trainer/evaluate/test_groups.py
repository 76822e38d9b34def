"""Groups part the samples, say how many stand behind a score, and are not scored where that is too few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.privacy import Stated, metadata
from tests.trainer.evaluate.samples import clustered, predictions
from trainer.evaluate.groups import AGE_BANDS, Group, group, rows_by, years
from trainer.evaluate.intervals import estimates
from trainer.evaluate.predictions import FACTS, Predictions
from trainer.evaluate.results import Entry, Settings

_WORDS = st.sampled_from([None, "PA", "AP", "LL"])
_AGES = st.none() | st.floats(0, 120)


def _groups(fact: str, *runs: Predictions, **drawing: Any) -> list[Group]:
    groups = rows_by(runs[0], fact).items()
    return [group(name, [of.take(rows) for of in runs], "auc", **drawing) for name, rows in groups]


@settings(max_examples=40)
@given(st.lists(st.tuples(_WORDS, _WORDS, _WORDS, _AGES), min_size=1, max_size=30))
def test_each_sample_is_in_one_group_of_each_fact(
    rows: list[tuple[str | None, str | None, str | None, float | None]],
) -> None:
    view, sex, part, age = zip(*rows, strict=True)
    zeros = np.zeros((len(rows), 1))
    of = predictions(zeros, zeros, view=view, sex=sex, body_part=part, age=age)
    for fact, values in zip(FACTS, (view, sex, part, age), strict=True):
        groups = rows_by(of, fact)
        assert np.sum(list(groups.values()), axis=0).tolist() == [1] * len(rows)
        for name, chosen in groups.items():
            for value in (values[at] for at in np.flatnonzero(chosen)):
                if fact == "age" and value is not None:
                    ends = [*AGE_BANDS.values(), 1000]
                    start = AGE_BANDS[name]
                    assert start <= value < ends[ends.index(start) + 1]
                else:
                    assert value == (None if name == "unknown" else name)


def test_bands_of_age_begin_where_they_say() -> None:
    ages = [0, 17.9, 18, 39.9, 40, 64.9, 65, 79.9, 80, 97, None]
    zeros = np.zeros((len(ages), 1))
    groups = rows_by(predictions(zeros, zeros, age=ages), "age")
    at = {name: np.flatnonzero(rows).tolist() for name, rows in groups.items()}
    assert at == {"0-17": [0, 1], "18-39": [2, 3], "40-64": [4, 5], "65-79": [6, 7], "80+": [8, 9], "unknown": [10]}


def test_ages_of_a_manifest_are_years() -> None:
    def kept(age: str) -> str | None:
        return metadata(Stated(age=age), demographics=True)["age"]

    assert years(kept("043Y")) == 42
    assert years(kept("017Y")) == years(kept("019Y")) == 17, "the one step that crosses a border of bands"
    assert years(kept("006M")) == 2
    assert years(kept("094Y")) == 90
    assert years("51") == 51
    assert np.isnan(years(kept("unknown")))
    assert np.isnan(years(None))


def test_a_group_is_scored_by_itself_with_what_stands_behind_it() -> None:
    of = clustered(60, 3, classes=2)
    view = ["PA" if int(patient, 16) % 3 else "AP" for patient in of.table["patient"].to_pylist()]
    of = predictions(of.scores, of.targets, patient=of.table["patient"].to_pylist(), view=view)
    ap, pa = _groups("view", of, replicates=200)
    assert (ap.name, ap.images, ap.patients) == ("AP", 60, 20)
    assert (pa.name, pa.images, pa.patients) == ("PA", 120, 40)
    rows = np.array(view) == "AP"
    assert ap.estimates == estimates(of.take(rows), "auc", replicates=200)
    assert ap.positives == tuple(of.targets[rows].sum(axis=0))
    assert ap.known == (60, 60)
    assert ap.reason == ""


def test_too_few_patients_and_one_class_have_no_score_and_say_so() -> None:
    of = clustered(40, 2)
    sex = ["M"] * 18 + ["F"] * 62
    targets = of.targets.copy()
    targets[18:] = 0
    few, one = sorted(
        _groups(
            "sex", predictions(of.scores, targets, patient=of.table["patient"].to_pylist(), sex=sex), replicates=50
        ),
        key=lambda group: group.images,
    )
    assert (few.images, few.patients, few.estimates, few.reason) == (18, 9, None, "fewer than 10 patients")
    assert one.estimates is not None
    assert one.estimates.mean.value is None
    assert one.estimates.of[0].reason == "no positive"
    assert one.positives == (0,)


def test_numbers_have_no_positives() -> None:
    of = clustered(20, 2)
    found = group("all", [predictions(of.scores, of.targets, "regression")], "mae", replicates=50)
    assert found.positives == (0,)
    assert found.known == (40,)
    assert found.estimates is not None
    assert found.estimates.mean.value == pytest.approx(np.abs(of.scores - of.targets).mean())


def test_intervals_of_groups_are_drawn_as_that_of_all_is() -> None:
    of = clustered(60, 3)
    facts: dict[str, Any] = {"patient": of.table["patient"].to_pylist(), "view": ["PA"] * 90 + ["AP"] * 90}
    random = np.random.default_rng(1)
    seeds = [
        predictions(of.scores + noise * random.normal(size=of.scores.shape), of.targets, seed=seed, **facts)
        for seed, noise in enumerate((0.1, 1.0, 3.0))
    ]
    for runs in (seeds[:1], seeds):
        for wanted in (Settings(replicates=150, level=0.8), Settings(replicates=150, seed=7)):
            entry = Entry(tuple(runs), (), wanted)
            for one, rows in zip(entry.groups["view"], rows_by(runs[0], "view").values(), strict=True):
                alone = Entry(tuple(run.take(rows) for run in runs), (), wanted).headline
                assert one.estimates == (alone.both or alone.patients), "over seeds, too, where there are several"

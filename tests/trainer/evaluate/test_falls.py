"""A fall between sites is one on the same classes, and nothing is said of sites that cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from shardkit.report import Plot
from tests.trainer.evaluate.folders import ABOUT, DRAWS
from trainer.evaluate.kinds import Kind
from trainer.evaluate.page import headline
from trainer.evaluate.predictions import Predictions, table_of, write
from trainer.evaluate.results import FILE, Evaluation, evaluation, found

SIX = tuple("abcdef")


def _site(
    folder: Path, site: str, kind: Kind, unknown: Sequence[str], sharp: dict[str, float], alone: str = ""
) -> Predictions:
    """Write predictions at a site whose labels know nothing of some classes; all sites have the same scores.

    Of the class `alone` one patient has it.
    """
    about = replace(ABOUT, site=site, kind=kind, classes=tuple(sharp))
    random = np.random.default_rng(5)
    if kind == "multiclass":
        targets = np.eye(len(sharp))[np.arange(600) % len(sharp)]
    else:
        targets = (random.random((600, len(sharp))) < 0.3).astype(np.float64)
    if alone:
        targets[:, [*sharp].index(alone)] = np.arange(600) == 0
    scores = targets * list(sharp.values()) + random.normal(size=targets.shape)
    for at, name in enumerate(sharp):
        if name in unknown and kind == "multiclass":
            targets[targets[:, at] == 1] = np.nan
        elif name in unknown:
            targets[:, at] = np.nan
    patient = [f"{at:032x}" for at in range(600)]
    of = Predictions(about, table_of(about, [f"{at:020x}" for at in range(600)], scores, targets, {"patient": patient}))
    write(of, folder / "ft" / site / FILE)
    return of


def _told(folder: Path) -> tuple[Evaluation, list[str]]:
    of = evaluation(found(folder), DRAWS)
    return of, [sentence for _, sentence in headline.sentences(of)]


def test_a_mean_over_fewer_classes_is_no_fall(tmp_path: Path) -> None:
    sharp = {"easy": 3.0, "hard": 0.6}
    _site(tmp_path, "nih", "multilabel", (), sharp)
    _site(tmp_path, "hannover", "multilabel", ("easy",), sharp)
    of, told = _told(tmp_path)
    means = [entry.headline.patients.mean.value or 0 for entry in of.entries]
    assert means[0] > means[1] + 0.1, "by other classes"
    assert told == [
        "Between sites no score falls by more than the intervals explain.",
        "ft: the means at nih and at hannover are over different classes: sites are compared by those that both score.",
    ]
    assert not any(cell.alert for _, cells in headline.cells(of) for cell in cells if cell)


def test_a_fall_on_common_classes_has_their_numbers(tmp_path: Path) -> None:
    one = _site(tmp_path, "nih", "multilabel", (), {"easy": 0.0, "hard": 3.0})
    two = _site(tmp_path, "hannover", "multilabel", ("easy",), {"easy": 0.0, "hard": 1.0})
    of, told = _told(tmp_path)
    (fall,) = (fall for fall in of.falls if fall.low > 0)
    areas = [roc_auc_score(here.targets[:, 1], here.scores[:, 1]) for here in (one, two)]
    assert [fall.here.value, fall.there.value] == pytest.approx(areas)
    assert fall.classes == ("hard",)
    assert told[0].startswith(f"ft: the mean AUC falls from {areas[0]:.3f} at nih to {areas[1]:.3f} at hannover")
    assert "over the 1 class that both score." in told[0]


def test_a_class_without_an_interval_is_left_out_of_a_fall_and_nothing_is_said_of_chance(tmp_path: Path) -> None:
    sharp = {"easy": 3.0, "rare": 0.0}
    one = _site(tmp_path, "nih", "multilabel", (), sharp, alone="rare")
    two = _site(tmp_path, "hannover", "multilabel", (), {"easy": 0.0, "rare": 0.0}, alone="rare")
    of, told = _told(tmp_path)
    assert [entry.headline.overall.mean.low for entry in of.entries] == [None, None]
    (fall,) = (fall for fall in of.falls if fall.low > 0)
    areas = [roc_auc_score(here.targets[:, 0], here.scores[:, 0]) for here in (one, two)]
    assert [fall.here.value, fall.there.value] == pytest.approx(areas)
    assert "over the 1 class with an interval at both." in told[0]
    assert not any("chance" in sentence for sentence in told)


def test_recalls_are_compared_of_the_categories_that_both_sites_have(tmp_path: Path) -> None:
    sharp = dict.fromkeys("ab", 3.0) | dict.fromkeys("cdef", 0.5)
    one = _site(tmp_path, "all", "multiclass", (), sharp)
    _site(tmp_path, "two", "multiclass", tuple("cdef"), sharp)
    of, told = _told(tmp_path)
    assert told[0] == "Between sites no score falls by more than the intervals explain."
    right = one.scores.argmax(1) == one.targets.argmax(1)
    recalls = [right[one.targets[:, k] == 1].mean() for k in range(2)]
    for fall in of.falls:
        assert (fall.here.value, fall.there.value) == pytest.approx((np.mean(recalls), np.mean(recalls)))


@pytest.mark.parametrize("unknown", [("Edema", "Mass"), ("Edema",)])
def test_sites_without_a_class_in_common_are_not_said_to_agree(unknown: tuple[str, ...], tmp_path: Path) -> None:
    sharp = {"Edema": 2.0, "Mass": 2.0}
    _site(tmp_path, "nih", "multilabel", ("Mass",), sharp)
    _site(tmp_path, "hannover", "multilabel", unknown, sharp)
    of, told = _told(tmp_path)
    assert of.falls == ()
    assert not any("no score falls" in sentence for sentence in told)


def test_chance_is_drawn_for_each_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Plot] = []

    def kept(plot: Plot) -> Markup:
        drawn.append(plot)
        return Markup("")

    monkeypatch.setattr(headline, "svg", kept)
    _site(tmp_path, "five", "multiclass", ("f",), dict.fromkeys(SIX, 3.0))
    _site(tmp_path, "two", "multiclass", tuple("cdef"), dict.fromkeys(SIX, 3.0))
    of, _ = _told(tmp_path)
    headline.forest(of)
    axes = Figure().subplots()
    drawn[0].draw(axes)
    lines = [line for line in axes.lines if line.is_dashed()]
    chances = {entry.site: 1 / len(entry.scored) for entry in of.entries}
    assert sorted(chances.values()) == [0.2, 0.5]
    assert [np.asarray(line.get_xdata())[0] for line in lines] == [chances[site] for site in of.sites]

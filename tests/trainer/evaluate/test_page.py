"""The page says what scores are of, what was chosen on which split, and where a score falls; it leaves nothing out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from markupsafe import Markup
from sklearn.metrics import roc_auc_score

from shardkit.errors import ArgumentError
from tests.trainer.evaluate.folders import ABOUT, DRAWS, page, put
from trainer.evaluate.page.errors import PICTURES, keys, place, worst
from trainer.evaluate.page.words import shown
from trainer.evaluate.page.write import SCORES, write
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.predictions import write as store
from trainer.evaluate.results import FILE, LEAK, Settings, evaluation, found

DRAWN = ("curves", "decisions", "headline", "numbers")
VIEW: dict[str, Any] = {"kind": "multiclass", "classes": ("AP", "PA")}


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put words in place of drawings, which take most of a page's time: `test_drawings.py` draws them."""
    for name in DRAWN:
        monkeypatch.setattr(
            f"trainer.evaluate.page.{name}.svg", lambda plot: Markup("<svg>{}</svg>").format(plot.about)
        )


def _text(html: str) -> str:
    body = re.sub(r"<(svg|style).*?</\1>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def _sections(html: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', html)


def test_a_score_stands_with_its_interval_site_split_and_counts(tmp_path: Path) -> None:
    made = put(tmp_path, split="findings:test")
    text, scores = _text(page(tmp_path)), json.loads((tmp_path / SCORES).read_text())
    area = np.mean([roc_auc_score(made.targets[:, k], made.scores[:, k]) for k in range(2)])
    mean = scores["runs"][0]["scores"]["auc"]["patients"]["mean"]
    assert mean["value"] == pytest.approx(area)
    assert mean["low"] < area < mean["high"]
    positives = made.targets.sum(axis=0).astype(int)
    assert (
        f"ft at nih {area:.3f} {mean['low']:.3f} to {mean['high']:.3f} split findings:test 80 images of 40 patients"
        f" Edema {positives[0]}, Mass {positives[1]}" in text
    )
    assert "best AUC on val (0.750)" in text
    assert "random weights" in text


def test_a_fall_between_sites_is_named_and_marked(tmp_path: Path) -> None:
    put(tmp_path, site="nih", **VIEW, sharp=4.0)
    put(tmp_path, site="hannover", **VIEW, sharp=-1.0)
    html = page(tmp_path)
    told = re.search(r"ft: the AUC falls from (\S+) at nih to (\S+) at hannover, (\S+) less \((\S+) to (\S+)\)", html)
    assert told is not None
    one, two, by, low, high = map(float, told.groups())
    assert by == pytest.approx(one - two, abs=0.0011)
    assert 0 < low < by < high
    assert "is below chance (0.500)" in html
    alerts = re.findall(r'<div class="cell( alert)?"><span class="name">(\w+)', html)
    assert alerts == [("", "nih"), (" alert", "hannover")], "the best site stands first"


def test_sites_that_agree_are_said_to(tmp_path: Path) -> None:
    for site in ("one", "two"):
        put(tmp_path, site=site, **VIEW)
    html = page(tmp_path)
    assert "Between sites no score falls by more than the intervals explain." in html
    assert "falls from" not in html


def test_a_score_that_guessing_reaches_is_marked(tmp_path: Path) -> None:
    put(tmp_path, **VIEW, sharp=0.0)
    assert "ft at nih: AUC cannot be told from chance (0.500)." in page(tmp_path)


@pytest.mark.parametrize(("split", "stamped"), [("test", True), ("nih14:test", True), ("val", False), (None, False)])
def test_a_checkpoint_that_was_chosen_on_test_is_stamped(tmp_path: Path, split: str | None, stamped: bool) -> None:
    put(tmp_path, select_split=split)
    html = page(tmp_path)
    assert html.count('<span class="stamp">selected on test</span>') == 2 * stamped
    assert ("too good by an unknown amount" in html) == stamped


def test_notes_of_predictions_are_shown_and_leaks_in_red(tmp_path: Path) -> None:
    put(tmp_path, notes=("2 images could not be read", f"{LEAK}three patients"))
    html = page(tmp_path)
    assert '<p class="note ">2 images could not be read</p>' in html
    assert f'<p class="note alert">{LEAK}three patients</p>' in html


def test_a_class_without_positives_is_no_score_and_in_no_mean(tmp_path: Path) -> None:
    made = put(tmp_path, classes=("Edema", "Hernia", "Mass"), absent=("Hernia",))
    html = page(tmp_path)
    scores = json.loads((tmp_path / SCORES).read_text())["runs"][0]["scores"]
    areas = [roc_auc_score(made.targets[:, k], made.scores[:, k]) for k in (0, 2)]
    assert [one["value"] for one in scores["auc"]["patients"]["of"]] == pytest.approx([areas[0], None, areas[1]])
    assert scores["auc"]["patients"]["mean"]["value"] == pytest.approx(np.mean(areas))
    text = _text(html)
    assert "mean of 2 of 3 classes: the others have none" in text
    assert "No AUC, average precision, balanced accuracy and sensitivity of Hernia: no positive." in text
    assert (
        "Means are over the classes that can be scored: 2 of 3 for AUC, average precision, balanced accuracy and"
        " sensitivity; 3 of 3 for specificity and Brier score." in text
    )
    of = {name: sum(one["value"] is not None for one in found["patients"]["of"]) for name, found in scores.items()}
    assert (of["auc"], of["sensitivity"], of["specificity"], of["brier"]) == (2, 2, 3, 3)


def test_a_mean_of_a_regression_says_of_how_many_targets_it_is(tmp_path: Path) -> None:
    made = put(tmp_path, kind="regression", classes=("age", "size"))
    table = made.table.set_column(
        made.table.column_names.index("target.size"), "target.size", pa.array([7.0] * len(made))
    )
    store(Predictions(made.about, table), tmp_path / "ft" / "nih" / FILE)
    text = _text(page(tmp_path))
    assert "No R² of size: all targets are equal." in text
    assert "1 of 2 for R²; 2 of 2 for mean absolute error, root mean square error, median" in text


def test_a_class_that_nothing_is_known_of_has_no_score(tmp_path: Path) -> None:
    made = put(tmp_path)
    table = made.table.set_column(
        made.table.column_names.index("target.Mass"), "target.Mass", pa.nulls(len(made), pa.float64())
    )
    store(Predictions(made.about, table), tmp_path / "ft" / "nih" / FILE)
    text = _text(page(tmp_path))
    assert "No score of Mass: no known target." in text
    assert "Means are over the 1 of 2 classes that can be scored." in text


def test_several_runs_stand_side_by_side_and_are_compared_on_the_same_images(tmp_path: Path) -> None:
    put(tmp_path, run="ft", sharp=4.0)
    put(tmp_path, run="scratch", sharp=0.5)
    text = _text(page(tmp_path))
    assert "ft less scratch, at nih" in text
    assert "ft is better." in text
    assert "Score ft scratch" in text
    [one] = json.loads((tmp_path / SCORES).read_text())["comparisons"]
    assert one["differences"]["mean"]["low"] > 0
    assert max(one["delong_patients"]) < 0.05


def test_runs_on_other_images_are_not_compared(tmp_path: Path) -> None:
    put(tmp_path, run="ft")
    put(tmp_path, run="other", images=60)
    assert "ft and other at nih are not compared: they differ in 20 samples." in _text(page(tmp_path))
    scores = json.loads((tmp_path / SCORES).read_text())
    assert scores["comparisons"] == []
    assert [one["why"] for one in scores["not_compared"]] == ["differ in 20 samples"]


def test_runs_of_other_policies_have_a_page_that_says_that_they_are_not_compared(tmp_path: Path) -> None:
    put(tmp_path, run="ones")
    made = put(tmp_path, run="zeros")
    column = made.table.column_names.index("target.Edema")
    turned = pa.array([1 - value if at < 5 else value for at, value in enumerate(made.table[column].to_pylist())])
    changed = made.table.set_column(column, "target.Edema", turned)
    store(Predictions(made.about, changed), tmp_path / "zeros/nih" / FILE)
    assert "ones and zeros at nih are not compared: they have other targets for 5 samples." in _text(page(tmp_path))


def test_seeds_are_scored_on_the_images_that_all_have_and_it_is_said(tmp_path: Path) -> None:
    put(tmp_path, seed=0)
    made = put(tmp_path, seed=1)
    kept = made.take(np.arange(3, len(made)))
    store(kept, tmp_path / "ft/seed_1/nih" / FILE)
    note = "Seeds are scored on the 77 images that all of them have: seed 1 lacks 3."
    assert _text(page(tmp_path)).count(note) == 1
    [run] = json.loads((tmp_path / SCORES).read_text())["runs"]
    assert run["scores"]["auc"]["patients"]["images"] == 77
    area = np.mean([roc_auc_score(kept.targets[:, k], kept.scores[:, k]) for k in range(2)])
    assert run["scores"]["auc"]["means"][1] == pytest.approx(area)
    store(made.take(np.arange(0)), tmp_path / "ft/seed_1/nih" / FILE)
    with pytest.raises(ArgumentError, match="seeds of ft at nih have no image in common: seed 1 lacks 80"):
        page(tmp_path)


def test_seeds_are_one_run_with_mean_and_deviation(tmp_path: Path) -> None:
    for seed in range(3):
        put(tmp_path, seed=seed)
    html = page(tmp_path)
    [run] = json.loads((tmp_path / SCORES).read_text())["runs"]
    found = run["scores"]["auc"]
    assert found["patients"]["mean"]["value"] == pytest.approx(np.mean(found["means"]))
    assert found["deviation"] == pytest.approx(np.std(found["means"], ddof=1))
    assert f"3 seeds, deviation {found['deviation']:.3f}" in html
    ends = found["both"]["mean"]
    assert f"<i>{ends['low']:.3f} to {ends['high']:.3f}</i>" in html, "the interval is over seeds, too"
    assert "Seed 0 Seed 1 Seed 2 Mean Deviation" in _text(html)


def test_a_regression_has_errors_a_scatter_and_no_roc(tmp_path: Path) -> None:
    made = put(tmp_path, kind="regression", classes=("age",))
    html = page(tmp_path)
    error = float(np.abs(made.scores - made.targets).mean())
    assert f"<b>{error:.3f}</b>" in html
    assert {"scatters", "groups"} <= {*_sections(html)}
    assert not {"roc", "calibration", "thresholds", "oracle", "confusions"} & {*_sections(html)}
    assert "40-64" in html


def test_several_categories_have_balanced_accuracy_and_a_confusion_matrix(tmp_path: Path) -> None:
    made = put(tmp_path, kind="multiclass", classes=("a", "b", "c"))
    html = page(tmp_path)
    right = made.scores.argmax(1) == made.targets.argmax(1)
    recalls = [right[made.targets[:, k] == 1].mean() for k in range(3)]
    assert f"<b>{np.mean(recalls):.3f}</b>" in html
    assert "confusions" in _sections(html)
    taken = int(((made.scores.argmax(1) == 2) & (made.targets[:, 0] == 1)).sum())
    assert re.search(rf'<th scope="row">a</th>.*<td[^>]*>{taken}<small>[^<]*</small></td></tr>', html)


def test_without_facts_there_are_no_groups(tmp_path: Path) -> None:
    put(tmp_path, facts=False)
    assert "groups" not in _sections(page(tmp_path))


def test_groups_have_their_counts_and_small_ones_no_score(tmp_path: Path) -> None:
    made = put(tmp_path, images=24, patients=24)
    text = _text(page(tmp_path))
    women = made.fact("sex") == "F"
    counts = " / ".join(str(int(n)) for n in made.targets[women].sum(axis=0))
    assert f"F 12 12 {counts}" in text
    assert "unknown 8 8" in text
    assert "fewer than 10 patients" in text


def test_one_patient_has_a_score_and_no_interval(tmp_path: Path) -> None:
    put(tmp_path, patients=1)
    html = page(tmp_path)
    assert re.search(r"<b>0\.\d{3}</b><i>no interval: \w+ are of one patient only</i>", html)
    assert not re.search(r"<small[^>]*>0\.\d+ to", html), "nothing has an interval"


def test_pictures_are_of_the_worst_errors_and_can_be_left_out(tmp_path: Path) -> None:
    made = put(tmp_path, **VIEW)
    of = evaluation(found(tmp_path), DRAWS)
    names = keys(of)["nih"]
    wrong = 1 - (made.probabilities * made.targets).sum(axis=1)
    assert names[0] == made.keys[int(wrong.argmax())]
    assert {made.keys.index(name) for name in names} <= {*np.flatnonzero(wrong > 0.5)}
    assert "worst" not in _sections(page(tmp_path)), "nothing was drawn"
    path = place(tmp_path, "nih", names[0])
    assert path.is_relative_to(tmp_path / PICTURES)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"jpeg")
    html = page(tmp_path)
    assert "This page holds pictures of the data" in html
    assert html.count("data:image/jpeg") == 1
    assert "data:image" not in write(of, tmp_path, pictures=False).read_text()


def test_a_category_is_an_error_where_another_one_is_predicted(tmp_path: Path) -> None:
    made = put(tmp_path, kind="multiclass", classes=("a", "b", "c"), sharp=0.0)
    of = evaluation(found(tmp_path), DRAWS)
    right = made.targets[np.arange(80), made.scores.argmax(axis=1)] == 1
    lowest = 1 - made.probabilities[right].max(axis=1)
    assert lowest.max() > 0.5, "one is right with less than half of the probability"
    assert not right[[row for row, _ in worst(of.entries[0], 80)]].any()
    assert len(worst(of.entries[0], 80)) == (~right).sum()


@pytest.mark.filterwarnings("error")
def test_a_number_that_a_site_does_not_know_is_no_error(tmp_path: Path) -> None:
    made = put(tmp_path, kind="regression", classes=("age", "height"))
    table = made.table.set_column(made.table.column_names.index("target.height"), "target.height", pa.nulls(80, "f8"))
    store(Predictions(made.about, table), tmp_path / "ft/nih" / FILE)
    assert {k for _, k in worst(evaluation(found(tmp_path), DRAWS).entries[0])} == {0}


def test_a_balanced_accuracy_below_chance_is_no_ranking(tmp_path: Path) -> None:
    put(tmp_path, kind="multiclass", classes=("a", "b", "c"), sharp=-3.0)
    html = page(tmp_path)
    assert "is below chance (0.333): the run is wrong more often than guessing would be." in html
    assert "wrong way round" not in html


def test_scores_have_the_numbers_of_decisions(tmp_path: Path) -> None:
    put(tmp_path)
    html = page(tmp_path)
    [run] = json.loads((tmp_path / SCORES).read_text())["runs"]
    for one in run["thresholds"]:
        values = [one[name]["mean"] for name in ("fnr", "fpr", "precision", "accuracy")] + [one["subset_accuracy"]]
        cells = "".join(f"<td>{shown(value)}</td>" for value in values)
        assert f"{one['threshold']:g}</th>{cells}" in re.sub(r">\s+<", "><", html)
    assert [one["threshold"] for one in run["thresholds"]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    for ends in (*run["delong"], *run["delong_patients"]):
        assert f"{shown(ends[0])} to {shown(ends[1])}" in html
    assert run["calibration"].keys() == {"ece_width", "ece_mass"}
    assert all(shown(value) in html for value in run["calibration"].values())
    for curve in run["oracle_auc"].values():
        assert f"nih {shown(curve['auc'][0])} to {shown(curve['auc'][-1])}" in html
    assert run["oracle_auc"]["fraction"]["auc"][0] == pytest.approx(run["scores"]["auc"]["patients"]["mean"]["value"])
    assert len(run["positives"]) == len(run["known"]) == 2


def test_scores_of_categories_have_their_confusion_and_sites_their_falls(tmp_path: Path) -> None:
    made = put(tmp_path, kind="multiclass", classes=("a", "b", "c"))
    put(tmp_path, kind="multiclass", classes=("a", "b", "c"), site="there")
    page(tmp_path)
    scores = json.loads((tmp_path / SCORES).read_text())
    [run] = [one for one in scores["runs"] if one["site"] == "nih"]
    assert np.sum(run["confusion"], axis=1).tolist() == made.targets.sum(axis=0).tolist() == run["positives"]
    assert np.trace(run["confusion"]) == (made.scores.argmax(1) == made.targets.argmax(1)).sum()
    assert "ece_top" in run["calibration"]
    assert run["thresholds"] == []
    assert sorted(one["site"] for one in scores["between_sites"]) == ["nih", "there"]


def test_a_page_without_pictures_names_no_folders(tmp_path: Path) -> None:
    weights = "all weights are those of /home/j doe/runs/pre/checkpoint, which began so: weights are those of C/x.pth"
    put(tmp_path, data="/home/j doe/shards/nih", weights=weights)
    of = evaluation(found(tmp_path), DRAWS)
    assert "/home/j doe" in write(of, tmp_path).read_text()
    html = write(of, tmp_path, pictures=False).read_text()
    assert "/home" not in html
    assert "j doe" not in html
    assert "all weights are those of checkpoint, which began so: weights are those of x.pth" in html


def test_a_temperature_is_fitted_on_val_and_changes_probabilities_alone(tmp_path: Path) -> None:
    made = put(tmp_path)
    with pytest.raises(ArgumentError, match="--temperature"):
        page(tmp_path, Settings(replicates=100, temperature=True))
    put(tmp_path / "val")
    (tmp_path / "val/ft/nih/predictions.parquet").rename(tmp_path / "ft/nih/validation.parquet")
    plain, cooled = (evaluation(found(tmp_path), Settings(replicates=100, temperature=t)) for t in (False, True))
    [fitted] = cooled.entries[0].temperatures
    assert fitted.value < 0.9
    np.testing.assert_allclose(cooled.entries[0].first.scores * fitted.value, made.scores)
    for name, same in (("auc", True), ("brier", False)):
        values = [of.entries[0].scores[name].patients.mean.value for of in (plain, cooled)]
        assert (values[0] == pytest.approx(values[1])) == same


@pytest.mark.parametrize("other", [{"checkpoint": "of another"}, {"classes": ("Edema", "Hernia")}, {"digest": "ef56"}])
def test_a_temperature_is_of_the_same_weights_and_data(tmp_path: Path, other: dict[str, Any]) -> None:
    put(tmp_path, checkpoint="of this")
    put(tmp_path / "val", **{"checkpoint": "of this", **other})
    (tmp_path / "val/ft/nih/predictions.parquet").rename(tmp_path / "ft/nih/validation.parquet")
    with pytest.raises(ArgumentError, match="of these weights: predict with --temperature"):
        page(tmp_path, Settings(replicates=100, temperature=True))


def test_a_temperature_is_fitted_on_the_val_splits_of_all_datasets_of_the_training(tmp_path: Path) -> None:
    for site, classes in (("nih", ABOUT.classes), ("hannover", ABOUT.classes[::-1])):
        put(tmp_path, site=site)
        put(tmp_path / "val", site=site, classes=classes)
        (tmp_path / f"val/ft/{site}/predictions.parquet").rename(tmp_path / f"ft/{site}/validation.parquet")
    of = evaluation(found(tmp_path), Settings(replicates=100, temperature=True))
    assert {fitted.targets for entry in of.entries for fitted in entry.temperatures} == {2 * 2 * 80}


def test_predictions_of_two_tasks_make_no_page(tmp_path: Path) -> None:
    put(tmp_path, run="one")
    put(tmp_path, run="two", **VIEW)
    with pytest.raises(ArgumentError, match="evaluate them by two commands, each with another --out, or remove"):
        page(tmp_path)

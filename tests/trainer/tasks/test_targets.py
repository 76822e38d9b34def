"""What labels count as: policies for -1 and blanks, folded classes, facts, and what a task is told beforehand."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardkit.errors import ArgumentError
from shardkit.labels import Labels
from trainer.tasks import targets
from trainer.tasks.config import TaskConfig
from trainer.tasks.facts import facts
from trainer.tasks.targets import Policy, Targets
from trainer.tasks.training_targets import TrainingTargets

NAN = np.nan


def _labels(rows: list[bool] | None = None, **columns: Any) -> Labels:
    """Labels of some images: numbers with NaN for a blank are binary, words are categories.

    `rows` says which have a row; where it is not given, those with more than blanks.
    """
    kinds: dict[str, Any] = {}
    categories: dict[str, tuple[str, ...]] = {}
    values = []
    for name, cells in columns.items():
        if any(isinstance(cell, str) for cell in cells):
            kinds[name], categories[name] = "category", tuple(sorted({cell for cell in cells if cell}))
            cells = [categories[name].index(cell) if cell else NAN for cell in cells]
        else:
            kinds[name] = "number" if any(cell not in (0, 1, -1) and cell == cell for cell in cells) else "binary"
        values.append(cells)
    array = np.array(values, np.float32).T
    split = np.full(len(array), None, np.object_)
    has_row: Any = ~np.isnan(array).all(1) if rows is None else np.array(rows, np.bool_)
    return Labels(tuple(kinds), np.nan_to_num(array), ~np.isnan(array), split, kinds, categories, has_row)


# Two labels of five images: all four values of each, and an image of which nothing is known.
TWO = _labels(edema=[1, 0, -1, NAN, NAN], mass=[0, -1, 1, 1, NAN])


@pytest.mark.parametrize(
    ("policy", "edema", "mass"),
    [
        (Policy(), [1, 0, 0, 0, NAN], [0, 0, 1, 1, NAN]),
        (Policy("ones"), [1, 0, 1, 0, NAN], [0, 1, 1, 1, NAN]),
        (Policy("ignore"), [1, 0, NAN, 0, NAN], [0, NAN, 1, 1, NAN]),
        (Policy("zeros", ("mass",)), [1, 0, 0, 0, NAN], [0, 1, 1, 1, NAN]),
        (Policy("ignore", ("mass",), "ignore"), [1, 0, NAN, NAN, NAN], [0, 1, 1, 1, NAN]),
        (Policy("zeros", (), "ignore"), [1, 0, 0, NAN, NAN], [0, 0, 1, 1, NAN]),
    ],
)
def test_uncertain_and_blank_count_as_the_policy_says(policy: Policy, edema: list[float], mass: list[float]) -> None:
    found = targets.binary(TWO, (), policy)
    assert found.classes == ("edema", "mass")
    np.testing.assert_array_equal(np.where(found.known, found.values, NAN).T, [edema, mass])
    assert not found.values[~found.known].any()


@pytest.mark.parametrize("policy", [Policy(), Policy("ones"), Policy("ignore"), Policy("zeros", ("mass",), "ignore")])
def test_what_counts_without_being_said_is_told_with_its_number(policy: Policy) -> None:
    """What the sentences number is what a policy adds to what the labels say."""
    rows = np.array([1, 2, 3, 4])
    told = " ".join(targets.counted(TWO, ("edema", "mass"), policy, rows))
    found, said = targets.binary(TWO, (), policy), TWO.known & (TWO.values >= 0)
    for at, name in enumerate(("edema", "mass")):
        added = (found.known & ~said)[rows, at]
        of = [int(number) for number in re.findall(rf"{name} (\d+)", told)]
        assert sum(of) == added.sum()
    assert ("count as 1" in told) == bool((found.known & ~said & (found.values == 1))[rows].any())


def test_labels_that_say_all_need_no_word() -> None:
    assert targets.counted(TWO, ("edema", "mass"), Policy(), np.array([0])) == []
    words = _labels(view=["AP", None])
    assert targets.counted(words, ("view", "absent"), Policy(), np.array([0, 1])) == []


def test_a_row_of_blanks_alone_counts_as_a_row() -> None:
    """As of a table whose only label is 1 or empty; the last image has no row."""
    labels = _labels([True, True, True, False], fracture=[1, NAN, NAN, NAN])
    found = targets.binary(labels, (), Policy())
    np.testing.assert_array_equal(np.where(found.known, found.values, NAN)[:, 0], [1, 0, 0, NAN])
    assert targets.binary(labels, (), Policy(blank="ignore")).known[:, 0].tolist() == [True, False, False, False]


def test_labels_that_are_put_together_are_there_where_one_is() -> None:
    found = targets.binary(TWO, (), Policy("ignore", (), "ignore"), {"edema": "any", "mass": "any"})
    assert found.classes == ("any",)
    np.testing.assert_array_equal(np.where(found.known, found.values, NAN)[:, 0], [1, NAN, 1, 1, NAN])


def test_classes_of_a_run_are_found_again_and_others_are_unknown() -> None:
    """On another dataset: its table may lack labels, and have others."""
    found = targets.binary(TWO, ("mass", "nodule"), Policy(), classes=("nodule", "mass"))
    assert found.classes == ("nodule", "mass")
    assert found.known.tolist() == [[False, k] for k in (True, True, True, True, False)]
    folded = targets.binary(TWO, (), Policy(), {"edema": "x", "mass": "x"}, classes=("x",))
    assert folded.values[:, 0].tolist() == [1, 0, 1, 1, 0]


LUNGS = _labels(bacterial=[1, 0, 0, 0, NAN], viral=[0, 0, 0, 1, NAN], pneumonia=[1, 1, NAN, 1, 1])
BOTH = {"bacterial": "pneumonia", "viral": "pneumonia"}


def _only(*names: str) -> Labels:
    """LUNGS of a site that has some of its columns."""
    at = [LUNGS.columns.index(name) for name in names]
    kinds: dict[str, Any] = dict.fromkeys(names, "binary")
    return Labels(names, LUNGS.values[:, at], LUNGS.known[:, at], LUNGS.split, kinds, {}, LUNGS.has_row)


@pytest.mark.parametrize("columns", [("bacterial", "viral"), ("pneumonia",), ()])
def test_a_run_means_the_same_where_it_is_evaluated(columns: tuple[str, ...]) -> None:
    """A label with the name of a class is none of it where the run did not learn from it."""
    fold = {} if columns == ("pneumonia",) else BOTH
    trained = targets.binary(LUNGS, columns, Policy(blank="ignore"), fold)
    asked = targets.binary(LUNGS, columns, Policy(blank="ignore"), fold, trained.classes)
    assert asked.digest == trained.digest


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (("bacterial", "viral", "pneumonia"), [1, 0, 0, 1, NAN]),
        (("bacterial",), [1, NAN, NAN, NAN, NAN]),
        (("pneumonia",), [1, 1, NAN, 1, 1]),
        (("bacterial", "pneumonia"), [1, 1, NAN, 1, 1]),
        ((), [NAN] * 5),
    ],
)
def test_a_class_is_absent_only_where_all_its_labels_are_or_the_one_of_its_name(
    there: tuple[str, ...], said: list[float]
) -> None:
    """A site with bacterial pneumonia alone does not say that there is no viral one."""
    of = ("bacterial", "viral")
    found = targets.binary(_only(*there), of, Policy(blank="ignore"), BOTH, ("pneumonia",))
    np.testing.assert_array_equal(np.where(found.known, found.values, NAN)[:, 0], said)


COVID = _labels(word=["COVID-19", "normal", "bacterial", "viral", None])


def test_categories_are_one_hot_and_can_be_put_together() -> None:
    """COVIDx has four words for the three classes that are trained on."""
    found = targets.categories(COVID, "word", {"bacterial": "pneumonia", "viral": "pneumonia"})
    assert found.classes == ("COVID-19", "normal", "pneumonia")
    assert found.values.argmax(1).tolist()[:4] == [0, 1, 2, 2]
    assert found.known.all(1).tolist() == [True] * 4 + [False]
    others = targets.categories(COVID, "word", {}, classes=("normal", "viral", "fungal"))
    assert others.known.all(1).tolist() == [False, True, False, True, False]


def test_a_run_is_asked_by_the_label_that_it_learnt_from_where_a_table_has_it() -> None:
    task, run = TaskConfig(labels="x", kind="multiclass"), {"objective": {"columns": ["word"]}}
    assert task.chosen(COVID) == ("word",)
    two = _labels(word=["normal", "viral"], source=["a", "b"])
    assert task.of_run(run, two).made(two, ("normal", "viral")).values.argmax(1).tolist() == [0, 1]
    other = _labels(finding=["viral", "normal"])
    assert task.of_run(run, other).made(other, ("normal", "viral")).values.argmax(1).tolist() == [1, 0]
    assert replace(task, columns=("source",)).of_run(run, two).columns == ("source",), "what is typed stays"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policy(), ["1", "0", "0", "0", None]),
        (Policy("ones"), ["1", "0", "1", "0", None]),
        (Policy("zeros", ("edema",), "ignore"), ["1", "0", "1", None, None]),
        (Policy("ignore", (), "ignore"), ["1", "0", None, None, None]),
    ],
)
def test_a_binary_label_has_two_categories_by_the_policy(policy: Policy, said: list[str | None]) -> None:
    for classes in ((), ("0", "1")):
        found = targets.categories(TWO, "edema", {}, classes, policy)
        assert found.classes == ("0", "1")
        words = [
            found.classes[at] if known else None
            for at, known in zip(found.values.argmax(1), found.known[:, 0], strict=True)
        ]
        assert words == said


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: targets.binary(TWO, (), Policy(ones=("Edema",))), "ones names Edema, which is none of edema, mass"),
        (lambda: targets.binary(TWO, (), Policy(), {"x": "y"}), "fold names x, which is none of edema, mass"),
        (lambda: targets.binary(TWO, ("x",), Policy()), "no label x: choose --objective.columns of edema, mass"),
        (
            lambda: targets.binary(COVID, (), Policy()),
            "choose --objective.kind multiclass and --objective.columns of w",
        ),
        (lambda: targets.categories(COVID, "word", {"fungal": "x"}), "fold names fungal, which is none of COVID-19"),
        (lambda: targets.numbers(COVID, ()), "there is no number label: choose --objective.kind multiclass"),
        (lambda: targets.the_column(_labels(a=["x"], b=["y"]), ()), "choose one by --objective.columns, of a, b"),
        (lambda: targets.the_column(TWO, ()), "no label with categories: choose --objective.kind multilabel and"),
        (
            lambda: targets.the_column(TWO, ()),
            "or --objective.columns of one binary label, whose classes are 0 and 1: ",
        ),
        (lambda: targets.categories(TWO, "edema", {}, policy=Policy(ones=("mass",))), "ones names mass, which is none"),
    ],
)
def test_what_cannot_be_a_target_is_refused_with_what_could(made: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(said)):
        made()


# --- facts of the manifest


def _loader(**columns: list[str | None]) -> Any:
    names = ("view", "sex", "body_part", "age")
    rows = len(next(iter(columns.values())))
    table = pa.table({name: pa.array(columns.get(name, [None] * rows), pa.string()) for name in names})
    return SimpleNamespace(columns=lambda *wanted: table.select(wanted))


def test_facts_are_categories_and_years() -> None:
    found = facts(_loader(view=["PA", "AP", None], age=["50-54", "90+", "7"]), ())
    assert found.columns == ("view", "age")
    assert found.categories == {"view": ("AP", "PA")}
    np.testing.assert_array_equal(found.column("view"), np.array([1, 0, NAN], np.float32))
    assert found.column("age").tolist() == [52, 90, 7]


@pytest.mark.parametrize(("name", "remedy"), [("sex", "--demographics, or with --facts"), ("view", "--facts TABLE")])
def test_a_fact_that_no_image_has_is_refused_with_the_remedy(name: str, remedy: str) -> None:
    with pytest.raises(ArgumentError, match=f"does not know the {name} of any image: .*{remedy}"):
        facts(_loader(body_part=["CHEST"]), (name,))


# --- what the training split can teach


def _trained(values: Any, kind: Any = "multilabel") -> TrainingTargets:
    array = np.array(values, np.float32)
    names = tuple("abc"[: array.shape[1]])
    of = Targets(names, np.nan_to_num(array), ~np.isnan(array))
    return TrainingTargets.of(of, np.arange(len(array)), kind)


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ([[NAN, NAN]], "multilabel", "the labels x know none of the 1 images of the split train"),
        ([[0, 0], [0, NAN]], "multilabel", "say the same of all 2 images"),
        ([[1], [1]], "multiclass", "have one category only, a"),
        ([[1, 0], [1, 0]], "multiclass", "say the same of all 2 images"),
        ([[5.0], [5.0]], "regression", "give all images of the training split the same a"),
    ],
)
def test_what_cannot_be_learnt_is_refused(values: Any, kind: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(said)):
        _trained(values, kind).check("x", "train")


def test_classes_without_a_positive_or_a_negative_are_told() -> None:
    found = _trained([[1, 0, 1], [0, 0, 1]]).check("x", "train")
    assert found == [
        "no image of the training split train has b: it cannot be learnt",
        "all images of the training split train that are known have c",
    ]
    assert _trained([[1, 0], [0, 1]]).check("x", "train") == []


def test_balanced_weights_give_both_sides_of_a_class_the_same_sum_and_the_mean_1() -> None:
    of = _trained([[1, 1, 0], [0, NAN, 0], [0, NAN, 0], [0, 0, NAN]])
    one, zero = of.weights("balanced")
    assert one.tolist() == [2, 1, 1]
    assert zero.tolist() == pytest.approx([2 / 3, 1, 1])
    one, _ = _trained([[1, 0, 0]] * 3 + [[0, 1, 0]], "multiclass").weights("balanced")
    assert one.tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1), 1])
    with pytest.raises(ArgumentError, match="a regression has none"):
        _trained([[1.0]], "regression").weights("balanced")


def test_the_unit_of_a_regression_is_that_of_its_known_numbers() -> None:
    mean, deviation = _trained([[10.0, NAN], [30.0, 4.0], [NAN, 8.0]], "regression").unit
    assert (mean.tolist(), deviation.tolist()) == ([20, 6], [10, 2])

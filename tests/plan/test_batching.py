"""Batchings as text and back, refusals of unusable ones in one sentence, the bins they mean."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.dataset.bins import Bin, Bins
from shardkit.errors import ArgumentError, ShardkitError, StateError
from shardkit.plan import (
    Batching,
    BatchShape,
    Binned,
    EpochPlan,
    Exact,
    Fixed,
    MultiView,
    Packed,
    Resized,
    Samples,
    Shape,
    View,
    from_text,
)
from shardkit.plan.base import text_of
from shardkit.plan.batching import KINDS
from shardkit.plan.spec import FORMAT, PlanSpec

counts = st.integers(1, 10**6)
some = st.none() | counts
shares = st.tuples(st.floats(0.001, 1.0), st.floats(0.001, 1.0)).map(sorted).map(tuple)
ratios = st.tuples(st.floats(0.01, 100.0), st.floats(0.01, 100.0)).map(sorted).map(tuple)
common = {
    "patch": counts,
    "per_step": counts,
    "content": st.booleans(),
    "level": st.integers(0, 9),
    "crop": st.none() | shares,
    "ratio": ratios,
    "flip": st.floats(0, 1),
    "remainder": st.sampled_from(["fill", "repeat", "drop"]),
}
bins = st.sampled_from(["dataset", "thesis", "auto:36", "0480x0480+0960x1920", "/data/my bins/b=1.json", "640x640"])


def any_of(kind: Any, required: Sequence[str] = (), **own: Any) -> st.SearchStrategy[Any]:
    fields = {**common, **own}
    optional = {name: value for name, value in fields.items() if name not in required}
    return st.fixed_dictionaries({name: fields[name] for name in required}, optional=optional).map(lambda a: kind(**a))


views = st.builds(
    View,
    counts,
    shares,
    counts,
    ratios,
    *[st.floats(0, 1)] * 5,
    sigma=ratios,
    solarise=st.floats(0, 1),
)
own = ("crop", "ratio", "flip")  # of views


def multi_view(**fields: Any) -> MultiView:
    return MultiView(**{name: value for name, value in fields.items() if name not in own})


batchings = st.one_of(
    any_of(
        multi_view,
        ["views"],
        views=st.lists(views, min_size=1, max_size=3).map(tuple),
        batch_size=counts,
        level=st.integers(0, 9) | st.just("auto"),
    ),
    any_of(Fixed, ["side"], side=counts, batch_size=counts),
    any_of(Exact),
    any_of(Binned, bins=bins, batch_size=some, tokens=some, group=some),
    any_of(Packed, tokens=counts, max_images=some, window=counts),
    any_of(
        Resized,
        ["side"],
        side=counts,
        batch_size=counts,
        fit=st.sampled_from(["crop", "pad"]),
        level=st.integers(0, 9) | st.just("auto"),
    ),
)


# ------------------------------------------------------------------------------------------------------------ text


@given(batchings)
@settings(max_examples=300, deadline=None)
def test_a_batching_is_read_back_from_its_text(batching: Batching) -> None:
    text = text_of(batching)
    assert str(batching) == text
    assert from_text(text) == batching
    assert text_of(from_text(text)) == text


@given(batchings, st.sampled_from([None, "train", "val"]), st.sampled_from(["", "0123456789ab"]), counts)
@settings(max_examples=100, deadline=None)
def test_what_decides_a_plan_is_read_back_from_its_text(
    batching: Batching, split: str | None, rows: Any, window: int
) -> None:
    plan_spec = PlanSpec(split, rows, window, batching)
    assert PlanSpec.read(str(plan_spec)) == plan_spec


@pytest.mark.parametrize(
    ("batching", "text"),
    [
        (Exact(), "exact"),
        (Packed(), "packed"),
        (Packed(tokens=12288, patch=48), "packed:patch=48,tokens=12288"),
        (Fixed(512), "fixed:side=512"),
        (Binned("auto:36", tokens=24576, patch=48), "binned:patch=48,bins=auto:36,tokens=24576"),
        (
            Resized(224, 64, level="auto", crop=(0.2, 1.0), content=True),
            "resized:content=True,level=auto,crop=0.2/1.0,side=224,batch_size=64",
        ),
        (Resized(224, crop=(np.float64(0.2), np.float64(1))), "resized:crop=0.2/1.0,side=224"),
        (
            MultiView((View(224, (0.4, 1.0), n=2), View(96, (0.05, 0.4), n=8, blur=0.5)), 64, level=2),
            "multiview:level=2,views=224:crop=0.4/1.0:n=2+96:crop=0.05/0.4:n=8:blur=0.5,batch_size=64",
        ),
    ],
)
def test_texts_hold_what_differs_from_the_defaults(batching: Batching, text: str) -> None:
    assert text_of(batching) == text


@pytest.mark.parametrize(
    ("text", "batching"),
    [
        (" packed ", Packed()),
        ("packed:", Packed()),
        ("packed:tokens=1_000,,patch=8,", Packed(tokens=1000, patch=8)),
        ("resized:side=224,content=true,crop=none", Resized(224, content=True)),
        ("binned:tokens=64,group=None,bins=thesis", Binned("thesis", tokens=64)),
        ("resized:side=32,ratio=1/1", Resized(32, ratio=(1, 1))),
        ("multiview:views=32:n=2:crop=0.4/1+16,level=auto", MultiView((View(32, (0.4, 1), 2), View(16)))),
    ],
)
def test_texts_are_read_leniently(text: str, batching: Batching) -> None:
    assert from_text(text) == batching


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["start with one of fixed, exact, binned, packed, resized"]),
        ("packs:tokens=5", ["'packs:tokens=5' is unknown"]),
        ("packed:token=5", ["'token=5'", "'max_images'"]),
        ("packed:tokens", ["'tokens'", "name=value"]),
        ("packed:side=5", ["'side=5'"]),
        ("fixed", ["'fixed' lacks a value of side: see"]),
        ("fixed:batch_size=4", ["lacks a value"]),
        ("packed:tokens=many", ["tokens=many of Packed must be a whole number of at least 1"]),
        ("packed:patch=16.5", ["patch=16.5"]),
        ("packed:tokens=none", ["tokens=None"]),
        ("resized:side=224,crop=0.5", ["crop=0.5 of Resized must be a tuple of two area shares"]),
        ("resized:side=224,crop=0.1/0.5/0.9", ["crop=(0.1, 0.5, 0.9)"]),
        ("resized:side=224,crop=low/high", ["crop=('low', 'high')"]),
        ("resized:side=224,level=most", ["level=most"]),
        ("binned:bins=480,tokens=64", ["bins=480 of Binned"]),
        ("multiview", ["'multiview' lacks a value of views: see"]),
        ("multiview:views=", ["side= of a View must be a whole number of at least 1"]),
        ("multiview:views=224:n=0", ["n=0 of a View"]),
        ("multiview:views=224:n=2+96:crop=0.1/2", ["crop=(0.1, 2) of a View", "up to 1"]),
        ("multiview:views=224:ratio=2/1", ["ratio=(2, 1) of a View"]),
        ("multiview:views=224:sigma=0/1", ["sigma=(0, 1) of a View"]),
        ("multiview:views=224:solarise=1.5", ["solarise=1.5 of a View must be a number from 0 to 1"]),
        ("multiview:views=224:hue=0.1", ["'hue=0.1'", "'jitter'"]),
        ("multiview:views=224,flip=0.5", ["flip=0.5 of MultiView must be left out: each View has its own"]),
        ("multiview:views=224,crop=0.1/1", ["crop=(0.1, 1) of MultiView"]),
        ("multiview:views=224,ratio=1/1", ["ratio=(1, 1) of MultiView"]),
        ("binned:bins=/data/b,c.json,tokens=64", ["'c.json'"]),
    ],
)
def test_unreadable_texts_are_refused_with_what_is_wrong(
    few_samples: Callable[..., Samples], text: str, names: Any
) -> None:
    with pytest.raises(ArgumentError) as caught:
        from_text(text).batcher(few_samples(0))
    for name in names:
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.text(max_size=20), st.sampled_from(sorted(KINDS)), st.sampled_from(["side", "tokens", "crop", "bins", "flip"])
)
@settings(max_examples=300, deadline=None)
def test_no_text_ends_in_another_error(few_samples: Callable[..., Samples], text: str, kind: Any, name: str) -> None:
    for line in (text, f"{kind}:{text}", f"{kind}:{name}={text}", f"{kind}:side=16,{name}={text}"):
        with contextlib.suppress(ShardkitError):
            from_text(line).batcher(few_samples(0))


@pytest.mark.parametrize(
    "text", ["", "1", "2 split=all window=5 packed", "1 window=5 packed", "1 split=all window=x packed"]
)
def test_descriptions_of_another_format_are_refused(text: str) -> None:
    assert FORMAT == 1
    with pytest.raises(StateError, match="use the one it is of"):
        PlanSpec.read(text)


# ------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "make",
    [
        *(lambda name=name, bad=bad: Packed(**{name: bad})
          for name in ("patch", "per_step", "tokens", "max_images", "window")
          for bad in (0, -1, 1.5, "8", True)),
        *(lambda name=name, bad=bad: Binned(**{"tokens": 9, name: bad})
          for name in ("batch_size", "tokens", "group") for bad in (0, -1, 2.0, "8")),
        *(lambda bad=bad: Fixed(bad) for bad in (0, -16, None, 16.0)),
        *(lambda bad=bad: Resized(16, bad) for bad in (0, None, 1.0)),
        *(lambda bad=bad: Exact(crop=bad)
          for bad in ((0, 1), (0.5, 0.4), (0.5, 1.1), (0.5,), 0.5, [0.5, 1.0], (0.5, float("nan")), ("a", "b"), ())),
        *(lambda bad=bad: Exact(ratio=bad) for bad in ((0, 1), (2, 1), (1,), 1.0, None, (1, float("inf")))),
        *(lambda bad=bad: Exact(flip=bad) for bad in (-0.1, 1.1, float("nan"), "often", None, True)),
        *(lambda bad=bad: Exact(level=bad) for bad in (-1, 1.0, "all", None, True)),
        *(lambda bad=bad: Exact(content=bad) for bad in (0, 1, "yes", None)),
        *(lambda bad=bad: Exact(remainder=bad) for bad in ("", "keep", None)),
        *(lambda kind=kind: kind(level="auto") for kind in (Exact, Packed, Binned)),
        lambda: Fixed(16, level="auto"),
    ],
)  # fmt: skip
def test_unusable_arguments_are_refused_when_given(make: Callable[[], Any]) -> None:
    with pytest.raises(ArgumentError, match=r"must be|needs an output size"):
        make()


@pytest.mark.parametrize(
    ("batching", "message"),
    [
        (Fixed(100), "side=100 of Fixed must be a multiple of patch=16"),
        (Resized(100), "side=100 of Resized must be a multiple of patch=16"),
        (
            Resized(96, fit="stretch"),  # type: ignore[arg-type]
            "fit=stretch of Resized must be crop or pad",
        ),
        (Binned(), "either batch_size or tokens"),
        (Binned(batch_size=1, tokens=1), "either batch_size or tokens"),
        (Binned(tokens=1, per_step=8, group=3), "group=3 of Binned must be a divisor of per_step=8"),
        (Binned(tokens=1, per_step=8, group=16), "a divisor of per_step=8"),
        (Binned("none", tokens=1), "bins 'none' are unknown"),
        (Binned("480x", tokens=1), "bins '480x' are unknown"),
        (Binned("480x480x1", tokens=1), r"write \[height, width\]"),
        (Binned("0x16", tokens=1), r"write \[height, width\]"),
        (Binned("100x100", tokens=1), "not a multiple of patch 16: use 0112x0112"),
        (Binned("a,b.json", tokens=1), "without a comma"),
        (Packed(remainder="repeat"), "remainder=fill or drop"),
    ],
)
def test_unusable_combinations_are_refused_before_anything_is_planned(
    few_samples: Callable[..., Samples], batching: Batching, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        EpochPlan(few_samples(0), 0, 0, batching)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    numbers: Any = {"tokens": np.int64(64), "patch": np.int32(8), "level": np.int64(1)}
    assert text_of(Packed(**numbers)) == "packed:patch=8,level=1,tokens=64"


# ------------------------------------------------------------------------------------------------------------ bins


def shapes_of(samples: Samples, batching: Batching) -> set[BatchShape]:
    return {micro.shape for step in EpochPlan(samples, 0, 0, batching) for micro in step}


def test_named_bins_and_those_of_a_file_are_taken_as_they_are(
    few_samples: Callable[..., Samples], tmp_path: Path
) -> None:
    path = tmp_path / "my bins.json"
    path.write_text(json.dumps([[208, 208], [64, 208]]))
    for bins in ("0064x0208+0208x0208", "64x208+208x208", str(path)):
        shapes = shapes_of(few_samples(1), Binned(bins, batch_size=2))
        assert shapes == {Shape(2, 64, 208), Shape(2, 208, 208)}


def test_the_datasets_bins_are_halved_with_the_images_and_made_of_whole_patches(
    few_samples: Callable[..., Samples],
) -> None:
    samples = few_samples(1)
    assert shapes_of(samples, Binned(batch_size=1)) == {Shape(1, 48, 208), Shape(1, 112, 112), Shape(1, 208, 208)}
    assert shapes_of(samples, Binned(batch_size=1, level=1)) == {
        Shape(1, 32, 112),
        Shape(1, 64, 64),
        Shape(1, 112, 112),
    }


def test_halved_bins_of_odd_sides_hold_images_of_just_that_size() -> None:
    samples = Samples("odd", np.array([0, 1]), np.array([33]), np.array([65]), Bins((Bin(33, 65),), 1))
    assert shapes_of(samples, Binned(batch_size=1, level=1)) == {Shape(1, 32, 48)}


def test_with_tokens_a_bin_has_as_many_images_as_they_hold_and_at_least_one(
    few_samples: Callable[..., Samples],
) -> None:
    shapes = shapes_of(few_samples(1), Binned(tokens=100))
    assert shapes == {Shape(2, 48, 208), Shape(2, 112, 112), Shape(1, 208, 208)}


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from(["auto:1", "auto:4", "thesis", "dataset"]),
)
@settings(max_examples=60, deadline=None)
def test_bins_hold_every_view_at_every_level(
    few_samples: Callable[..., Samples], seed: int, level: int, content: bool, bins: str
) -> None:
    patch = 16
    plan = EpochPlan(few_samples(seed), 0, 0, Binned(bins, batch_size=3, level=level, content=content, patch=patch))
    assert plan.account().samples == len(plan.samples)


def test_bins_hold_a_box_that_touches_a_row_more_than_half_its_height() -> None:
    # Rows 15 to 46 of 32 touch 17 rows of the halved image, one more than half of 32.
    samples = Samples(
        "one",
        np.array([0, 1]),
        np.array([64]),
        np.array([64]),
        Bins((Bin(64, 64),), 16),
        box=np.array([[15, 15, 32, 32]]),
    )
    assert shapes_of(samples, Binned("auto:1", batch_size=1, level=1, content=True)) == {Shape(1, 32, 32)}

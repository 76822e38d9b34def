"""Names of splits: what stands beside one, as training, validation and evaluation take it, and what is refused."""

import pyarrow as pa
import pytest

from shardkit.errors import ArgumentError
from shardkit.labels.split_names import Choice, Split


@pytest.mark.parametrize(
    ("split", "val", "test"),
    [
        ("train", "val", "test"),
        ("all", "val", "test"),
        ("nih14:train", "nih14:val", "nih14:test"),
        ("nih14:train,covidx:train", "nih14:val,covidx:val", "nih14:test,covidx:test"),
        ("nih14:train,train", "nih14:val,val", "nih14:test,test"),
        ("nih14:train/train", "nih14:train/val", "nih14:test"),
        ("nih14:train/train,covidx:train", "nih14:train/val,covidx:val", "nih14:test,covidx:test"),
        ("nih14:dev/train", "nih14:dev/val", "nih14:test"),
    ],
)
def test_a_split_beside_another_is_of_the_same_tables(split: str, val: str, test: str) -> None:
    of = Split.read(split)
    assert str(of) == split
    assert (str(of.called("val")), str(of.called("test"))) == (val, test)
    assert str(of.called("val").called("train")) == split.replace("all", "train")


def test_a_part_is_what_our_own_val_holds_and_all_others() -> None:
    own = pa.chunked_array([["train", "val"], ["test", "val", None]])
    parts = {part: Choice("nih14", "train", part).of_part(own).tolist() for part in ("train", "val", "")}
    assert parts["val"] == [False, True, False, True, False]
    assert parts["train"] == [not held for held in parts["val"]]
    assert all(parts[""])


@pytest.mark.parametrize("text", ["nih14:train/test", "nih14:train/", "nih14:train/val/val", "covidx:train,nih14:a/b"])
def test_a_part_that_there_is_not_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"has the parts nih14:\w+/val, which are those of our own val, and nih14"):
        Split.read(text)


@pytest.mark.parametrize("text", ["", ":", ":train", "nih14:", "nih14:/val", "nih14:train,", ",nih14:train"])
def test_a_name_that_is_missing_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="give train, val, test, all, or a labels table's, as nih14:train"):
        Split.read(text)

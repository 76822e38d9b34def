"""The split beside another one is of the same labels tables, however many are named."""

import pytest

from trainer.splits import beside


@pytest.mark.parametrize(
    ("split", "val"),
    [
        ("train", "val"),
        ("all", "val"),
        ("nih14:train", "nih14:val"),
        ("nih14:train,covidx:train", "nih14:val,covidx:val"),
        ("nih14:train,train", "nih14:val,val"),
    ],
)
def test_a_split_beside_another_is_of_the_same_tables(split: str, val: str) -> None:
    assert beside(split, "val") == val

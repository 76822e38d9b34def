"""The file of a mixture: what is typed, what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardkit.dataset import mixture
from shardkit.dataset.mixture import MemberSpec
from shardkit.errors import ArgumentError, IntegrityError

SOUND: dict[str, Any] = {"name": "nih", "url": "shards", "weight": 1, "digest": "ab"}


@pytest.mark.parametrize(
    ("text", "url", "weight"),
    [
        ("a=shards/nih:0.5", "shards/nih", 0.5),
        ("a=shards/nih", "shards/nih", 1.0),
        ("a=/data/a=b:2", "/data/a=b", 2.0),
        ("a=s3://bucket/nih:1e-3", "s3://bucket/nih", 1e-3),
        ("a=s3://bucket/nih", "s3://bucket/nih", 1.0),
        ("a=s3://bucket:3", "s3://bucket", 3.0),
        ("a=https://host:9000/nih", "https://host:9000/nih", 1.0),
        ("a=https://host:9000/nih:17", "https://host:9000/nih", 17.0),
        ("a=http://host:9000", "http://host:9000", 1.0),
        ("a=http://host:9000:2.5", "http://host:9000", 2.5),
        ("a=my:set:1", "my:set", 1.0),
        ("a=../x.shards", "../x.shards", 1.0),
    ],
)
def test_a_member_is_a_name_a_dataset_with_or_without_colons_and_a_weight(text: str, url: str, weight: float) -> None:
    assert MemberSpec.typed(text) == MemberSpec("a", url, weight)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shards/nih", "names no member: write NAME=DATASET:WEIGHT"),
        ("=shards", "names no member"),
        ("a=", "names no member"),
        ("a=:1", "names no dataset"),
        ("a=x:1,5", "'1,5' is no weight of a: write a number with a decimal point, as a=x:1.5"),
        ("a=x:y", "'y' is no weight of a: .* a=x:y:1"),
        ("a=x:", "'' is no weight"),
        ("a=x:1:2", "'a=x:1:2' has two weights: write one, as a=x:2$"),
        ("a=s3://bucket/x:1:0.5", "has two weights: write one, as a=s3://bucket/x:0.5$"),
        ("a=x:0", "the weight 0 of a must be above 0 and at most 1,000"),
        ("a=x:-1", "the weight -1 of a"),
        ("a=x:nan", "the weight nan of a"),
        ("a=x:inf", "the weight inf of a"),
        ("a=x:1001", "the weight 1001 of a"),
        ("a/b=x", "'a/b' is no name for a member"),
        ("0x=x", "'0x' is no name"),
        ("a=mix.json:1", "mix.json .a. is no dataset: of a mixture, name the members one by one"),
        ("a=s3://bucket/mix.json", "is no dataset: of a mixture"),
        ("a=s3://key:secret@bucket/x:1", r"the url of a, s3://\*\*\*@bucket/x, holds a password"),
    ],
)
def test_what_is_no_member_is_refused_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        MemberSpec.typed(text)
    assert "secret" not in str(caught.value)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    members = [
        MemberSpec("a", str(tmp_path / "a"), 0.25, "1", "zscore"),
        MemberSpec("b", "s3://bucket/b", 3.0, "2", (0.5, 0.25)),
    ]
    mixture.write(str(tmp_path / "x.json"), members)
    assert mixture.read(str(tmp_path / "x.json")) == members
    mixture.write(str(tmp_path / "x.json"), members[:1])
    assert mixture.read(str(tmp_path / "x.json")) == members[:1]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "a mixture needs a member"),
        ([MemberSpec("a", "x", 1.0, "1"), MemberSpec("a", "y", 1.0, "2")], "two members are called a"),
        (
            [MemberSpec("a", "x", 1.0, "1"), MemberSpec("b", "y", 1.5, "1")],
            "a and b are the same dataset: name it once, with the weight 2.5",
        ),
    ],
)
def test_members_that_make_no_mixture_are_refused(tmp_path: Path, members: list[MemberSpec], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        mixture.write(str(tmp_path / "x.json"), members)
    assert not list(tmp_path.iterdir())


def test_no_other_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ArgumentError, match=r"dataset.json is there and is no mixture: name another file"):
        mixture.write(str(tmp_path / "dataset.json"), [MemberSpec("a", "x", 1.0, "1")])
    assert (tmp_path / "dataset.json").read_text() == "{}"
    with pytest.raises(ArgumentError, match=r"end it with .json"):
        mixture.write(str(tmp_path / "mix"), [MemberSpec("a", "x", 1.0, "1")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no mixture: run shardkit mix again"),
        ("[" * 100_000, "is no mixture"),
        ("[]", "no mixture of this version"),
        ('{"format": 2, "members": []}', "no mixture of this version"),
        ('{"format": 1, "members": {}}', "no mixture of this version"),
        ('{"format": 1, "members": []}', "needs a member"),
        *(
            (json.dumps({"format": 1, "members": [change]}), words)
            for change, words in (
                ("nih", "member 0 does not have digest, name, url, weight"),
                ({k: v for k, v in SOUND.items() if k != "weight"}, "member 0 does not have"),
                (SOUND | {"weigth": 2}, "member 0 does not have"),
                (SOUND | {"url": 1}, "a field of another type"),
                (SOUND | {"normalise": [1]}, "a field of another type"),
                (SOUND | {"normalise": {}}, "a field of another type"),
                (SOUND | {"weight": "1"}, "the weight of nih is no number"),
                (SOUND | {"weight": True}, "the weight of nih is no number"),
                (SOUND | {"weight": float("nan")}, "the weight of nih is no number"),
                (SOUND | {"weight": 0}, "the weight 0 of nih must be above 0"),
                (SOUND | {"name": "../x"}, "is no name for a member"),
                (SOUND | {"url": "other.json"}, "is no dataset: of a mixture"),
            )
        ),
    ],
)
def test_a_file_that_is_no_mixture_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(IntegrityError, match=words) as caught:
        mixture.read(str(tmp_path / "x.json"))
    assert str(tmp_path / "x.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    for path in (tmp_path / "x.json", tmp_path / "nowhere" / "x.json"):
        with pytest.raises(ArgumentError, match=r"x\.json does not exist"):
            mixture.read(str(path))


def test_a_url_in_a_file_on_a_bucket_is_seen_from_there() -> None:
    from shardkit.dataset.mixture import _resolved
    from shardkit.storage import Store

    bucket = Store("s3://bucket/mixes/")
    for url, wanted in (
        ("nih", "s3://bucket/mixes/nih"),
        ("../sets/nih", "s3://bucket/sets/nih"),
        ("/data/nih", "/data/nih"),
        ("gs://other/nih", "gs://other/nih"),
    ):
        assert _resolved(url, bucket) == wanted

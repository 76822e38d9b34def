"""`shardkit mix`, and the commands that take a mixture as they take a dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit import Loader, Packed
from shardkit.build.transcode import Target, transcode
from shardkit.cli import run
from shardkit.loader.manifest_index import ManifestIndex

TEXT = "packed:patch=16,per_step=2,tokens=512"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """(words of a command) -> exit code and what it said, on one line; in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        code = run([str(word) for word in words])
        told = capsys.readouterr()
        return code, " ".join((told.out + told.err).split())

    return call


def test_mix_writes_a_file_and_says_what_each_member_is_of_an_epoch(members: dict[str, Path], said: Any) -> None:
    tars, zarr = (ManifestIndex(str(members[name])) for name in ("tars", "zarr"))
    code, told = said(
        "mix", "mix.json", f"a={members['tars']}:2", f"b={members['zarr']}:0.5", "--normalise", "b=0.5,0.25"
    )
    assert code == 0, told
    shown = 2 * tars.rows, 0.5 * zarr.rows
    share = 100 * shown[0] / sum(shown)
    assert f"a {tars.rows} {tars.description.pixels / 1e6:,.1f} 2 {shown[0]} {share:.1f} %" in told
    written = json.loads(Path("mix.json").read_text())
    assert written == {
        "format": 1,
        "members": [
            {"name": "a", "url": str(members["tars"]), "weight": 2, "digest": tars.digest},
            {
                "name": "b",
                "url": str(members["zarr"]),
                "weight": 0.5,
                "normalise": [0.5, 0.25],
                "digest": zarr.digest,
            },
        ],
    }
    loader = Loader("mix.json", batching=Packed(tokens=512), split=None, device="cpu")
    assert f"mix.json: mixture {loader.state_dict()['manifest_digest'][:12]}" in told


def test_mix_says_which_members_hold_the_same_images(members: dict[str, Path], said: Any, tmp_path: Path) -> None:
    url, copy = str(members["tars"]), str(tmp_path / "copy")
    transcode(url, Target(copy, "zarr", "blosc", 0, None), 1)
    code, told = said("mix", "mix.json", f"a={url}", f"b={copy}")
    assert code == 0, told
    assert f"{url} and {copy} share {ManifestIndex(url).rows:,} images by their pixels" in told
    assert f"to look for nearly the same images: shardkit overlap {url} {copy}" in told
    code, told = said("mix", "mix.json", f"a={url}", f"b={members['zarr']}")
    assert "share" not in told.split("mix.json")[1]


def test_what_a_plan_says_of_a_mixture_is_its_epochs_and_what_mix_says_is_a_mean(
    members: dict[str, Path], said: Any
) -> None:
    """Of weight 0.3, an epoch shows a sample more or less than another one."""
    rows = ManifestIndex(str(members["tars"])).rows
    told = said("mix", "mix.json", f"a={members['tars']}:1.3", f"b={members['zarr']}:0.3")[1]
    assert re.search(r"\ball [\d,]+ [\d.,]+ about [\d,]+", told), told
    plan = Loader("mix.json", batching=TEXT, split=None, device="cpu").plan
    of_a = int((plan.draws.sample(np.arange(len(plan.draws))) < rows).sum())
    told = said("plan", "mix.json", "--batching", TEXT, "--split", "all")[1]
    assert re.search(rf"\ba {rows} [\d.,]+ 1\.3 {of_a} ", told), told
    assert re.search(rf"\ball [\d,]+ [\d.,]+ {len(plan.draws)}\b", told), told


def test_plan_and_replay_take_a_mixture(members: dict[str, Path], said: Any) -> None:
    said("mix", "mix.json", f"a={members['tars']}:2.5", f"b={members['zarr']}:0.25")
    code, told = said("plan", "mix.json", "--batching", TEXT, "--split", "all")
    assert code == 0, told
    account = Loader("mix.json", batching=TEXT, split=None, device="cpu").account()
    assert f"{account.samples:,} samples in {account.steps:,} steps" in told
    for words in ("member samples Mpx weight", "their member", "their patient", "to read every shard only once ever"):
        assert words in told
    code, told = said("replay", "mix.json", "--batching", TEXT, "--step", 0, "-o", "step.png")
    assert code == 0, told
    assert "images of step 0 of epoch 0" in told


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("x.json",), "a mixture needs a member"),
        (("x", "a={tars}"), "x is no name for a mixture's file: end it with .json"),
        (("x.json", "a={tars}", "a={zarr}"), "two members are called a"),
        (("x.json", "a={tars}", "b={tars}:2"), "a and b are the same dataset: name it once, with the weight 3"),
        (("x.json", "a=nowhere"), "a of x.json: the folder"),
        (("x.json", "a={tars}:1,5"), "'1,5' is no weight of a"),
        (("x.json", "a={tars}", "--normalise", "b=zscore"), "--normalise b=zscore names no member"),
        (("x.json", "a={tars}", "--normalise", "a=bright"), "normalise='bright' is unknown: none, percentile"),
        (("x.json", "a={tars}", "--normalise", "a=1,x"), "--normalise 1,x must be two numbers"),
        (("{tars}/dataset.json", "a={tars}"), "dataset.json is there and is no mixture: name another file"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_a_sentence_and_nothing_is_written(
    members: dict[str, Path], said: Any, words: tuple[str, ...], wanted: str
) -> None:
    code, told = said("mix", *(word.format(**members) for word in words))
    assert code == 1
    assert wanted in told
    assert not list(Path().iterdir())


def test_a_mixture_of_a_mixture_is_refused(members: dict[str, Path], said: Any) -> None:
    said("mix", "x.json", f"a={members['tars']}")
    code, told = said("mix", "y.json", "b=x.json:0.5")
    assert code == 1
    assert "x.json (b) is no dataset: of a mixture, name the members one by one" in told

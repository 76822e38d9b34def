"""Sites may have their labels under other names: each is asked about its own, and the page names all of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardkit import labels
from shardkit.storage import Store
from tests.trainer.evaluate.folders import page, put
from tests.trainer.tasks.conftest import by_patient, put_labels
from trainer.commands.cli import run as command
from trainer.evaluate.page.write import SCORES
from trainer.evaluate.predictions import Predictions, read, write

SMALL = """
--labels sizes --objective.columns high wide --model.width 16 --model.depth 1 --model.heads 2
--loader.batching packed:level=2,patch=8,per_step=2,tokens=1024 --run.steps 1 --val.every 0 --select.metric=
--log.pictures 0 --log.baseline 0 --log.no-tensorboard --loader.normalise zscore
"""


def _about(html: str) -> str:
    body = re.sub(r"<(svg|style).*?</\1>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body))


def test_a_page_of_several_labels_tables_names_all_and_each_where_it_is_of(tmp_path: Path) -> None:
    put(tmp_path, site="nih", labels="nih14")
    put(tmp_path, site="hannover", labels="findings")
    html = page(tmp_path)
    assert re.search(r"<title>[^<]*(nih14, findings|findings, nih14) at ", html)
    assert re.search(r"Labels (nih14, findings|findings, nih14) · 2 labels", _about(html))
    cells = re.findall(r'class="name">(\w+)</span>.*?<span>labels (\w+)</span>', html)
    assert sorted(cells) == [("hannover", "findings"), ("nih", "nih14")]


def test_a_page_of_one_labels_table_names_it_once(tmp_path: Path) -> None:
    for site in ("nih", "hannover"):
        put(tmp_path, site=site)
    html = page(tmp_path)
    assert "Labels findings · 2 labels" in _about(html)
    assert "<span>labels findings</span>" not in html


@pytest.fixture(scope="module")
def place(synthetic: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on `one`, and with `two`, a copy whose labels have another name."""
    folder = tmp_path_factory.mktemp("sites")
    for site in ("one", "two"):
        shutil.copytree(synthetic("webdataset"), folder / site)
        put_labels(folder / site, {"one": "sizes", "two": "measured"}[site], by_patient)
    assert command(["finetune", "--data", str(folder / "one"), "--out", str(folder / "run"), *SMALL.split()]) == 0
    return folder


def _evaluate(place: Path, out: Path, *more: str) -> int:
    sites = [str(place / site) for site in ("one", "two")]
    words = ["evaluate", str(place / "run"), "--data", *sites, "--split", "all", "--bootstrap", "100", "--no-pictures"]
    return command([*words, "--out", str(out), *more])


def test_sites_are_asked_about_labels_of_their_own_names(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _evaluate(place, tmp_path) == 1
    assert "has no labels named sizes: there are measured; --labels takes one name for each dataset, too" in " ".join(
        capsys.readouterr().err.split()
    )
    assert _evaluate(place, tmp_path, "--labels", "sizes", "measured") == 0
    files = [tmp_path / "run" / site / "predictions.parquet" for site in ("one", "two")]
    assert [read(path).about.labels for path in files] == ["sizes", "measured"]


def test_the_page_says_what_happened_to_grey_levels(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(place / "run"), "--data", str(place / "one"), "--bootstrap", "100", "--no-pictures"]
    assert command([*words, "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / SCORES).read_text())["runs"][0]["about"][0]["normalise"] == "zscore"
    row = re.search(r"run at one.*?</tr>", (tmp_path / "index.html").read_text().split('id="files"')[1], re.S)
    assert row is not None
    assert "zscore" in row[0]
    path = tmp_path / "run" / "one" / "predictions.parquet"
    made = read(path)
    write(Predictions(replace(made.about, normalise=""), made.table), path)  # as they were kept before
    capsys.readouterr()
    assert command([*words, "--out", str(tmp_path)]) == 0
    assert "predicted already" in capsys.readouterr().out


def test_labels_that_changed_under_their_name_replace_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(place / "one", tmp_path / "one")
    words = ["evaluate", str(place / "run"), "--data", str(own), "--bootstrap", "100", "--no-pictures"]
    words += ["--split", "all", "--out", str(tmp_path / "page")]
    assert command(words) == 0
    path = tmp_path / "page" / "run" / "one" / "predictions.parquet"
    before, digest = path.read_bytes(), labels.read(Store(str(own)), "sizes").digest
    put_labels(own, "sizes", lambda rows: rows[0].update(high=1 - abs(rows[0]["high"])))
    now = labels.read(Store(str(own)), "sizes").digest
    capsys.readouterr()
    assert command(words) == 1
    assert (
        f"{path} is of the labels sizes as they were ({digest[:12]}), and they have changed since ({now[:12]}): name"
        " another --out, or remove it" in " ".join(capsys.readouterr().err.split())
    )
    assert path.read_bytes() == before

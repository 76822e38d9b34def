"""The report: one self-contained page whose numbers are the dataset's, whatever the dataset holds."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from shardkit import triage
from shardkit.dataset import manifest
from shardkit.dataset.bins import THESIS, Bin, Bins
from shardkit.dataset.description import DatasetDescription
from shardkit.report import dataset_page, gallery, size
from shardkit.storage import Store

Made = tuple[pa.Table, DatasetDescription]
Tags = Callable[[str], set[str]]
Make = Callable[..., Made]
Write = Callable[[Path, pa.Table, DatasetDescription], str]
Describe = Callable[..., DatasetDescription]


def cells(html: str) -> list[str]:
    """The page's texts between tags, unescaped."""
    return [unescape(part).strip() for part in re.split(r"<[^>]*>", html) if part.strip()]


def test_the_page_is_well_formed_and_needs_nothing_but_itself(html: str, tags: Tags) -> None:
    assert not tags(html) & {"script", "link", "iframe", "object", "base"}
    assert not re.search(r"https?://|//\w+\.|@import|url\(", html)
    sources = re.findall(r"src=[\"']?([^\"' >]*)", html)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(link.startswith("#") for link in re.findall(r"href=[\"']?([^\"' >]*)", html))


def test_no_path_of_the_store_stands_in_the_page(html: str, folder: Path) -> None:
    assert str(folder) not in html
    assert "shards/" not in html


def test_the_headline_gives_the_numbers_of_the_description(html: str, made: Made) -> None:
    description = made[1]
    shown = cells(html)
    tile = {name: shown[shown.index(name) + 1] for name in reversed(shown[:-1])}
    assert tile["Files in"] == "1,252"
    assert tile["Samples written"] == "12"
    assert tile["Stored images"] == size(description.bytes)
    assert f"{description.bytes:,} bytes" in shown
    assert tile["Lossless ratio"] == f"{2 * description.pixels / description.bytes:.2f} : 1"
    assert tile["Shards"] == "3"
    assert tile["Split: train"] == str(description.splits["train"])
    assert tile["Padding to bins"] == f"{100 * (description.padded_tokens / description.tokens - 1):.1f} %"
    assert f"{description.padded_tokens:,}" in shown
    assert description.digest[:12] in shown
    assert "Metadata are allow-listed, pixels are not cleaned." in shown


def test_every_reason_stands_with_its_sentence_its_count_and_its_remedy(html: str, made: Made) -> None:
    shown = cells(html)
    for reason, sentence in (("not_an_image", triage.DROPS["not_an_image"]), ("blank", triage.DROPS["blank"])):
        at = shown.index(reason)
        assert shown[at + 1 : at + 3] == [sentence, f"{made[1].verdicts['dropped'][reason]:,}"]
    at = shown.index("truncated")
    ledger = "shardkit ledger DATASET --private PRIVATE --class truncated"
    retry = "shardkit retry --class truncated --source EXPORT --out DATASET --private PRIVATE"
    assert shown[at + 1 : at + 5] == [triage.QUARANTINES["truncated"], ledger, retry, "3"]


def test_the_table_of_bins_adds_up_to_the_description(html: str, made: Made) -> None:
    samples, description = made
    bins = description.bins
    shown = cells(html)
    counts = []
    for one in bins.bins:
        at = shown.index(f"{one.height:,} × {one.width:,}")
        counts.append(int(shown[at + 1]))
    assert counts == list(bins.account(samples["height"].to_numpy(), samples["width"].to_numpy()).counts)
    at = shown.index("All")
    assert shown[at + 1 : at + 3] == [str(description.samples), str(description.shards)]


def test_counts_that_do_not_agree_are_pointed_out(folder: Path, made: Made, html: str, page: Write) -> None:
    samples, description = made
    assert "shardkit verify DATASET" not in html
    short = page(folder, samples, replace(description, verdicts={"written": {"ok": 7}}))
    assert "Verdicts count 7 files written, the description 12 samples and the manifest 12: run <code>" in short
    assert "shardkit verify DATASET" in cells(short)


def test_hostile_strings_are_shown_and_never_obeyed(
    folder: Path, made: Made, tags: Tags, page: Write, describe: Describe
) -> None:
    samples, description = made
    evil = "\"><script>alert('x')</script>&amp;"
    rows = samples.to_pylist()
    for row in rows:
        row |= dict.fromkeys(("body_part", "view", "modality", "manufacturer", "transfer_syntax", "split"), evil)
        row |= {"flags": [evil], "repairs": [evil], "key": evil + row["key"], "group": evil}
    hostile = pa.Table.from_pylist(rows, manifest.SCHEMA)
    changes: dict[str, Any] = {
        "verdicts": {"written": {evil: 12}, "quarantined": {evil: 1}},
        "arguments": {evil: [evil]},
        "digest": evil,
    }
    described = describe(hostile, description.bins, **changes)
    html = page(folder, hostile, described)
    assert "script" not in tags(html)
    assert "<script" not in html
    assert "&amp;amp;" in html


def test_equal_inputs_give_equal_bytes_in_any_order_of_rows(
    tmp_path: Path, folder: Path, made: Made, html: str, page: Write
) -> None:
    samples, description = made
    assert page(folder, samples, description) == html
    backwards = samples.take(np.arange(samples.num_rows)[::-1])
    assert page(folder, backwards, description) == html


def test_a_dataset_without_samples_still_has_a_page(
    tmp_path: Path, tags: Tags, page: Write, describe: Describe
) -> None:
    samples = manifest.SCHEMA.empty_table()
    for bins in (Bins(THESIS, 48), Bins((Bin(48, 48),), 48)):
        html = page(tmp_path, samples, describe(samples, bins, verdicts={"dropped": {"blank": 5}}))
        tags(html)
        shown = cells(html)
        assert shown[shown.index("Files in") + 1] == "5"
        assert shown[shown.index("Lossless ratio") + 1] == "–"
        assert "<img" not in html


@pytest.mark.parametrize("damage", ["missing", "cut", "overwritten"])
def test_a_sample_that_cannot_be_read_shows_its_key_and_no_picture(
    tmp_path: Path, damage: str, page: Write, make: Make
) -> None:
    samples, description = make(tmp_path, count=6)
    bad = samples.to_pylist()[0]
    shard = tmp_path / bad["shard"]
    if damage == "missing":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[: bad["offset"] + 10])
    else:
        whole = bytearray(shard.read_bytes())
        whole[bad["offset"] : bad["offset"] + bad["length"]] = b"\xff" * bad["length"]
        shard.write_bytes(bytes(whole))
    html = page(tmp_path, samples, description)
    assert f"cannot be read, run verify<br><code>{bad['key']}</code>" in html
    assert f'alt="{bad["key"]}' not in html
    assert html.count("<img") >= 4


def test_a_picture_is_small_and_keeps_the_shape_of_its_image(html: str) -> None:
    pictures = [base64.b64decode(found) for found in re.findall(r"base64,([^\"]+)", html)]
    assert max(map(len, pictures)) <= 12_000
    for data in pictures:
        with Image.open(BytesIO(data)) as picture:
            assert picture.mode == "L"
            assert 160 <= max(picture.size) <= 224


def test_pictures_read_only_the_bytes_of_the_level_they_show(folder: Path, made: Made) -> None:
    class Counting(Store):
        read = 0

        def get_range(self, name: str, start: int, length: int) -> bytes:
            self.read = max(self.read, length)
            return super().get_range(name, start, length)

    samples, description = made
    store = Counting(str(folder))
    dataset_page.write(store, samples, description)
    large = [row["level_bytes"][1] for row in samples.to_pylist() if max(row["height"], row["width"]) >= 320]
    assert 0 < store.read <= max(large)


def test_codecs_without_levels_are_shown_too(tmp_path: Path, page: Write, make: Make) -> None:
    html = page(tmp_path, *make(tmp_path, "png", 6))
    assert html.count("<img") >= 4
    assert "cannot be read" not in html


def test_suspects_and_near_duplicates_are_shown_apart(html: str) -> None:
    _, polarity, rest = re.split(r"<h2>(?:Polarity|Burned-in text) suspects</h2>", html)
    assert re.findall(r'alt="0*(\d)-', polarity) == ["2", "3"]
    assert "Shown: 2 of 2." in polarity
    assert "Shown: 0 of 0." in rest
    near = rest.split("<h2>Near-duplicates</h2>")[1]
    assert re.findall(r'alt="0*(\w)-', near) == ["a", "b"]
    assert "2 alike" in near


def test_many_samples_and_bins_make_no_larger_page(
    tmp_path: Path, tags: Tags, page: Write, describe: Describe, many: Callable[[int], pa.Table]
) -> None:
    samples = many(20_000)
    html = page(tmp_path, samples, describe(samples, Bins(THESIS, 48)))
    tags(html)
    assert len(html) < 250_000
    assert html.count("<figure") <= gallery.PICTURES
    assert "up to 3 a bin and 120 in all" in html
    assert "30 others" in html

"""The report: one self-contained page whose numbers are the dataset's, whatever the dataset holds."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from shardkit import content, triage
from shardkit.codecs import codec
from shardkit.dataset import contents, manifest
from shardkit.dataset.bins import THESIS, Bin, Bins
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.hashes import fingerprint
from shardkit.formats.webdataset import ShardWriter
from shardkit.report import dataset_page
from shardkit.report.charts import SizeMap, percent, size
from shardkit.storage import Store
from shardkit.synthetic.radiographs import radiograph, synth_sizes

BINS = Bins((Bin(384, 288), Bin(480, 480), Bin(768, 768)), 48)
VERDICTS = {
    "written": {"ok": 11, "ok_repaired": 1},
    "dropped": {"not_an_image": 1234, "blank": 2},
    "quarantined": {"truncated": 3, "decode_error": 1},
}
SIZES = [(380, 280), (300, 250), (470, 400), (400, 470), (700, 640), (760, 300)]
Made = tuple[pa.Table, DatasetDescription]
Tags = Callable[[str], set[str]]


def make(folder: Path, codec_name: str = "htj2k", count: int = 12) -> Made:
    """A small dataset: one shard a bin, some flags, a group of near-duplicates."""
    shapes = [SIZES[i % len(SIZES)] for i in range(count)]
    index = BINS.assign(*np.array(shapes, np.int64).reshape(-1, 2).T)
    rows = []
    for number in np.unique(index):
        one = BINS.bins[number]
        shard = f"shards/{one.name}/00000.tar"
        (folder / shard).parent.mkdir(parents=True, exist_ok=True)
        with ShardWriter(folder / shard) as writer:
            rows += [
                sample(writer, shard, one, int(i), *shapes[i], codec_name) for i in np.flatnonzero(index == number)
            ]
    samples = pa.Table.from_pylist(rows, manifest.SCHEMA)
    return samples, describe(samples, BINS, codec_name)


def describe(samples: pa.Table, bins: Bins, codec_name: str = "htj2k", **changes: Any) -> DatasetDescription:
    """dataset.json as a build would write it, read back from JSON."""
    described = contents.describe(
        samples,
        bins,
        manifest.digest(samples),
        format_name="webdataset",
        codec_name=codec_name,
        fingerprint="0123abcd",
        arguments={"bins": "auto:3", "modalities": ["CR", "DX"]},
        verdicts=VERDICTS,
    )
    return DatasetDescription.from_content(json.loads(described.to_json()) | changes)


def sample(writer: ShardWriter, shard: str, one: Bin, i: int, high: int, wide: int, codec_name: str) -> dict[str, Any]:
    """A manifest row of a synthetic picture that `writer` now holds."""
    module = codec(codec_name)
    pixels = radiograph(high, wide, 12, np.random.default_rng(i), "hand")
    box, key, data = content.Box(10, 20, high - 30, wide - 40), f"{i:020x}-{i:012x}", module.encode(pixels)
    return {
        "key": key, "shard": shard, "offset": writer.add(key, module.EXTENSION, data, b"{}"), "length": len(data),
        "level_bytes": module.prefixes(data),
        "level_hash": [fingerprint(data[:n]) for n in module.prefixes(data)],
        "height": high, "width": wide, "bits": 12, "bin_height": one.height,
        "bin_width": one.width, **{f"box_{k}": v for k, v in asdict(box).items()},
        **asdict(content.statistics(pixels, content.find_content(pixels).mask)), "inverted": i % 2 == 0, "lossy": False,
        "transfer_syntax": "1.2.840.10008.1.2.1", "modality": "DX", "body_part": "hand" if i else None, "view": "PA",
        "manufacturer": "Agfa", "repairs": ["jpeg_sos"] if i == 5 else [], "split": "train" if i % 4 else "test",
        "flags": ["polarity_suspect"] if i in (2, 3) else ["near_duplicate"] if i > 9 else [],
        "group": "g" if i > 9 else None,
    }  # fmt: skip


def page(folder: Path, samples: pa.Table, description: DatasetDescription) -> str:
    store = Store(str(folder))
    dataset_page.write(store, samples, description)
    return store.get(dataset_page.NAME).decode()


def cells(html: str) -> list[str]:
    """The page's texts between tags, unescaped."""
    return [unescape(part).strip() for part in re.split(r"<[^>]*>", html) if part.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dataset")


@pytest.fixture(scope="module")
def made(folder: Path) -> Made:
    return make(folder)


@pytest.fixture(scope="module")
def html(folder: Path, made: Made) -> str:
    return page(folder, *made)


def test_the_page_is_well_formed_and_needs_nothing_but_itself(html: str, tags: Tags) -> None:
    assert not tags(html) & {"script", "link", "iframe", "object", "base"}
    assert not re.search(r"https?://|//\w+\.|@import|url\(", html)
    sources = re.findall(r"(?:src|href)=[\"']?([^\"' >]*)", html)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


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


def test_every_reason_stands_with_its_sentence_its_count_and_its_remedy(html: str) -> None:
    shown = cells(html)
    for reason, sentence in (("not_an_image", triage.DROPS["not_an_image"]), ("blank", triage.DROPS["blank"])):
        at = shown.index(reason)
        assert shown[at + 1 : at + 3] == [sentence, f"{VERDICTS['dropped'][reason]:,}"]
    at = shown.index("truncated")
    ledger = "shardkit ledger DATASET --private PRIVATE --class truncated"
    retry = "shardkit retry --class truncated --source EXPORT --out DATASET --private PRIVATE"
    assert shown[at + 1 : at + 5] == [triage.QUARANTINES["truncated"], ledger, retry, "3"]


def test_the_table_of_bins_adds_up_to_the_description(html: str, made: Made) -> None:
    samples, description = made
    shown = cells(html)
    counts = []
    for one in BINS.bins:
        at = shown.index(f"{one.height:,} × {one.width:,}")
        counts.append(int(shown[at + 1]))
    assert counts == list(BINS.account(samples["height"].to_numpy(), samples["width"].to_numpy()).counts)
    at = shown.index("All")
    assert shown[at + 1 : at + 3] == [str(description.samples), str(description.shards)]


def test_counts_that_do_not_agree_are_pointed_out(folder: Path, made: Made, html: str) -> None:
    samples, description = made
    assert "shardkit verify DATASET" not in html
    short = page(folder, samples, replace(description, verdicts={"written": {"ok": 7}}))
    assert "Verdicts count 7 files written, the description 12 samples and the manifest 12: run <code>" in short
    assert "shardkit verify DATASET" in cells(short)


def test_hostile_strings_are_shown_and_never_obeyed(folder: Path, made: Made, tags: Tags) -> None:
    samples, _ = made
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
    described = describe(hostile, BINS, **changes)
    html = page(folder, hostile, described)
    assert "script" not in tags(html)
    assert "<script" not in html
    assert "&amp;amp;" in html


def test_equal_inputs_give_equal_bytes_in_any_order_of_rows(
    tmp_path: Path, folder: Path, made: Made, html: str
) -> None:
    samples, description = made
    assert page(folder, samples, description) == html
    backwards = samples.take(np.arange(samples.num_rows)[::-1])
    assert page(folder, backwards, description) == html


def test_a_dataset_without_samples_still_has_a_page(tmp_path: Path, tags: Tags) -> None:
    samples = manifest.SCHEMA.empty_table()
    for bins in (BINS, Bins((Bin(48, 48),), 48)):
        html = page(tmp_path, samples, describe(samples, bins, verdicts={"dropped": {"blank": 5}}))
        tags(html)
        shown = cells(html)
        assert shown[shown.index("Files in") + 1] == "5"
        assert shown[shown.index("Lossless ratio") + 1] == "–"
        assert "<img" not in html


@pytest.mark.parametrize("damage", ["missing", "cut", "overwritten"])
def test_a_sample_that_cannot_be_read_shows_its_key_and_no_picture(tmp_path: Path, damage: str) -> None:
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
    assert f'alt="{bad["key"]}"' not in html
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


def test_codecs_without_levels_are_shown_too(tmp_path: Path) -> None:
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


def many(n: int) -> pa.Table:
    """A manifest of `n` samples over the published sizes and bins, without any pixels behind it."""
    heights, widths, _ = synth_sizes(n, np.random.default_rng(0))
    at = Bins(THESIS, 48).assign(heights, widths)
    columns: dict[str, Any] = {
        "key": [f"{i:032x}" for i in range(n)],
        "shard": np.char.add("shards/", at.astype(str)).tolist(),
        "length": np.full(n, 1000),
        "offset": np.zeros(n, np.int64),
        "level_bytes": [[1000]] * n,
        "level_hash": [[bytes(16)]] * n,
        "height": heights,
        "width": widths,
        "bits": np.full(n, 12),
        "bin_height": np.array([b.height for b in THESIS])[at],
        "bin_width": np.array([b.width for b in THESIS])[at],
        "body_part": [f"part {i % 50:02d}" for i in range(n)],
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in manifest.SCHEMA]
    return pa.Table.from_arrays(arrays, schema=manifest.SCHEMA)


def test_many_samples_and_bins_make_no_larger_page(tmp_path: Path, tags: Tags) -> None:
    samples = many(20_000)
    html = page(tmp_path, samples, describe(samples, Bins(THESIS, 48)))
    tags(html)
    assert len(html) < 250_000
    assert html.count("<figure") <= dataset_page.PICTURES
    assert "up to 3 a bin and 120 in all" in html
    assert "30 others" in html
    labels = re.findall(r'<text class="count" x="([\d.]+)" y="([\d.]+)">([\d,]+)<', html)
    boxes = [(float(x) - 6 * len(label), float(y) - 10, float(x), float(y)) for x, y, label in labels]
    assert len(boxes) >= 30
    for i, a in enumerate(boxes):
        assert all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in boxes[:i])


def test_the_map_parts_sizes_as_the_bins_assign_them() -> None:
    bins = Bins((Bin(480, 960), Bin(720, 720), Bin(960, 480), Bin(1440, 528), Bin(1440, 1440)), 48)
    heights, widths = np.random.default_rng(0).integers(1, 1441, (2, 2000))
    drawing = SizeMap(heights, widths, [(b.height, b.width, 0) for b in bins.bins], 48)
    rows, cols, owners = drawing._owners()
    found = owners[np.searchsorted(rows, heights), np.searchsorted(cols, widths)]
    assert np.array_equal(found, bins.assign(heights, widths))


def test_units_and_shares_read_well() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345, 999_999, 1_234_567_890)] == [
        "0 bytes", "999 bytes", "1.00 kB", "12.3 kB", "1.00 MB", "1.23 GB",
    ]  # fmt: skip
    assert percent(1, 0) == "–"
    assert percent(1, 1_000_000) == "&lt; 0.1 %"
    assert percent(1, 3) == "33.3 %"

"""Text in the pixels of an export: found, flagged, dropped or painted over, and said where in the manifest."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom.uid as uids
import pytest

from shardkit import burned_in
from shardkit.build import checks, journal, run
from shardkit.burned_in import detection
from shardkit.config import BuildConfig
from shardkit.dataset import contents, manifest, schema
from shardkit.dataset.hashes import pixel_hash
from shardkit.dataset.verify import verify
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.storage import Store, parquet
from shardkit.synthetic.export import plan_export
from shardkit.synthetic.planted_text import drawn, plant
from shardkit.synthetic.records import ImageSpec, header, radiograph_of, set_pixels, stored, to_bytes

TEXT = "DOE JANE 14.02.1963"
Picture = npt.NDArray[np.uint16]


@pytest.fixture(scope="module")
def specs() -> list[ImageSpec]:
    """Three files of different patients, of one size, one of them MONOCHROME1."""
    found = [spec for spec in plan_export(40, seed=5, defects=0.0, scale=0.3) if spec.region in ("chest", "knee")]
    chosen = list({spec.study.patient.number: spec for spec in found}.values())[:3]
    assert len(chosen) == 3
    plain: dict[str, Any] = {"height": 640, "width": 560, "bits": 12, "syntax": "1.2.840.10008.1.2.1", "modality": "DX"}
    kinds = ("MONOCHROME2", "MONOCHROME1", "MONOCHROME2")
    return [replace(spec, **plain, photometric=kind) for spec, kind in zip(chosen, kinds, strict=True)]


def _with(picture: Picture, text: str) -> Picture:
    return plant(picture, 12, drawn(text, "sans", 24), text, (20, 30))[0]


@pytest.fixture(scope="module")
def pictures(specs: list[ImageSpec]) -> dict[str, Picture]:
    """A name, a marker and nothing: pictures by the file's name."""
    texts = (TEXT, "WEIGHT BEARING", "")
    return {
        f"{number}.dcm": _with(radiograph_of(spec), text) if text else radiograph_of(spec)
        for number, (spec, text) in enumerate(zip(specs, texts, strict=True))
    }


@pytest.fixture(scope="module")
def export(specs: list[ImageSpec], pictures: dict[str, Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("text") / "export"
    place.mkdir()
    for spec, (name, picture) in zip(specs, pictures.items(), strict=True):
        ds = header(spec)
        set_pixels(ds, stored(spec, picture), spec.syntax)
        (place / name).write_bytes(to_bytes(ds))
    return place


def _built(export: Path, place: Path, **changes: Any) -> tuple[Store, dict[str, dict[str, Any]], dict[str, Any]]:
    """Build; the store, the ledger by path, and the manifest's rows by path."""
    out, private = place / "out", place / "private"
    run.build(BuildConfig.of(str(export), str(out), private, workers=1, accept_outcome=True, **changes))
    ledger = {row["path"]: row for row in pq.read_table(private / "ledger.parquet").to_pylist()}
    store = Store(str(out))
    rows = {row["key"]: row for row in contents.samples(store).to_pylist()}
    return store, ledger, {path: rows.get(row["key"]) for path, row in ledger.items()}


def _pixels(store: Store, row: Any) -> Picture:
    return contents.image(store, row, contents.description(store))


@pytest.fixture(scope="module")
def flagged(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _built(export, tmp_path_factory.mktemp("flag"))


def test_text_is_flagged_and_markers_are_told_from_it(flagged: Any, pictures: dict[str, Picture]) -> None:
    store, ledger, rows = flagged
    assert {path: (row["verdict"], row["flags"]) for path, row in ledger.items()} == {
        "0.dcm": ("written", ["burned_in_suspect"]),
        "1.dcm": ("written", []),
        "2.dcm": ("written", []),
    }
    assert [rows[path]["text_kind"] for path in sorted(rows)] == [["text"], ["marker"], None]
    for path, picture in pictures.items():
        np.testing.assert_array_equal(_pixels(store, rows[path]), picture)
    top, left, height, width = rows["0.dcm"]["text_box"]
    assert top <= 30 < top + height <= 60
    assert left <= 45 < left + width
    assert 0.5 < rows["0.dcm"]["text_confidence"][0] <= 1


def test_what_a_text_says_is_nowhere(flagged: Any) -> None:
    store, _, _ = flagged
    for path in (p for p in store.root.rglob("*") if p.is_file()):
        assert b"DOE" not in path.read_bytes()
    assert "DOE" not in str(contents.samples(store).to_pylist())


def test_a_sample_s_json_says_where_text_is(flagged: Any) -> None:
    store, _, rows = flagged
    members = {}
    for path in store.root.rglob("*.tar"):
        with tarfile.open(path) as shard:
            for name in (n for n in shard.getnames() if n.endswith(".json")):
                members[name.removesuffix(".json")] = json.load(shard.extractfile(name))  # type: ignore[arg-type]
    assert members[rows["0.dcm"]["key"]]["text_box"] == rows["0.dcm"]["text_box"]
    assert "text_box" not in members[rows["2.dcm"]["key"]]


def test_the_report_shows_the_lines(flagged: Any) -> None:
    store, _, rows = flagged
    page = (store.root / "report" / "index.html").read_text()
    section = page[page.index('id="burned_in_suspect"') :]
    section = section[: section.index("</section>")]
    assert "Shown: 1 of 1." in section
    assert rows["0.dcm"]["key"][:10] in section
    assert "px at row" in section


def test_text_is_painted_over_and_markers_are_not(export: Path, pictures: dict[str, Picture], tmp_path: Path) -> None:
    store, ledger, rows = _built(export, tmp_path, burned_in="blank")
    assert {path: (row["reason"], row["repairs"], row["flags"]) for path, row in ledger.items()} == {
        "0.dcm": ("ok_repaired", ["text_blanked"], []),
        "1.dcm": ("ok", [], []),
        "2.dcm": ("ok", [], []),
    }
    blanked = _pixels(store, rows["0.dcm"])
    assert rows["0.dcm"]["pixel_hash"] == pixel_hash(blanked, 12) != pixel_hash(pictures["0.dcm"], 12)
    top, left, height, width = rows["0.dcm"]["text_box"]
    assert len(np.unique(blanked[top : top + height, left : left + width])) == 1
    assert int(rows["0.dcm"]["max"]) == int(blanked.max())
    changed = blanked != pictures["0.dcm"]
    assert not changed[top + height + 30 :].any()
    assert detection.find(blanked, 12) == []
    for path in ("1.dcm", "2.dcm"):
        np.testing.assert_array_equal(_pixels(store, rows[path]), pictures[path])
    assert not [found for found in verify(str(store.root), decode=True, workers=1) if isinstance(found, str)]


def test_images_with_text_are_dropped_if_asked(export: Path, tmp_path: Path) -> None:
    _, ledger, _ = _built(export, tmp_path, burned_in="drop")
    assert {path: (row["verdict"], row["reason"]) for path, row in ledger.items()} == {
        "0.dcm": ("dropped", "burned_in_text"),
        "1.dcm": ("written", "ok"),
        "2.dcm": ("written", "ok"),
    }
    assert ledger["0.dcm"]["message"] == "1 line of text in the pixels, and --burned-in is drop"


@pytest.mark.parametrize("mode", ["drop", "blank"])
def test_without_the_extra_neither_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str) -> None:
    monkeypatch.setattr(checks, "has_ocr", lambda: False)
    config = BuildConfig.of("a", str(tmp_path / "b"), tmp_path / "c", burned_in=mode)
    with pytest.raises(ArgumentError, match=rf"--burned-in {mode} .* pip install 'shardkit\[ocr\]'"):
        checks.check_values(config)
    checks.check_values(BuildConfig.of("a", str(tmp_path / "b"), tmp_path / "c"))


def test_without_the_extra_all_lines_are_flagged_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, pictures: dict[str, Picture], export: Path, tmp_path: Path
) -> None:
    for module in (detection, run):
        monkeypatch.setattr(module, "has_ocr", lambda: False)
    for name in ("0.dcm", "1.dcm"):
        assert [line.kind for line in burned_in.find(pictures[name], 12)] == ["unreadable"]
    outcome = run.build(BuildConfig.of(str(export), str(tmp_path / "out"), tmp_path / "private", accept_outcome=True))
    assert [line for line in outcome.told if "shardkit[ocr]" in line] == [run._UNREAD]


def test_a_header_that_says_that_somebody_may_be_recognised_is_believed(
    specs: list[ImageSpec], pictures: dict[str, Picture], tmp_path: Path
) -> None:
    (tmp_path / "export").mkdir()
    for spec, (name, value) in zip(specs, (("yes.dcm", "YES"), ("no.dcm", "NO")), strict=False):
        ds = header(spec)
        ds.RecognizableVisualFeatures = value
        set_pixels(ds, stored(spec, radiograph_of(spec)), spec.syntax)
        (tmp_path / "export" / name).write_bytes(to_bytes(ds))
    _, ledger, _ = _built(tmp_path / "export", tmp_path)
    assert {path: row["reason"] for path, row in ledger.items()} == {"yes.dcm": "recognizable", "no.dcm": "ok"}


@pytest.mark.parametrize(
    ("tags", "flagged"),
    [
        ({"SOPClassUID": uids.SecondaryCaptureImageStorage}, True),  # as of a screen
        ({"ConversionType": "DF"}, True),  # a digitised film
        ({"ConversionType": "DI"}, False),
        ({"ConversionType": "DOE JANE"}, False),
    ],
    ids=str,
)
def test_captures_say_so_and_are_searched_as_all_others(
    specs: list[ImageSpec], pictures: dict[str, Picture], judge: Any, tags: dict[str, str], flagged: bool
) -> None:
    ds = header(specs[0])
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    set_pixels(ds, stored(specs[0], pictures["0.dcm"]), specs[0].syntax)
    outcome = judge(to_bytes(ds))
    assert outcome.verdict == "written"
    assert outcome.converted.flags == (*(["secondary_capture"] if flagged else []), "burned_in_suspect")
    assert outcome.converted.facts["text_kind"] == ["text"]


@pytest.mark.parametrize("mode", ["flag", "blank"])
def test_an_overlay_is_neither_drawn_into_the_pixels_nor_kept(
    specs: list[ImageSpec], tmp_path: Path, mode: str
) -> None:
    picture = radiograph_of(specs[0])
    plane = np.zeros(picture.shape, np.uint8)
    ink = drawn(TEXT, "sans", 24) > 0.5
    plane[20 : 20 + ink.shape[0], 30 : 30 + ink.shape[1]] = ink
    data = np.packbits(plane, axis=None, bitorder="little").tobytes()
    ds = header(specs[0])
    set_pixels(ds, stored(specs[0], picture), specs[0].syntax)
    for group in (0x6000, 0x601E):
        for element, vr, what in (
            (0x10, "US", picture.shape[0]), (0x11, "US", picture.shape[1]), (0x22, "LO", TEXT), (0x40, "CS", "G"),
            (0x50, "SS", [1, 1]), (0x100, "US", 1), (0x102, "US", 0), (0x3000, "OW", data),
        ):  # fmt: skip
            ds.add_new((group, element), vr, what)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "a.dcm").write_bytes(to_bytes(ds))
    store, ledger, rows = _built(tmp_path / "export", tmp_path, burned_in=mode)
    assert (ledger["a.dcm"]["reason"], ledger["a.dcm"]["flags"]) == ("ok", [])
    np.testing.assert_array_equal(_pixels(store, rows["a.dcm"]), picture)
    assert store.root is not None
    for path in (p for p in store.root.rglob("*") if p.is_file()):
        assert b"DOE" not in path.read_bytes()
        assert data[data.find(b"\xff") :][:64] not in path.read_bytes()


# ---- the manifest's columns


def test_a_manifest_without_text_has_the_digest_that_it_always_had(flagged: Any) -> None:
    store, _, _ = flagged
    table = contents.samples(store)
    old = table.drop_columns(list(manifest.LATER))
    silent = parquet.completed(old, manifest.SCHEMA, manifest.LATER).select(manifest.SCHEMA.names)
    assert manifest.digest(silent) != manifest.digest(table)
    empty = silent.set_column(
        silent.schema.get_field_index("text_kind"), "text_kind", pa.array([[]] * silent.num_rows, pa.list_(pa.string()))
    )
    assert manifest.digest(empty) != manifest.digest(silent)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text_box": [0, 0, 641, 10]}, "outside of the image"),
        ({"text_box": [-1, 0, 10, 10]}, "outside of the image"),
        ({"text_box": [0, 0, 0, 10]}, "outside of the image"),
        ({"text_box": [0, 0, 10]}, "not a box and a kind each"),
        ({"text_kind": ["name"]}, "the kind of a line of text is none of text, marker, unreadable"),
        ({"text_kind": None}, "not a box and a kind each"),
        ({"text_confidence": [1.5]}, "confidence"),
        ({"text_confidence": [float("nan")]}, "confidence"),
    ],
    ids=str,
)
def test_a_manifest_says_nothing_impossible_of_text(flagged: Any, changes: dict[str, Any], says: str) -> None:
    store, _, _ = flagged
    rows = contents.samples(store).to_pylist()
    at = next(i for i, row in enumerate(rows) if row["text_kind"] == ["text"])
    check = schema.ManifestCheck(contents.description(store), "manifest.parquet")
    for batch in pa.Table.from_pylist(rows, manifest.SCHEMA).to_batches():
        check.check(batch)
    rows[at] |= changes
    check = schema.ManifestCheck(contents.description(store), "manifest.parquet")
    with pytest.raises(IntegrityError, match=rf"row {at}: .*{says}"):
        check.check(pa.Table.from_pylist(rows, manifest.SCHEMA).combine_chunks().to_batches()[0])


def test_a_journal_of_an_earlier_version_says_nothing_of_text(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    row = dict.fromkeys(journal.SCHEMA.names)
    journal.write(store, 0, "shards/48x48/00000.tar", [row])
    path = tmp_path / journal.object_name(0, "shards/48x48/00000.tar")
    pq.write_table(pq.read_table(path).drop_columns(list(manifest.LATER)), path)
    for columns in (None, ["key", "text_box"]):
        found = journal.read(store, 0, "shards/48x48/00000.tar", columns)
        assert found["text_box"].to_pylist() == [None]

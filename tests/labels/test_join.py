"""Joins: every row ends in one of three ways, values reach the samples that they name, and nobody is named."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit import labels
from shardkit.dataset import contents
from shardkit.errors import ArgumentError
from shardkit.labels import LabelRows
from shardkit.labels.joining.join import NoMatch, joined, label
from shardkit.labels.targets import read_key, read_targets
from shardkit.report.dataset_page import write as write_page
from shardkit.storage import Store, spill
from shardkit.synthetic.records import ImageSpec
from tests.labels.conftest import Place

VALUES = st.sampled_from([1, 0, -1, None])


def rows_of(by: Any, references: list[str], values: list[int | None], **more: Any) -> LabelRows:
    return LabelRows(by, references, pa.table({"Edema": pa.array(values, pa.int8())}), **more)


def column(place: Place, name: str = "findings", label: str = "Edema") -> dict[str, Any]:
    table = labels.read(Store(place.url), name).table
    return dict(zip(table["key"].to_pylist(), table[label].to_pylist(), strict=True))


def spelled(path: str, how: str) -> str:
    """A path as tables spell it."""
    name = path.rpartition("/")[2]
    return {
        "whole": path,
        "above": f"/data/exports/{path}",
        "dot": f"./{path}",
        "windows": path.replace("/", "\\"),
        "below": "/".join(path.split("/")[1:]) or path,
        "name": name,
        "stem": name.removesuffix(".dcm"),
    }[how]


def fitting(reference: str, files: Iterable[str]) -> list[str]:
    """The files that a reference means: by whole path; else those of which one is the other's end."""
    plain = reference.replace("\\", "/").removeprefix("./").lstrip("/")
    if not plain or plain in files:
        return [plain] if plain else []
    if above := [path for path in files if plain.endswith(f"/{path}")]:
        return above
    return [path for path in files if f"/{path}".endswith(f"/{plain}") or f"/{stem(path)}".endswith(f"/{plain}")]


def stem(path: str) -> str:
    return re.sub(r"\.[A-Za-z]\w{0,5}$", "", path)


@settings(max_examples=40)
@given(data=st.data())
def test_every_row_ends_matched_ambiguous_or_unmatched_as_one_by_one(built: Path, data: st.DataObject) -> None:
    """Held against a join that looks at each row and each file."""
    place = opened(built)
    files = place["files"]
    how = data.draw(st.sampled_from(["whole", "above", "dot", "windows", "below", "name", "stem"]))
    chosen = data.draw(st.lists(st.tuples(st.sampled_from(sorted(files)), VALUES), min_size=1, max_size=30))
    strange = data.draw(st.lists(st.sampled_from(["", "nowhere", "x/y.dcm", "🩻"]), max_size=3))
    references = [spelled(path, how) for path, _ in chosen] + strange
    values = [value for _, value in chosen] + [1] * len(strange)
    made, outcome, conflicts, _ = joined(
        "x", rows_of("path", references, values, vote="first"), place["samples"], place["targets"], place["name"]
    )
    fates, own, copies = Counter[str](), dict[str, int | None](), dict[str, dict[str, int | None]]()
    for reference, value in zip(references, values, strict=True):
        fits = fitting(reference, files)
        keys = {files[path]["key"] for path in fits if files[path]["sample"]}
        images = [path for path in fits if files[path]["reason"] not in ("not_dicom", "empty_file", "not_an_image")]
        if not keys:
            fates["unmatched" if len(images) < 2 else "ambiguous"] += 1
        elif len(images) > 1 and (len(keys) > 1 or not all(files[path]["sample"] for path in images)):
            fates["ambiguous"] += 1
        else:
            fates["matched"] += 1
            for path in (path for path in fits if files[path]["sample"]):
                if files[path]["verdict"] == "written":
                    own.setdefault(files[path]["key"], value)
                else:
                    copies.setdefault(files[path]["key"], {}).setdefault(path, value)
    assert {what: outcome.rows[what] for what in ("matched", "ambiguous", "unmatched")} == {
        what: fates[what] for what in ("matched", "ambiguous", "unmatched")
    }
    assert sum(outcome.rows.values()) == len(references)
    assert sum(outcome.lost.values()) == outcome.rows["unmatched"]
    found = dict(zip(made.table["key"].to_pylist(), made.table["Edema"].to_pylist(), strict=True))
    assert found.keys() == own.keys() | copies.keys()
    for key, value in found.items():
        said = [own[key]] if key in own else []
        said += list(copies.get(key, {}).values())
        known = {one for one in said if one is not None}
        contradicted = key in {conflict.key for conflict in conflicts}
        assert contradicted == (said[0] is not None and len(known) > 1) or key not in own
        if not contradicted and key in own:
            assert value == own[key]


def opened(built: Path) -> dict[str, Any]:
    """What a join needs of the shared dataset, read once."""
    if not _OPENED.get(built):
        store, private = Store(str(built / "dataset")), built / "dataset.private"
        samples = contents.samples(store)
        rows = pq.read_table(private / "ledger.parquet").to_pylist()
        files = {
            row["path"]: row | {"sample": row["verdict"] == "written" or row["reason"] == "duplicate_exact"}
            for row in rows
        }
        _OPENED[built] = {
            "samples": samples,
            "targets": read_targets(private, samples),
            "name": read_key(private, contents.description(store)),
            "files": files,
        }
    return _OPENED[built]


_OPENED: dict[Path, dict[str, Any]] = {}


def test_rows_of_studies_patients_and_accessions_reach_all_their_images(place: Place) -> None:
    written = place.written()
    texts: dict[str, Callable[[ImageSpec], str]] = {
        "study": lambda spec: spec.study.uid,
        "accession": lambda spec: spec.study.accession,
        "patient": lambda spec: spec.study.patient.number,
    }
    for by, text in texts.items():
        specs = [spec for spec in place.specs if spec.path in written]
        specs = [spec for spec in specs if by != "patient" or spec.defect != "no_patient_id"]
        references = sorted({text(spec) for spec in specs})
        values = {reference: i % 2 for i, reference in enumerate(references)}
        level = "patient" if by == "patient" else "study"
        rows = rows_of(by, references, list(values.values()), level=level)
        done = label(place.url, "findings", rows, place.private)
        assert done.outcome.rows == {"matched": len(references), "ambiguous": 0, "unmatched": 0}
        found = column(place)
        conflicts = {conflict.key for conflict in done.conflicts}
        wrong = [
            spec.path
            for spec in specs
            if (key := written[spec.path]) not in conflicts and found[key] != values[text(spec)]
        ]
        assert wrong == []


def test_rows_come_by_uid_and_by_key_too(place: Place) -> None:
    written = place.written()
    of_uid: dict[str, list[str]] = {}
    for spec in place.specs:
        if spec.path in written:
            of_uid.setdefault(spec.sop_uid, []).append(written[spec.path])
    uids = sorted(of_uid)
    values: list[int | None] = [i % 2 for i in range(len(uids))]
    done = label(place.url, "findings", rows_of("sop", uids, values), place.private)
    shared = {uid for uid, keys in of_uid.items() if len(keys) > 1}  # one UID on different pixels
    assert shared
    assert done.outcome.rows == {"matched": len(uids) - len(shared), "ambiguous": len(shared), "unmatched": 0}
    found = column(place)
    wanted = {of_uid[uid][0]: value for uid, value in zip(uids, values, strict=True) if uid not in shared}
    assert found == wanted
    keys = sorted(written.values())
    label(place.url, "findings", rows_of("key", keys, [1] * len(keys)), place.private)
    assert set(column(place).values()) == {1}


def test_no_clear_identifier_is_stored_or_printed(place: Place, run: Callable[..., tuple[int, str, str]]) -> None:
    header = ["Path", "SOPInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID", "Edema", "note"]
    rows = [
        [s.path, s.sop_uid, s.study.uid, s.study.accession, s.study.patient.number, 1, s.study.physician]
        for s in place.specs
    ]
    table = place.table(header, [*rows, ["a/b.dcm", "1.2.3", "1.2.3.4", "ACC0", "NOBODY1", 0, "?"]])
    texts = [text for text in place.identifiers if len(text) >= 6]
    for by in ("path", "name", "sop", "study", "accession", "patient"):
        words = ["label", place.dataset, "--name", by, "--table", table, "--by", by, "--private", place.private]
        code, out, err = run(*words, "--vote", "majority", "--labels", "Edema")
        assert code == 0, err
        _, more, _ = run("labels", place.dataset, "--private", place.private)
        leaked = [text for text in texts if text in out + err + more]
        assert leaked == []
    store = Store(place.url)
    write_page(store, contents.samples(store), contents.description(store))
    for path in (path for path in place.dataset.rglob("*") if path.is_file()):
        stored = path.read_bytes()
        if path.suffix == ".parquet":  # compressed
            content = pq.read_table(path)
            stored += json.dumps(content.to_pylist(), default=str, ensure_ascii=False).encode()
            stored += repr(content.schema.metadata).encode()
        assert [text for text in texts if text.encode() in stored] == [], path
    assert labels.names(Store(place.url)) == sorted(["path", "name", "sop", "study", "accession", "patient"])


def test_labels_change_no_shard_nor_the_manifest(place: Place, run: Callable[..., tuple[int, str, str]]) -> None:
    def others() -> dict[str, bytes]:
        files = (path for path in sorted(place.dataset.rglob("*")) if path.is_file())
        names = {str(path.relative_to(place.dataset)): path.read_bytes() for path in files}
        return {name: data for name, data in names.items() if not name.startswith(("labels/", "report/"))}

    before = others()
    paths = sorted(place.written())
    first = label(place.url, "findings", rows_of("path", paths, [1] * len(paths)), place.private)
    again = label(place.url, "findings", rows_of("path", paths, [1] * len(paths)), place.private)
    assert (first.changed, again.changed, again.labels.digest) == (True, False, first.labels.digest)
    second = label(place.url, "findings", rows_of("path", paths, [0] * len(paths)), place.private)
    assert second.labels.description.replaces == first.labels.digest
    assert others() == before
    assert run("verify", place.dataset)[0] == 0
    assert run("unlabel", place.dataset, "--name", "findings")[0] == 0
    assert others() == before
    assert labels.names(Store(place.url)) == []


def test_a_new_version_says_what_it_loses(place: Place, run: Callable[..., tuple[int, str, str]]) -> None:
    paths = sorted(place.written())
    header = ["path", "covid", "mass", "nodule", "split"]
    lines = [[path, i % 2, 1, 0, "test" if i % 2 else "train"] for i, path in enumerate(paths)]
    table = place.table(header, lines)
    boxes = place.table(["path", "label", "x", "y", "w", "h"], [[path, "mass", 0, 0, 1, 1] for path in paths[:3]], "b")
    words = ["label", place.dataset, "--name", "x", "--table", table, "--by", "path", "--private", place.private]
    code, out, err = run(*words, "--split-column", "split", "--boxes", boxes)
    assert (code, "loses" in out + err) == (0, False)
    assert "x: 3 labels of " in out
    code, out, err = run(*words, "--split-column", "split", "--boxes", boxes)
    assert (code, "loses" in out + err, "unchanged" in out) == (0, False, True)
    code, _, err = run(*words, "--labels", "covid", "--kind", "covid=number")
    said = "loses the official split, 3 boxes and 2 labels (mass, nodule); covid was binary, is number"
    assert f"x: the new version {said}\n" in err
    assert "loses" not in "".join(run(*words, "--labels", "covid", "mass", "--kind", "covid=number")[1:])
    assert "x: the new version loses 1 label (mass)\n" in run(*words, "--labels", "covid", "--kind", "covid=number")[2]


def test_labels_of_a_collection_are_replaced_by_its_build_only(
    place: Place, run: Callable[..., tuple[int, str, str]]
) -> None:
    paths = sorted(place.written())
    first = label(place.url, "nih14", rows_of("path", paths, [1] * len(paths), collection="nih14"), place.private)
    table = place.table(["path", "Edema"], [[path, 0] for path in paths])
    words = ["--name", "nih14", "--table", table, "--by", "path", "--private", place.private]
    code, _, err = run("label", place.dataset, *words)
    said = "labels nih14 are written by the build of the collection nih14: take another --name, or remove them first"
    assert (code, said in err, err.count("\n")) == (1, True, 1)
    assert labels.read(Store(place.url), "nih14").digest == first.labels.digest
    rows = rows_of("path", paths, [0] * len(paths), collection="nih14")
    assert label(place.url, "nih14", rows, place.private).changed  # the build of a grown source
    assert run("unlabel", place.dataset, "--name", "nih14")[0] == 0
    assert run("label", place.dataset, *words)[0] == 0


@pytest.mark.usefixtures("page")
def test_a_damaged_table_beside_does_not_hinder_a_new_one(
    place: Place, run: Callable[..., tuple[int, str, str]]
) -> None:
    paths, store = sorted(place.written()), Store(place.url)
    store.put("labels/other.parquet", b"PAR1")
    table = place.table(["path", "Edema", "split"], [[path, 0, "test"] for path in paths])
    words = ["--name", "x", "--table", table, "--by", "path", "--private", place.private]
    code, _, err = run("label", place.dataset, *words, "--split-column", "split")
    assert (code, err) == (0, "")
    assert "It cannot be read: run shardkit label again." in (place.dataset / "report" / "index.html").read_text()
    store.put("labels/x.parquet", b"damaged, too")
    assert run("label", place.dataset, *words)[0] == 0


def test_rows_of_files_without_a_sample_are_counted_by_reason(place: Place) -> None:
    ledger = place.ledger()
    lost = Counter(
        row["reason"] for row in ledger if row["verdict"] != "written" and row["reason"] != "duplicate_exact"
    )
    assert len(lost) > 3
    paths = [row["path"] for row in ledger] + ["nowhere.dcm", ""]
    done = label(place.url, "findings", rows_of("path", paths, [1] * len(paths)), place.private)
    assert done.outcome.lost == dict(sorted((lost + Counter({"no reference": 1, "not in the export": 1})).items()))
    assert done.outcome.rows["unmatched"] == sum(lost.values()) + 2
    assert done.outcome.duplicates == sum(row["reason"] == "duplicate_exact" for row in ledger) > 0
    assert done.outcome.unmatched_rows[-1] == len(paths) + 1


def test_a_duplicate_s_row_is_compared_with_the_kept_sample_s(place: Place) -> None:
    copies = {row["path"]: row["key"] for row in place.ledger() if row["reason"] == "duplicate_exact"}
    written = place.written()
    copy, key = next(iter(sorted(copies.items())))
    kept = next(path for path, found in written.items() if found == key)
    done = label(place.url, "findings", rows_of("path", [copy, kept], [0, 1], split=["test", "train"]), place.private)
    assert [(c.key, c.column, c.rows) for c in done.conflicts] == [(key, "Edema", (3, 2)), (key, "split", (3, 2))]
    assert (column(place)[key], column(place, label="split")[key]) == (None, None)
    pairs: list[tuple[list[int | None], int | None]] = [([0, 0], 0), ([None, 1], 1), ([1, None], None)]
    for values, expected in pairs:
        done = label(place.url, "findings", rows_of("path", [copy, kept], values), place.private)
        assert (done.conflicts, column(place)[key]) == ((), expected)
    label(place.url, "findings", rows_of("path", [copy], [1]), place.private)
    assert column(place) == {key: 1}  # the same pixels


@pytest.mark.usefixtures("page")
def test_a_manifest_on_disk_gives_the_labels_and_the_page_of_one_in_memory(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, private = sorted(place.written()), tmp_path / "private"
    shutil.copytree(place.private, private)
    rows = rows_of("path", paths, [i % 2 for i in range(len(paths))], split=["train"] * len(paths))
    kept = label(place.url, "findings", rows, private)
    page = (place.dataset / "report" / "index.html").read_bytes()
    before = sorted(path.name for path in private.iterdir())
    labels.remove(Store(place.url), "findings")
    monkeypatch.setattr(spill, "BLOCK", 1)
    monkeypatch.setattr(contents, "samples", None)
    found = label(place.url, "findings", rows, private)
    assert (found.labels.digest, found.unlabelled) == (kept.labels.digest, kept.unlabelled)
    assert (place.dataset / "report" / "index.html").read_bytes() == page
    assert sorted(path.name for path in private.iterdir()) == before


def test_a_table_that_matches_nothing_is_not_written(place: Place) -> None:
    with pytest.raises(NoMatch, match=r"none of the table's 2 rows belongs to a sample by study \(no reference 1, not"):
        label(place.url, "findings", rows_of("study", ["1.2", " "], [1, 1], level="study"), place.private)
    assert labels.names(Store(place.url)) == []


def test_labels_of_a_study_are_the_same_on_all_its_images(place: Place) -> None:
    written = place.written()
    of_study: dict[str, list[str]] = {}
    for row in place.manifest():
        of_study.setdefault(row["study"], []).append(row["key"])
    keys = next(keys for keys in of_study.values() if len(keys) > 1)[:2]
    paths = [next(path for path, key in written.items() if key == one) for one in keys]
    rows = rows_of("path", paths, [1, 0], level="study")
    with pytest.raises(ArgumentError, match="rows 2 and 3 are of one study, and differ in Edema: mend them, or say"):
        label(place.url, "findings", rows, place.private)
    label(place.url, "findings", rows_of("path", paths, [1, 0]), place.private)
    assert [column(place)[key] for key in keys] == [1, 0]


def test_a_private_folder_that_is_another_dataset_s_is_refused(place: Place, tmp_path: Path) -> None:
    rows = rows_of("path", ["x"], [1])
    with pytest.raises(ArgumentError, match=r"holds no pseudonym.key: name the --private folder"):
        label(place.url, "findings", rows, tmp_path)
    assert not (tmp_path / "pseudonym.key").exists()
    (tmp_path / "pseudonym.key").write_bytes(bytes(32))
    with pytest.raises(ArgumentError, match="is another dataset's key"):
        label(place.url, "findings", rows, tmp_path)
    (tmp_path / "pseudonym.key").write_bytes((place.private / "pseudonym.key").read_bytes())
    with pytest.raises(ArgumentError, match=r"holds no ledger.parquet"):
        label(place.url, "findings", rows, tmp_path)


def test_a_ledger_of_before_there_were_accessions_says_what_can_be_used(place: Place, tmp_path: Path) -> None:
    old = tmp_path / "private"
    old.mkdir()
    (old / "pseudonym.key").write_bytes((place.private / "pseudonym.key").read_bytes())
    table = pq.read_table(place.private / "ledger.parquet")
    written = place.written()
    spec = next(spec for spec in place.specs if spec.path in written)
    nulls = pa.nulls(table.num_rows, pa.string())
    pseudonyms = ["sop", "study", "series", "accession", "patient"]
    without = table.drop_columns(pseudonyms)
    empty = without
    for name in pseudonyms:
        empty = empty.append_column(name, nulls)
    for earlier in (without, empty):
        pq.write_table(earlier, old / "ledger.parquet")
        said = "--by accession cannot be used: .* use --by path, name, sop, study or patient, or build again"
        with pytest.raises(ArgumentError, match=said):
            label(place.url, "findings", rows_of("accession", [spec.study.accession], [1], level="study"), old)
        for by, text in (
            ("sop", spec.sop_uid),
            ("study", spec.study.uid),
            ("patient", spec.study.patient.number),
            ("path", spec.path),
        ):
            label(place.url, "findings", rows_of(by, [text], [1]), old)
            assert column(place)[written[spec.path]] == 1

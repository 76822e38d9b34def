"""Builds with a table of facts: whom images are of, what cannot be told apart, and what is kept of it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit import labels
from shardkit.build import isolation
from shardkit.build.known_facts import KnownFacts
from shardkit.build.outcome import Outcome
from shardkit.build.run import build
from shardkit.config import BuildConfig
from shardkit.errors import ArgumentError, BuildError
from shardkit.sources.entries import Entry
from shardkit.sources.facts_table import made
from shardkit.storage import Store
from shardkit.synthetic.tree_writer import TreeWriter

KEY = bytes(range(32))
HEADER = "path,patient,study,accession,view,sex,age,spacing_row,spacing_col,bits,split"
ROWS = (
    "a/1.png,SECRET-P1,SECRET-S1,SECRET-A1,antero-posterior,Male,58,0.2,0.2,8,Training",
    "a/2.png,SECRET-P1,SECRET-S1,SECRET-A1,LL,Male,058Y,,,,Training",
    "3,SECRET-P2,SECRET-S2,SECRET-A2,PA,F,411,,,,test",
    "b/4.png,SECRET-P3,,,PA,F,30,,,,test",
    "b/4.png,SECRET-P4,,,PA,F,30,,,,test",
    "gone.png,SECRET-P5,,,PA,F,30,,,,val",
)
FILES = ("a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png")
Run = Callable[..., Outcome]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Five PNG files, and a table about four of them."""
    to = TreeWriter(tmp_path)
    for name in FILES:
        to.png(f"source/{name}")
    to.put("facts.csv", "\n".join([HEADER, *ROWS]) + "\n")
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "private" / "pseudonym.key").write_bytes(KEY)
    return tmp_path


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    """What runs all builds here: the children that it starts stay, and load their libraries once."""
    with ThreadPoolExecutor(1) as threads:
        yield threads
        isolation.close_children()


@pytest.fixture
def run(place: Path, executor: Executor) -> Run:
    """Build the files at `place`, with options of a build."""

    def make(**options: object) -> Outcome:
        config = BuildConfig.of(str(place / "source"), str(place / "out"), place / "private", workers=1, **options)
        return build(config, executor=executor)

    return make


def _manifest(place: Path, *columns: str) -> dict[str, list[object]]:
    return dict(pq.read_table(place / "out" / "manifest.parquet", columns=[*columns]).to_pydict())


def test_every_row_and_file_is_accounted_for_and_patients_are_as_the_table_says(place: Path, run: Run) -> None:
    outcome = run(facts=place / "facts.csv", demographics=True)
    assert outcome.counts["written"] == {"ok": 3}
    assert outcome.counts["quarantined"] == {"facts_ambiguous": 1, "not_dicom": 1}  # the last has no row
    name = place / "facts.csv"
    assert outcome.told == (
        f"{name}: 6 rows by the files that they name: 3 matched, 2 ambiguous, 1 unmatched; files without a row: 1",
        (
            "files named by rows that differ, or that name others, too: 1, quarantined as facts_ambiguous; write paths"
            " below --source to tell them apart"
        ),
        (
            f"{name}, column age: cells without a known meaning count as blank: 1 (first in row 4); known are years"
            " from 0 to 120, or DICOM's 058Y"
        ),
        (
            "labels facts: samples with a row 3, without 0; 6 rows by their samples: 3 matched, 0 ambiguous, 3"
            " unmatched (facts_ambiguous 2, not in the export 1)"
        ),
    )
    rows = _manifest(place, "patient", "study", "view", "sex", "age", "spacing_row", "bits", "flags")
    assert len(set(rows["patient"])) == len(set(rows["study"])) == 2
    assert sorted(map(str, rows["view"])) == ["AP", "LL", "PA"]
    assert sorted(map(str, rows["age"])) == ["55-59", "55-59", "None"]
    assert set(rows["sex"]) == {"M", "F"}
    assert sorted(map(str, rows["spacing_row"])) == ["0.2", "None", "None"]
    assert rows["flags"] == [[]] * 3  # a patient is known, in the conversion as well


def test_a_table_below_the_source_is_listed_as_what_it_is(place: Path, run: Run) -> None:
    """It is no image, and no file that lacks a row."""
    inside = place / "source" / "a" / "facts.csv"
    (place / "facts.csv").rename(inside)
    (place / "source" / "notes.csv").write_text("another table\n")
    outcome = run(facts=inside)
    assert outcome.counts["dropped"] == {"not_an_image": 1}
    assert outcome.counts["quarantined"] == {"facts_ambiguous": 1, "not_dicom": 2}, "b/5.png and notes.csv"
    assert outcome.told[0].endswith("files without a row: 2")


def test_the_split_of_a_table_is_a_table_of_labels_and_leaves_the_hash_split(place: Path, run: Run) -> None:
    run(facts=place / "facts.csv")
    table = labels.read(Store(str(place / "out")), "facts").table
    assert table.column_names == ["key", "split"]
    assert sorted(table["split"].to_pylist()) == ["test", "train", "train"]
    before = _manifest(place, "key", "split")
    (place / "facts.csv").write_text("\n".join([HEADER, *(row.replace("Training", "val") for row in ROWS)]) + "\n")
    run(facts=place / "facts.csv")
    assert _manifest(place, "key", "split") == before
    again = labels.read(Store(str(place / "out")), "facts").table
    assert sorted(again["split"].to_pylist()) == ["test", "val", "val"]


def test_no_clear_identifier_is_written_anywhere(place: Path, run: Run) -> None:
    run(facts=place / "facts.csv")
    for file in [*(place / "out").rglob("*"), *(place / "private").rglob("*")]:
        if file.is_file():
            assert b"SECRET" not in file.read_bytes(), file
        if file.suffix == ".parquet":
            assert "SECRET" not in str(pq.read_table(file).to_pydict()), file


def test_files_that_are_added_need_the_table_again(place: Path, run: Run) -> None:
    run(facts=place / "facts.csv")
    TreeWriter(place).png("source/a/6.png")
    with pytest.raises(BuildError, match="begun with --facts: name the table again"):
        run()
    (place / "facts.csv").write_text("\n".join([HEADER, *ROWS, "6.png,SECRET-P1,SECRET-S1,,PA,M,58,,,,test"]) + "\n")
    outcome = run(facts=place / "facts.csv")
    assert outcome.counts["written"] == {"ok": 4}
    rows = _manifest(place, "patient")
    assert len(set(rows["patient"])) == 2
    assert labels.read(Store(str(place / "out")), "facts").table.num_rows == 4


def test_quarantine_for_want_of_a_patient_heeds_what_the_table_says(place: Path, run: Run) -> None:
    outcome = run(facts=place / "facts.csv", missing_patient_id="quarantine", image_files=True)
    assert outcome.counts["written"] == {"ok": 3}
    assert outcome.counts["quarantined"] == {"facts_ambiguous": 1, "missing_patient_id": 1}


def test_samples_without_a_patient_are_counted_for_they_may_leak(place: Path, run: Run) -> None:
    outcome = run(facts=place / "facts.csv", image_files=True)
    assert "samples of unknown patients: 1; images of one may lie in different splits" in outcome.told


def test_copies_whose_rows_name_different_patients_are_counted(place: Path, run: Run) -> None:
    data = (place / "source" / "a" / "1.png").read_bytes()
    for name in ("a/2", "b/3", "b/4", "b/5"):  # of the same patient, of another, of one that is not clear, of none
        (place / "source" / f"{name}.png").write_bytes(data)
    outcome = run(facts=place / "facts.csv", image_files=True)
    assert outcome.counts["dropped"] == {"duplicate_exact": 3}
    assert (
        "exact copies that are of another patient than the sample that was kept: 1; such patients share a split"
        in outcome.told
    )


def test_a_table_about_other_files_and_options_that_contradict_are_refused(place: Path, run: Run) -> None:
    other = place / "other.csv"
    other.write_text("path,sex\nSECRET.dcm,M\n")
    with pytest.raises(ArgumentError, match="names a file of --source") as error:
        run(facts=other)
    assert "SECRET" not in str(error.value)
    with pytest.raises(ArgumentError, match="--collection has facts of its own"):
        run(facts=other, collection="nih14")
    with pytest.raises(ArgumentError, match="--facts-columns names columns of a table"):
        run(facts_columns={"path": "x"})


def test_a_member_of_an_archive_is_named_by_its_path_unpacked_or_in_the_archive() -> None:
    paths = {"x/a.zip/in/1.png": "x/in/1.png", "x/a.zip/in/2.png": "x/in/2.png", "x/b.zip/in/2.png": "x/in/2.png"}
    entries = [Entry(path.encode(), 1, "file", unpacked=name.encode()) for path, name in paths.items()]
    table = made("t", {"path": pa.array(["x/a.zip/in/1.png", "in/2.png"]), "patient": pa.array(["one", "two"])})
    known = KnownFacts(entries, table)
    told = [one.facts and one.facts.patient for one in map(known.of, entries)]
    assert told == ["one", "two", "two"]
    assert known.rows == {"matched": 2, "ambiguous": 0, "unmatched": 0}
    assert known.files == {"matched": 3, "ambiguous": 0, "unmatched": 0}


def test_files_get_their_rows_in_whatever_order_they_come_again() -> None:
    paths = [f"d{i % 7}/{i:05d}.png".encode() for i in range(10_000)]
    entries = [Entry(path, 1, "file") for path in sorted(paths)]
    named = {path.decode() for path in paths if path[-5:-4] != b"3"}
    rows = sorted(named, reverse=True)
    known = KnownFacts(entries, made("t", {"path": pa.array(rows), "patient": pa.array([f"of {row}" for row in rows])}))
    came = Entry(b"d1/new.png", 1, "file")
    for entry in (*entries, *entries[5000:5010], came, *entries[:3], entries[9999], *entries[4090:4100]):
        path, found = entry.path.decode(), known.of(entry)
        assert (found.facts and found.facts.patient) == (f"of {path}" if path in named else None)

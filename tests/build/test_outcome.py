"""What nobody can want of a build is said in a sentence, and only that; what retry recovered is counted."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest

from shardkit.build import outcome, scan_rows
from shardkit.config import Rules
from shardkit.storage import parquet, spill
from shardkit.synthetic import records
from shardkit.triage import DROPS
from tests.one_process import build

MODALITIES = Counter({"CR": 3, "none": 1200, "other": 5})


def _samples(count: int, **columns: list[str | None]) -> pa.Table:
    """`count` samples of as many patients, nine in ten in train, unless columns say otherwise."""
    usual: dict[str, list[Any]] = {
        "patient": [f"p{i}" for i in range(count)],
        "study": [f"s{i}" for i in range(count)],
        "group": [None] * count,
        "split": ["test" if i % 10 == 0 else "train" for i in range(count)],
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in {**usual, **columns}.items()})


def _complaints(samples: pa.Table, **counts: dict[str, int]) -> list[str]:
    counts = {"written": {"ok": samples.num_rows}, **counts}
    return list(outcome.unwanted(samples, counts, Rules(), lambda: MODALITIES))


def test_a_sound_dataset_is_not_complained_of() -> None:
    harmless = dict.fromkeys(outcome.BY_DESIGN, 1000)
    assert _complaints(_samples(100), dropped={"blank": 99, **harmless}, quarantined={"truncated": 5000}) == []


def test_no_sample_is_said_once_with_what_the_export_has() -> None:
    (said,) = _complaints(_samples(0), written={}, dropped={"not_an_image": 1200}, quarantined={"truncated": 8})
    assert said.startswith("no sample was written: 1,200 files were dropped and 8 quarantined")
    assert said.endswith("none 1,200, other 5, CR 3")


def test_an_empty_train_split_is_said_with_where_the_samples_are() -> None:
    (said,) = _complaints(_samples(3, split=["test", "val", "test"]))
    assert "train split (test has 2, val has 1)" in said


@pytest.mark.parametrize("block", [7, 1 << 15])
@pytest.mark.parametrize("column", ["patient", "study", "group"])
def test_one_of_anything_that_binds_a_split_may_not_have_most_samples(
    column: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "BLOCK", block)

    def tied(count: int, many: int) -> pa.Table:
        values: list[str | None] = [f"x{i}" for i in range(count)] if column != "group" else [None] * count
        return _samples(count, **{column: ["same"] * many + values[many:]})

    (said,) = _complaints(tied(60, 31))
    assert said.startswith(f"one {column}")
    assert "31 of 60 samples, all in the test split" in said
    assert "same" not in said.partition(":")[0]
    assert _complaints(tied(60, 30)) == []
    few = outcome.FEW
    assert [len(_complaints(tied(few, many))) for many in (few - 1, few)] == [0, 1]


def test_samples_are_read_as_often_whatever_most_of_a_block_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "BLOCK", 4)
    reads: list[int] = []

    class Counting(spill.Spill):
        def slice(self, start: int, length: int) -> pa.Table:
            reads.append(start)
            return super().slice(start, length)

        def select(self, names: Any) -> spill.Spill:
            return Counting(tmp_path / "rows", names=names)

    for patients in ([f"p{i // 4}" for i in range(100)], [f"p{i}" for i in range(100)]):
        reads.clear()
        table = _samples(100, patient=list(patients))
        with spill.writing(tmp_path / "rows", table.schema) as sink:
            sink.write(table)
        assert outcome.unwanted(Counting(tmp_path / "rows"), {}, Rules(), lambda: MODALITIES) == ()
        assert len(reads) <= 3 * 2 * 25


@pytest.mark.parametrize("reason", DROPS)
def test_a_rule_that_drops_most_images_is_named_unless_it_loses_none(reason: str) -> None:
    assert _complaints(_samples(50), dropped={reason: 50, "not_an_image": 500}) == []
    said = _complaints(_samples(50), dropped={reason: 51}, quarantined={"truncated": 500})
    if reason in outcome.BY_DESIGN:
        assert said == []
        return
    (sentence,) = said
    assert f"the rule {reason} dropped 51 of 101 images" in sentence
    assert ("none 1,200, other 5, CR 3" in sentence) == (reason == "modality_excluded")


def test_every_drop_that_is_no_loss_exists() -> None:
    assert set(DROPS) >= outcome.BY_DESIGN


def test_recovered_files_are_counted_and_the_rest_named() -> None:
    assert outcome.recovered({"ok": 2, "ok_repaired": 1}) == "3 of 3 recovered"
    said = outcome.recovered({"ok": 1, "decode_error": 1200, "duplicate_exact": 2})
    assert said == "1 of 1,203 recovered; the rest: decode_error 1,200, duplicate_exact 2"


# ---- builds


@pytest.fixture
def export(image_spec: Any, tmp_path: Path) -> Any:
    """(name, count, start, **tags) -> a folder with that many more small images, tags set, or deleted where None."""

    def make(name: str, count: int, start: int = 0, **tags: Any) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        for i in range(start, start + count):
            numbers = {"sop_uid": f"1.2.826.0.1.3680043.8.498.2.{i}", "seed": (5, i), "height": 64 + i, "width": 64}
            file = pydicom.dcmread(io.BytesIO(records.sound_bytes(image_spec(**numbers))))
            file.PatientID, file.StudyInstanceUID = f"PERSON-{i}", f"1.2.826.0.1.3680043.8.498.1.{i}"
            for keyword, value in tags.items():
                if value is None:
                    del file[keyword]
                else:
                    setattr(file, keyword, value)
            file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
            file.save_as(tmp_path / name / f"{i:03d}.dcm", enforce_file_format=False)
        return tmp_path / name

    return make


class Silent:
    """Progress that nobody watches."""

    def stage(self, name: str, total: int | None) -> None: ...
    def scanned(self, files: int) -> None: ...
    def converted(self, done: Any) -> None: ...


def _arguments(source: Path, **changes: Any) -> Any:
    from shardkit.config import BuildConfig

    private = source.with_name(f"{source.name} private")
    private.mkdir(exist_ok=True)
    if not (private / "pseudonym.key").exists():
        (private / "pseudonym.key").write_bytes(bytes(range(32)))
    options = {"codec": "raw", "bins": "auto:2", "workers": 1, **changes}
    return BuildConfig.of(str(source), str(source.with_name(f"{source.name} out")), private, **options)


def test_an_anonymised_export_builds_and_is_complained_of_every_time(export: Any) -> None:
    arguments = _arguments(export("anonymous", 24, PatientID="ANONYMOUS"))
    first = build(arguments, Silent())
    assert first.samples == 24
    assert any(said.startswith("one patient has 24 of 24 samples") for said in first.unwanted)
    assert not any("ANONYMOUS" in said for said in first.unwanted)
    again = build(arguments, Silent())
    assert (again.new_files, again.unwanted) == (0, first.unwanted)


def test_the_command_ends_with_4_unless_accepted_and_4_outweighs_3(
    export: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardkit import cli

    source = export("bare", 2, Modality=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    export("bare", 1, 2, Modality="QUELLWALD")
    (source / "notes.txt").write_text("no image")
    places = ["--source", str(source), "--out", f"{source} out", "--private", f"{source} private", "--workers", "1"]
    ends = [cli.run(["build", *places, *more]) for more in ([], ["--accept-outcome"])]
    ends.append(cli.run(["build", *places, "--accept-outcome", "--max-quarantine", "0.5"]))
    assert ends == [4, 3, 0]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "outcome: no sample was written: 3 files were dropped and 1 quarantined"
    assert "none 2, other 1" in said[1]
    assert "--max-quarantine" in said[2]
    assert said[3] == f"see why: shardkit ledger '{source} out' --private '{source} private'"
    assert said[4] == "if this is what you want: --accept-outcome"
    assert said[5:7] == said[:2]
    assert not any("QUELLWALD" in line for line in said)
    assert cli.run(["scan", "--source", str(source), "--workers", "1"]) == 0
    assert "modalities: none 2, other 1" in capsys.readouterr().out


def test_a_retry_counts_what_it_recovered(export: Any) -> None:
    source = export("mixed", 4)
    whole = [(source / f"{i:03d}.dcm").read_bytes() for i in range(3)]
    for i in range(3):
        (source / f"{i:03d}.dcm").write_bytes(b"")
    arguments = _arguments(source)
    assert build(arguments, Silent()).retried is None
    none = build(arguments, Silent(), retry="empty_file")
    assert none.retried == {"empty_file": 3}
    (source / "000.dcm").write_bytes(whole[0])
    (source / "001.dcm").write_bytes(b"text")
    some = build(arguments, Silent(), retry="empty_file")
    assert some.retried == {"empty_file": 1, "not_dicom": 1, "ok": 1}
    assert outcome.recovered(some.retried).startswith("1 of 3 recovered")


class Stops(Silent):
    """Interrupts a build when a stage begins."""

    def __init__(self, at: str) -> None:
        self.at = at

    def stage(self, name: str, total: int | None) -> None:
        if name == self.at:
            raise KeyboardInterrupt


def test_a_retry_that_finds_an_interrupted_run_finishes_it_and_is_done_too(export: Any) -> None:
    source = export("late", 2)
    whole = (source / "000.dcm").read_bytes()
    (source / "000.dcm").write_bytes(b"")
    arguments = _arguments(source)
    build(arguments, Silent())
    (source / "000.dcm").write_bytes(whole)
    export("late", 2, 2)  # new files, whose build is interrupted
    with pytest.raises(KeyboardInterrupt):
        build(arguments, Stops("assemble"))
    assert build(arguments, Silent(), retry="empty_file").retried == {"ok": 1}


def test_an_interrupted_retry_goes_on_and_counts_its_own_files(export: Any) -> None:
    source = export("broken", 2)
    whole = (source / "000.dcm").read_bytes()
    (source / "000.dcm").write_bytes(b"")
    arguments = _arguments(source)
    build(arguments, Silent())
    (source / "000.dcm").write_bytes(whole)
    with pytest.raises(KeyboardInterrupt):
        build(arguments, Stops("assemble"), retry="empty_file")
    assert build(arguments, Silent(), retry="empty_file").retried == {"ok": 1}


def test_modalities_count_a_file_that_was_scanned_again_once(export: Any) -> None:
    source = export("twice", 3)
    whole = (source / "000.dcm").read_bytes()
    (source / "000.dcm").write_bytes(whole[:-1000])
    arguments = _arguments(source)
    build(arguments, Silent())
    (source / "000.dcm").write_bytes(whole)
    assert build(arguments, Silent(), retry="truncated").retried == {"ok": 1}
    parts = sorted(arguments.private.glob("g*/scan/*.parquet"))
    assert len(parts) == 2
    assert scan_rows.modalities(parts) == scan_rows.modalities(parts[:1]) == Counter({"CR": 3})
    _forget_modalities(parts[0])
    assert scan_rows.modalities(parts) == Counter({"CR": 1})


def test_a_build_that_an_earlier_version_scanned_for_goes_on(export: Any) -> None:
    arguments = _arguments(export("early", 2))
    with pytest.raises(KeyboardInterrupt):
        build(arguments, Stops("plan"))
    _forget_modalities(arguments.private / "g000" / "scan" / "00000.parquet")
    assert build(arguments, Silent()).samples == 2


def _forget_modalities(part: Path) -> None:
    """Make a scan part what it was before modalities were counted."""
    pq.write_table(parquet.read(part).drop_columns(["modality"]), part)

"""Every file of an export ends as it was planted: verdict, reason, repairs, flags, pixels, and nothing leaks."""

from __future__ import annotations

import json
import stat
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from shardkit.build import ledger
from shardkit.codecs import blosc
from shardkit.dataset import contents
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import BuildError
from shardkit.formats import shard_format
from shardkit.synthetic.defects import DEFECTS
from shardkit.synthetic.records import LOSSY, radiograph_of

# These defects leave the intended picture as it is, though something else is odd.
SOUND_PIXELS = {"", "no_meta", "padded_j2k", "uid_collision", "no_patient_id", "overlay", "no_modality"}


def test_the_export_holds_every_kind_of_defect(made: Any) -> None:
    assert {spec.defect for spec in made.specs.values()} == {"", *DEFECTS}


@pytest.mark.formats
def test_every_file_ends_as_planted(made: Any, built: Any) -> None:
    rows = built.ledger()
    assert set(rows) == {file.path for file in made.export.files}
    wrong: dict[str, tuple[str, object]] = {}
    for file in made.export.files:
        row = rows[file.path]
        reason = file.reason or ("ok_repaired" if file.repairs else "ok")
        found = (row["verdict"], row["reason"], tuple(row["repairs"] or ()))
        if found != (file.verdict, reason, file.repairs):
            wrong[file.path] = (made.specs[file.path].defect, found)
        missing = set(file.flags) - set(row["flags"] or ())
        if missing:
            wrong[file.path] = (made.specs[file.path].defect, f"lacks the flags {missing}")
    assert wrong == {}


def test_only_written_files_carry_flags_beyond_the_planted(made: Any, built: Any) -> None:
    rows = built.ledger()
    for file in made.export.files:
        if file.verdict == "quarantined":
            assert rows[file.path]["flags"] in (None, []), file.path


@pytest.mark.formats
def test_the_outcome_adds_up(bench: Any, made: Any, built: Any) -> None:
    counts = built.outcome.counts
    assert set(counts) == set(ledger.VERDICTS)
    assert sum(sum(reasons.values()) for reasons in counts.values()) == len(made.export.files)
    assert built.outcome.new_files == len(made.export.files)
    assert built.outcome.samples == sum(counts["written"].values()) == len(built.samples())
    planted = Counter(file.verdict for file in made.export.files)
    assert {verdict: sum(reasons.values()) for verdict, reasons in counts.items()} == planted
    share = planted["quarantined"] / len(made.export.files)
    assert built.outcome.quarantine_share == pytest.approx(share)
    assert not built.outcome.within_quarantine
    description = contents.description(built.store)
    assert description.verdicts == counts
    assert description.samples == built.outcome.samples
    assert sum(description.splits.values()) == built.outcome.samples
    assert description.shards == len({row["shard"] for row in built.samples()})
    assert set(bench.identity(built.out)) == {name for row in built.samples() for name in built.objects(row["shard"])}


def test_a_ledger_that_loses_a_file_is_refused(made: Any, built: Any) -> None:
    table = pq.read_table(built.private / ledger.NAME)
    ledger.check_closure(ledger.counts(table), len(made.export.files))
    with pytest.raises(BuildError, match="does not add up"):
        ledger.check_closure(ledger.counts(table.slice(1)), len(made.export.files))


@pytest.mark.formats
def test_every_written_row_of_the_ledger_names_its_sample(built: Any) -> None:
    samples = {row["key"]: row for row in built.samples()}
    written = [row for row in built.ledger().values() if row["verdict"] == "written"]
    assert sorted(row["key"] for row in written) == sorted(samples)
    for row in written:
        assert row["shard"] == samples[row["key"]]["shard"]
        assert sorted(row["flags"]) == sorted(samples[row["key"]]["flags"])


@pytest.mark.formats
def test_a_dropped_duplicate_names_the_sample_that_was_kept(made: Any, built: Any) -> None:
    rows, samples = built.ledger(), {row["key"]: row for row in built.samples()}
    dropped = [row for row in rows.values() if row["reason"] == "duplicate_exact"]
    assert len(dropped) >= 2
    for row in dropped:
        twin = made.specs[row["path"]]
        kept = next(s for s in made.specs.values() if s.seed == twin.seed and not s.defect)
        assert rows[kept.path]["key"] == row["key"]
        assert samples[row["key"]]["shard"] == row["shard"]


@pytest.mark.formats
def test_every_sound_lossless_file_gives_the_pixels_it_was_made_from(made: Any, built: Any) -> None:
    rows, samples = built.ledger(), {row["key"]: row for row in built.samples()}
    checked = Counter[str]()
    for path, spec in made.specs.items():
        if spec.defect not in SOUND_PIXELS or spec.syntax in LOSSY:
            continue
        sample = samples[rows[path]["key"]]
        pixels = contents.image(built.store, sample, built.description)
        np.testing.assert_array_equal(pixels, radiograph_of(spec), err_msg=path)
        assert sample["bits"] == spec.bits
        assert sample["inverted"] == (spec.photometric == "MONOCHROME1")
        assert sample["transfer_syntax"] == spec.syntax or spec.defect == "no_meta"
        checked[spec.defect] += 1
    assert checked[""] > 25
    assert set(checked) == SOUND_PIXELS


@pytest.mark.formats
def test_every_level_is_half_the_one_above_and_reads_its_prefix_only(built: Any) -> None:
    for row in built.samples()[:6]:
        for level, length in enumerate(row["level_bytes"]):
            pixels = contents.image(built.store, row, built.description, level)
            assert pixels.shape == (ceil_div(row["height"], 2**level), ceil_div(row["width"], 2**level))
            assert length <= row["length"]
        assert row["level_bytes"] == sorted(row["level_bytes"], reverse=True)


@pytest.mark.formats
def test_no_patient_and_no_group_of_near_duplicates_is_cut_by_a_split(made: Any, built: Any) -> None:
    samples = built.samples()
    for column in ("patient", "group"):
        splits: dict[str, set[str]] = {}
        for row in samples:
            if row[column]:
                splits.setdefault(row[column], set()).add(row["split"])
        assert splits
        assert all(len(found) == 1 for found in splits.values()), column
    assert {row["split"] for row in samples} <= {"train", "val", "test"}


def test_a_near_duplicate_shares_the_group_of_its_original(made: Any, built: Any) -> None:
    rows, samples = built.ledger(), {row["key"]: row for row in built.samples()}
    twins = [spec for spec in made.specs.values() if spec.defect == "near_duplicate"]
    assert twins
    for twin in twins:
        original = next(s for s in made.specs.values() if s.seed == twin.seed and not s.defect)
        a, b = (samples[rows[spec.path]["key"]] for spec in (twin, original))
        assert a["group"] == b["group"] is not None
        assert "near_duplicate" in a["flags"]
        assert "near_duplicate" in b["flags"]


def test_the_same_patient_keeps_one_pseudonym_and_no_two_share_one(made: Any, built: Any) -> None:
    rows, samples = built.ledger(), {row["key"]: row for row in built.samples()}
    names: dict[str, set[str]] = {}
    for path, spec in made.specs.items():
        if rows[path]["verdict"] == "written" and spec.defect != "no_patient_id":
            names.setdefault(spec.study.patient.number, set()).add(samples[rows[path]["key"]]["patient"])
    assert all(len(found) == 1 for found in names.values())
    assert len(set.union(*names.values())) == len(names) > 5


# ---- privacy


def _texts(value: Any) -> list[bytes]:
    """Every text and byte string within a value, and numbers as text."""
    if isinstance(value, dict):
        return [t for k, v in value.items() for t in (*_texts(k), *_texts(v))]
    if isinstance(value, list):
        return [t for v in value for t in _texts(v)]
    if isinstance(value, bytes):
        return [value]
    return [str(value).encode()]


def _parquet(path: Path, leave_out: tuple[str, ...] = ()) -> bytes:
    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name not in leave_out]
    rows = file.read(columns=names).to_pylist()
    return b"\n".join([*_texts(rows), str(file.schema_arrow).encode(), str(file.metadata.metadata).encode()])


def _readable(root: Path) -> dict[str, bytes]:
    """All that a reader of a dataset can see, decompressed; names of files included."""
    out, pixels = {}, shard_format("zarr").OBJECT
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        out[name] = name.encode() + b"\n" + path.read_bytes()
        if path.suffix == ".parquet":
            out[f"{name} columns"] = _parquet(path)
        if "/c/" in name and not pixels.fullmatch(name):
            out[f"{name} values"] = blosc.decompress(path.read_bytes())
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for info in tar:
                    member = tar.extractfile(info)
                    assert member is not None
                    out[f"{name}:{info.name}"] = info.name.encode() + b"\n" + member.read()
    return out


def _leaks(contents: dict[str, bytes], identifiers: frozenset[str]) -> list[tuple[str, str]]:
    planted = {text: text.encode() for text in identifiers}
    return [
        (name, text)
        for name, data in contents.items()
        # Compressed pixels are noise in which eight digits may turn up: what lies beside them tells all there is.
        if not name.endswith(".j2c") and not shard_format("zarr").OBJECT.fullmatch(name)
        for text, needle in planted.items()
        if needle in data
    ]


@pytest.mark.formats
def test_nothing_planted_is_found_in_the_dataset(made: Any, built: Any) -> None:
    contents = _readable(built.out)
    facts = ".json" if built.form == "webdataset" else "/key/c/0 values"
    assert any(name.endswith(facts) for name in contents)
    assert "report/index.html" in contents
    assert _leaks(contents, made.export.identifiers) == []


def test_image_members_hold_a_codestream_and_no_comment(built: Any) -> None:
    """Pixels are left out of the search above, so nothing else may be in their member."""
    for path in built.out.glob("shards/*/*.tar"):
        with tarfile.open(path) as tar:
            for info in tar:
                if info.name.endswith(".j2c"):
                    member = tar.extractfile(info)
                    assert member is not None
                    data = member.read()
                    head = data[: data.index(b"\xff\x90")]
                    assert data.startswith(b"\xff\x4f")
                    assert data.endswith(b"\xff\xd9")
                    assert len(head) < 400


def test_private_state_holds_clear_text_in_paths_only(made: Any, built: Any) -> None:
    contents = {}
    for path in sorted(p for p in built.private.rglob("*") if p.is_file()):
        name = path.relative_to(built.private).as_posix()
        contents[name] = _parquet(path, ("path",)) if path.suffix == ".parquet" else path.read_bytes()
    assert {"ledger.parquet", "build.json", "g000/plan.parquet", "g000/scan/00000.parquet"} <= set(contents)
    assert _leaks(contents, made.export.identifiers) == []


def test_dataset_json_names_no_place(made: Any, built: Any) -> None:
    text = (built.out / "dataset.json").read_text()
    for place in (made.root, built.out, built.private):
        assert str(place) not in text
    assert "source" not in json.loads(text)["arguments"]


def test_only_the_owner_reads_the_key(bench: Any, made: Any, tmp_path: Path) -> None:
    source = tmp_path / "export"
    sound = [path for path, spec in made.specs.items() if not spec.defect][:2]
    bench.copy(made.root, source, sound)
    run = bench.cli("build", "--source", source, "--out", tmp_path / "out", "--workers", 1, "--accept-outcome")
    assert run.returncode == 0, run.stderr
    key = tmp_path / "out.private" / "pseudonym.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32


def test_the_command_line_says_nothing_planted_and_its_counts_add_up(bench: Any, made: Any, tmp_path: Path) -> None:
    source = "--source", made.root, "--workers", 1
    runs = [bench.cli("build", *source, "--out", tmp_path / "out"), bench.cli("scan", *source)]
    assert [run.returncode for run in runs] == [3, 0], [run.stderr for run in runs]
    assert "--max-quarantine" in runs[0].stderr
    words = {w[1]: int(w[0]) for w in map(str.split, runs[0].stdout.splitlines()) if len(w) > 1 and w[0].isdigit()}
    planted = Counter(file.verdict for file in made.export.files)
    assert {verdict: words[verdict] for verdict in planted} == planted
    for run in runs:
        assert "Traceback" not in run.stderr
        said = {"stdout": run.stdout.encode(), "stderr": run.stderr.encode()}
        assert _leaks(said, made.export.identifiers) == []

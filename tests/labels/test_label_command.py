"""`shardkit label` as it is typed: on a bucket, and where no row of the table belongs to the dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from shardkit import labels
from shardkit.storage import Store
from tests.labels.conftest import Place


def test_a_dataset_in_a_bucket_is_labelled_as_one_in_a_folder(
    place: Place, moto: str, run: Callable[..., tuple[int, str, str]]
) -> None:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="labelled")
    url, store = "s3://labelled/dataset", Store("s3://labelled/dataset")
    for path in (path for path in place.dataset.rglob("*") if path.is_file()):
        store.put(str(path.relative_to(place.dataset)), path.read_bytes())
    table = place.table(["path", "Edema"], [[spec.path, i % 2] for i, spec in enumerate(place.specs)])
    words = ["--name", "findings", "--table", table, "--by", "path"]
    assert "--private DIR is required" in run("label", url, *words)[2]
    code, _, err = run("label", url, *words, "--private", place.private)
    assert code == 0, err
    assert run("label", place.dataset, *words, "--private", place.private)[0] == 0
    here, there = labels.read(Store(place.url), "findings"), labels.read(store, "findings")
    assert here.digest == there.digest
    code, out, _ = run("labels", url)
    assert (code, out) == run("labels", place.dataset)[:2]
    assert run("unlabel", url, "--name", "findings")[0] == 0
    assert [name for name, _ in store.list("labels")] == []
    assert run("labels", url)[1] == f"{url} has no labels: shardkit label joins a table\n"


def test_a_table_that_matches_nothing_says_which_column_would(
    place: Place, run: Callable[..., tuple[int, str, str]]
) -> None:
    rows = [[spec.sop_uid, spec.study.patient.number, 1] for spec in place.specs]
    table = place.table(["image", "who", "Edema"], rows)
    words = ["label", place.dataset, "--name", "x", "--table", table, "--private", place.private]
    code, _, err = run(*words, "--by", "path")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"shardkit: none of the table's {len(rows):,} rows belongs to a sample by path (not in the")
    for way in ("in the first rows --by ", "--by sop --column 'image'", "--by patient --column 'who'"):
        assert way in err
    other = place.table(["image", "Edema"], [["1.2.3.4.5", 1]], "other.csv")
    code, _, err = run(*words[:5], other, *words[6:], "--by", "sop", "--column", "image")
    assert "image looks like UIDs: does --by sop fit, and is it the table of this dataset?" in err
    bare = {Path(row["path"]).name for row in place.ledger()}
    paths = [Path(path) for path in place.written()]
    rows = [[path.with_suffix(".png"), 1] for path in paths if path.suffix == ".dcm" and path.stem not in bare]
    other = place.table(["image", "Edema"], rows, "pictures.csv")
    code, _, err = run(*words[:5], other, *words[6:], "--by", "path")
    assert "; image names files that are here with another extension: write the names without one" in err


def test_where_no_file_states_what_rows_name_a_column_that_would_match_is_proposed(
    place: Place, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    """As of PNG files, whose studies nobody knows."""
    (tmp_path / "pseudonym.key").write_bytes((place.private / "pseudonym.key").read_bytes())
    ledger = pq.read_table(place.private / "ledger.parquet")
    pq.write_table(ledger.drop_columns(["accession"]), tmp_path / "ledger.parquet")
    table = place.table(["study", "image", "Edema"], [[f"s{i}", path, 1] for i, path in enumerate(place.written())])
    words = ["--name", "x", "--table", table, "--private", tmp_path, "--by", "accession", "--column", "study"]
    code, _, err = run("label", place.dataset, *words)
    assert (code, err.count("\n")) == (1, 1)
    assert "--by accession cannot be used: the ledger tells it of no file" in err
    assert err.endswith("; in the first rows --by path --column 'image' matches\n")

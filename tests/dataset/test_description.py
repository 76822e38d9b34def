"""dataset.json is read into one record, and written from it byte by byte as it was."""

import json
from pathlib import Path

import pytest

from shardkit.dataset import contents
from shardkit.dataset.description import DatasetDescription
from shardkit.errors import IntegrityError
from shardkit.storage import Store

EARLIER = ("shard_format", "transfer_syntax")
"""Fields that earlier versions did not write."""


@pytest.mark.formats
def test_a_description_that_was_read_is_written_as_the_same_bytes(dataset_folder: Path) -> None:
    written = (dataset_folder / contents.NAME).read_text()
    assert contents.description(Store(str(dataset_folder))).to_json() == written


def test_a_transcoded_dataset_names_the_one_it_was_made_from_last(dataset_folder: Path) -> None:
    content = json.loads((dataset_folder / contents.NAME).read_text()) | {"converted_from": "1" * 64}
    described = DatasetDescription.from_content(content)
    assert described.converted_from == "1" * 64
    assert described.to_json() == json.dumps(content, indent=1)


def test_what_earlier_versions_did_not_write_means_what_they_did(dataset_folder: Path, tmp_path: Path) -> None:
    content = json.loads((dataset_folder / contents.NAME).read_text())
    old = {name: value for name, value in content.items() if name not in EARLIER} | {"format": 1}
    (tmp_path / contents.NAME).write_text(json.dumps(old))
    described = contents.description(Store(str(tmp_path)))
    assert (described.format, described.shard_format, described.transfer_syntax) == (1, "webdataset", None)
    assert described.converted_from is None


def test_every_field_that_must_be_there_is_missed(dataset_folder: Path, tmp_path: Path) -> None:
    content = json.loads((dataset_folder / contents.NAME).read_text())
    for name in content.keys() - {*EARLIER}:
        (tmp_path / contents.NAME).write_text(json.dumps({k: v for k, v in content.items() if k != name}))
        words = "another format" if name == "format" else f"dataset.json: {name} is missing, and must be "
        with pytest.raises(IntegrityError, match=words):
            contents.description(Store(str(tmp_path)))
